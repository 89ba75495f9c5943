//! The keys of merchants, read from their files, and read anew when those are replaced.

use std::path::Path;

use runtime::{Context, secret};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::Mutex;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::seal::{KEY_BYTES, SealKey, Sealed};
use super::signing::{SigningKey, VerifyingKey};
use super::trust::{self, Cache, PublicKey, Trust};
use super::{Credentials, NAME, Verification};
use crate::channel::keyfiles::KeyFiles;
use crate::channel::keys::KeyError;
use crate::config;

/// A merchant account with its keys.
pub(super) struct Account {
    pub(super) number: String,
    /// What it signs with, and opens what is sealed for it.
    pub(super) keys: KeyFiles<OwnKeys>,
    pub(super) trust: Trust,
}

/// The merchant's own keys.
pub(super) struct OwnKeys {
    pub(super) serial: String,
    pub(super) key: SigningKey,
    seal: SealKey,
}

impl Account {
    /// Reads a merchant's keys from its files: the one place that does.
    pub(super) fn read(
        number: &str,
        credentials: &Credentials,
        rules: config::KeyFiles,
        context: &Context,
    ) -> Result<Self, KeyError> {
        let mut files = vec![credentials.private_key_file.clone(), credentials.api_v3_key_file.clone()];
        files.extend(credentials.certificate_file.clone());
        let own = credentials.clone();
        let keys = KeyFiles::open(NAME, files, rules, context, move || OwnKeys::read(&own))?;
        let trust = match &credentials.verification {
            Verification::PlatformCertificates => Trust::Certificates(Mutex::new(Cache::default())),
            Verification::PublicKey { id, id_file, file } => {
                let files = std::iter::once(file).chain(id_file).cloned().collect();
                let (id, id_file, file) = (id.clone(), id_file.clone(), file.clone());
                let read = move || {
                    let id = id_file.as_deref().map_or_else(|| Ok(id.clone()), read_id)?;
                    Ok(PublicKey { id, key: VerifyingKey::read(&file)? })
                };
                Trust::Keys(KeyFiles::open(NAME, files, rules, context, read)?)
            }
        };
        Ok(Self { number: number.to_owned(), keys, trust })
    }

    /// Opens what was sealed for the merchant, also under a key that was replaced a while ago.
    pub(super) fn open(&self, sealed: &Sealed) -> Option<Vec<u8>> {
        self.keys.good().iter().find_map(|keys| keys.seal.open(sealed))
    }
}

impl OwnKeys {
    fn read(credentials: &Credentials) -> Result<Self, KeyError> {
        let key = SigningKey::read(&credentials.private_key_file)?;
        let path = &credentials.api_v3_key_file;
        let bytes = secret::read_private(path)?;
        let seal = SealKey::new(bytes.expose().trim_ascii_end())
            .filter(|_| bytes.expose().trim_ascii_end().len() == KEY_BYTES)
            .ok_or_else(|| KeyError::Seal { path: path.clone() })?;
        let serial = match &credentials.certificate_file {
            None => credentials.serial.clone(),
            Some(path) => serial_of(path, &key, &credentials.serial)?,
        };
        Ok(Self { serial, key, seal })
    }
}

/// Reads the serial number of a merchant's certificate, which must be of its key: of files that are being replaced one by one, a pair
/// that does not belong together is never used.
fn serial_of(path: &Path, key: &SigningKey, configured: &str) -> Result<String, KeyError> {
    let unusable = |what| KeyError::Certificate { path: path.to_owned(), what };
    let der = CertificateDer::from_pem_file(path).map_err(|_| unusable("it is no PEM file of a certificate"))?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| unusable("it does not read"))?;
    if certificate.public_key().raw != key.public_der() {
        return Err(unusable("the private key is another one's"));
    }
    let serial = hex::encode_upper(certificate.raw_serial());
    if !configured.is_empty() && trust::serial(configured) != trust::serial(&serial) {
        return Err(unusable("it has another serial number than the configured one"));
    }
    Ok(trust::serial(&serial))
}

fn read_id(path: &Path) -> Result<String, KeyError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| KeyError::Public { path: path.to_owned(), source: error.into() })?;
    Ok(text.trim().to_owned())
}
