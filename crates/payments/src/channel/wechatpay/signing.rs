//! Signatures of API v3, both ways.
//!
//! Source: 签名生成 / 签名验证 of API v3. Ours covers five lines (method, path with query, seconds, nonce, body), theirs three
//! (seconds, nonce, body); every line ends with LF, the last one too.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method};
use runtime::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};

/// The scheme of both signatures.
pub(super) const SCHEME: &str = "WECHATPAY2-SHA256-RSA2048";
/// How far the two clocks may be apart.
pub(super) const SKEW_MAX: Duration = Duration::from_secs(300);
/// WeChat sends callbacks with a wrong signature that begins like this, and expects them to be refused.
const PROBE: &str = "WECHATPAY/SIGNTEST/";

pub(super) const H_TIMESTAMP: &str = "wechatpay-timestamp";
pub(super) const H_NONCE: &str = "wechatpay-nonce";
pub(super) const H_SIGNATURE: &str = "wechatpay-signature";
pub(super) const H_SERIAL: &str = "wechatpay-serial";
pub(super) const H_TYPE: &str = "wechatpay-signature-type";

/// The merchant's private key.
pub(super) struct SigningKey(rsa::KeyPair);

/// A public key of WeChat.
#[derive(Clone, Debug)]
pub(super) struct VerifyingKey(ParsedPublicKey);

/// The bytes are no key of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RSA key of at least 2048 bits in PEM")]
pub struct BadKey;

impl SigningKey {
    /// Reads a private key, PKCS #8 or PKCS #1.
    pub(super) fn from_pem(pem: &str) -> Result<Self, BadKey> {
        let key = match PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| BadKey)? {
            PrivateKeyDer::Pkcs8(der) => rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => rsa::KeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err(BadKey),
        };
        key.map(Self).map_err(|_| BadKey)
    }

    /// Signs, and writes the signature in base64. None is a failure of the cryptographic library.
    pub(super) fn sign(&self, message: &str) -> Option<String> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).ok()?;
        Some(STANDARD.encode(signature))
    }
}

impl VerifyingKey {
    /// Reads a public key in PEM, as WeChat hands it out for a `PUB_KEY_ID_…`.
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, BadKey> {
        Self::from_der(SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| BadKey)?.as_ref())
    }

    /// Reads a SubjectPublicKeyInfo.
    pub(super) fn from_der(der: &[u8]) -> Result<Self, BadKey> {
        ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).map(Self).map_err(|_| BadKey)
    }

    /// Whether the signature, in base64, is this key's.
    pub(super) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        STANDARD.decode(signature).is_ok_and(|signature| self.0.verify_sig(message, &signature).is_ok())
    }
}

/// What our signature of a request covers.
pub(super) fn request_message(method: &Method, target: &str, seconds: i64, nonce: &str, body: &str) -> String {
    format!("{method}\n{target}\n{seconds}\n{nonce}\n{body}\n")
}

/// The Authorization header of a signed request.
pub(super) fn authorization(merchant: &str, serial: &str, seconds: i64, nonce: &str, signature: &str) -> String {
    format!(
        "{SCHEME} mchid=\"{merchant}\",nonce_str=\"{nonce}\",signature=\"{signature}\",timestamp=\"{seconds}\",\
         serial_no=\"{serial}\""
    )
}

/// What the signature of a JSAPI or mini-program pay sheet covers.
pub(super) fn sheet_message(app_id: &str, seconds: i64, nonce: &str, package: &str) -> String {
    format!("{app_id}\n{seconds}\n{nonce}\n{package}\n")
}

/// The signature that came with an answer or callback, its time already checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) serial: &'a str,
    seconds: &'a str,
    nonce: &'a str,
    signature: &'a str,
}

/// Why a signature cannot be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadSigned {
    /// A header is missing or wrong.
    Header(&'static str),
    /// Its time is too far from ours.
    Time,
    /// A probe.
    Probe,
}

impl<'a> Signed<'a> {
    /// Takes the signature out of the headers.
    pub(super) fn read(headers: &'a HeaderMap, now: Timestamp) -> Result<Self, BadSigned> {
        let header = |name: &'static str| {
            let mut all = headers.get_all(name).iter();
            let value = all.next().and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty());
            value.filter(|_| all.next().is_none()).ok_or(BadSigned::Header(name))
        };
        if headers.contains_key(H_TYPE) && header(H_TYPE)? != SCHEME {
            return Err(BadSigned::Header(H_TYPE));
        }
        let signature = header(H_SIGNATURE)?;
        if signature.starts_with(PROBE) {
            return Err(BadSigned::Probe);
        }
        let seconds = header(H_TIMESTAMP)?;
        let at = seconds.parse().map_err(|_| BadSigned::Header(H_TIMESTAMP))?;
        let at = Timestamp::from_seconds_nanos(at, 0);
        if now.since(at).max(at.since(now)) > SKEW_MAX {
            return Err(BadSigned::Time);
        }
        Ok(Self { serial: header(H_SERIAL)?, seconds, nonce: header(H_NONCE)?, signature })
    }

    /// Whether the body was signed by `key`.
    pub(super) fn covers(&self, body: &[u8], key: &VerifyingKey) -> bool {
        let mut message = format!("{}\n{}\n", self.seconds, self.nonce).into_bytes();
        message.extend_from_slice(body);
        message.push(b'\n');
        key.verifies(&message, self.signature)
    }
}
