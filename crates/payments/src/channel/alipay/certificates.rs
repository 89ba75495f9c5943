//! Certificate mode (公钥证书方式): requests name the certificates that both sides hold, and Alipay's keys come out of certificates that
//! lead to its root.
//!
//! Source: opendocs.alipay.com, and how Alipay's own clients count the numbers. The root file has several roots, some with SM2 keys; the
//! RSA ones alone count.

use std::path::{Path, PathBuf};

use md5::{Digest, Md5};
use runtime::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::channel::keys::{KeyError, SigningKey, VerifyingKey};

/// Signature algorithms with RSA (PKCS #1).
const RSA: &str = "1.2.840.113549.1.1.";
/// Certificates in one file.
const FILE_MAX: usize = 16;

/// The files of an app in certificate mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// The app's certificate, of its private key (`appCertPublicKey_….crt`).
    pub app_file: PathBuf,
    /// Alipay's certificate and what leads to the root (`alipayCertPublicKey_RSA2.crt`).
    pub alipay_file: PathBuf,
    /// Alipay's roots (`alipayRootCert.crt`).
    pub root_file: PathBuf,
}

/// What a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    /// `app_cert_sn`.
    pub(super) app: String,
    /// `alipay_root_cert_sn`.
    pub(super) root: String,
}

/// Alipay's key out of a certificate.
pub(super) struct Certified {
    pub(super) key: VerifyingKey,
    /// `alipay_cert_sn`.
    pub(super) number: String,
    /// From when until when everything between it and the root is good.
    pub(super) begins: Timestamp,
    pub(super) ends: Timestamp,
}

impl Numbers {
    /// Reads them; the app's certificate must be of its key: of files that are replaced one by one, a pair that does not belong together
    /// is never used.
    pub(super) fn read(files: &Certificates, key: &SigningKey) -> Result<Self, KeyError> {
        let Certificates { app_file, root_file, .. } = files;
        let ders = read(app_file)?;
        let app = parsed(ders.first(), app_file)?;
        if app.public_key().raw != key.public_der() {
            return Err(unusable(app_file, "the private key is another one's"));
        }
        let mut roots = Vec::new();
        for der in &read(root_file)? {
            let root = parsed(Some(der), root_file)?;
            if root.signature_algorithm.algorithm.to_id_string().starts_with(RSA) {
                roots.push(number(&root, root_file)?);
            }
        }
        if roots.is_empty() {
            return Err(unusable(root_file, "it has no RSA root"));
        }
        Ok(Self { app: number(&app, app_file)?, root: roots.join("_") })
    }
}

impl Certified {
    /// Reads Alipay's certificate and follows it to a root.
    pub(super) fn read(files: &Certificates) -> Result<Self, KeyError> {
        let unusable = |what| unusable(&files.alipay_file, what);
        let (ders, roots) = (read(&files.alipay_file)?, read(&files.root_file)?);
        let chain = ders.iter().map(|der| parsed(Some(der), &files.alipay_file)).collect::<Result<Vec<_>, _>>()?;
        let roots = roots.iter().map(|der| parsed(Some(der), &files.root_file)).collect::<Result<Vec<_>, _>>()?;
        let leaf = chain.first().ok_or_else(|| unusable("there is no certificate in it"))?;
        let between = chain.get(1..).unwrap_or_default();
        let (begins, ends) =
            leads(leaf, between, &roots).ok_or_else(|| unusable("it does not lead to a root in the root file"))?;
        Ok(Self {
            key: VerifyingKey::from_der(leaf.public_key().raw).map_err(|_| unusable("it is not of an RSA key"))?,
            number: number(leaf, &files.alipay_file)?,
            begins,
            ends,
        })
    }
}

/// Follows issuers from a certificate to a root, by name and signature; hands back from when until when all of them are good. A root is
/// trusted for standing in its file.
fn leads(
    leaf: &X509Certificate<'_>,
    between: &[X509Certificate<'_>],
    roots: &[X509Certificate<'_>],
) -> Option<(Timestamp, Timestamp)> {
    let (mut begins, mut ends) = span(leaf);
    let mut at = leaf;
    // Each step goes up: a ring of issuers comes to its end here.
    for _ in 0..=between.len() {
        let issuer = |one: &&X509Certificate<'_>| has_issued(one, at);
        let is_last = roots.iter().find(issuer);
        at = is_last.or_else(|| between.iter().find(issuer))?;
        let (begin, end) = span(at);
        (begins, ends) = (begins.max(begin), ends.min(end));
        if is_last.is_some() {
            return Some((begins, ends));
        }
    }
    None
}

fn has_issued(issuer: &X509Certificate<'_>, one: &X509Certificate<'_>) -> bool {
    let key = || VerifyingKey::from_der(issuer.public_key().raw).ok();
    issuer.is_ca()
        && issuer.subject().as_raw() == one.issuer().as_raw()
        && key().is_some_and(|key| key.has_signed(one.tbs_certificate.as_ref(), &one.signature_value.data))
}

fn span(one: &X509Certificate<'_>) -> (Timestamp, Timestamp) {
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_seconds_nanos(time.timestamp(), 0);
    (at(one.validity().not_before), at(one.validity().not_after))
}

/// A certificate's number as Alipay counts it: MD5 over its issuer, the last part first, and its serial number in decimal.
fn number(one: &X509Certificate<'_>, path: &Path) -> Result<String, KeyError> {
    let mut parts = Vec::new();
    for part in one.issuer().iter_rdn().flat_map(|rdn| rdn.iter()) {
        let name = oid2abbrev(part.attr_type(), oid_registry());
        let name = name.map_or_else(|_| part.attr_type().to_id_string(), Into::into);
        parts.push(format!("{name}={}", part.as_str().map_err(|_| unusable(path, "its issuer is no text"))?));
    }
    parts.reverse();
    Ok(hex::encode(Md5::digest(format!("{}{}", parts.join(","), one.tbs_certificate.serial))))
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, KeyError> {
    let ders = CertificateDer::pem_file_iter(path).map_err(|_| unusable(path, "it cannot be read"))?;
    let ders = ders.take(FILE_MAX).collect::<Result<Vec<_>, _>>();
    ders.map_err(|_| unusable(path, "it is no PEM file of certificates"))
}

fn parsed<'a>(der: Option<&'a CertificateDer<'static>>, path: &Path) -> Result<X509Certificate<'a>, KeyError> {
    let der = der.ok_or_else(|| unusable(path, "there is no certificate in it"))?;
    X509Certificate::from_der(der).map(|(_, one)| one).map_err(|_| unusable(path, "it does not read"))
}

fn unusable(path: &Path, what: &'static str) -> KeyError {
    KeyError::Certificate { path: path.to_owned(), what }
}
