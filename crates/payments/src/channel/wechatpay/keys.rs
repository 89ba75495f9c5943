//! The keys of merchants, read from their files, and the roots of the public endpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtime::secret::{self, KeyFileError};
use tokio::sync::Mutex;

use super::seal::{KEY_BYTES, SealKey};
use super::signing::{BadKey, SigningKey, VerifyingKey};
use super::trust::{Cache, Trust};
use crate::config::{Merchant, Verification};

const PUBLIC_KEY_BYTES_MAX: usize = 64 * 1024;

/// A merchant account with its keys.
pub(super) struct Account {
    pub(super) number: String,
    pub(super) serial: String,
    pub(super) key: SigningKey,
    pub(super) seal: SealKey,
    pub(super) trust: Trust,
}

/// The keys of a merchant cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A private file.
    #[error("a private file cannot be used")]
    Private(#[from] KeyFileError),
    /// The merchant's private key.
    #[error("the private key in {} cannot be used", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BadKey,
    },
    /// The APIv3 key.
    #[error("{} does not hold an APIv3 key: 32 bytes", path.display())]
    Seal {
        /// The file.
        path: PathBuf,
    },
    /// The channel's public key.
    #[error("the public key in {} cannot be used", path.display())]
    Public {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// TLS.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

impl Account {
    /// Reads a merchant's keys from its files: the one place that does.
    pub(super) fn read(merchant: &Merchant) -> Result<Self, KeyError> {
        let path = &merchant.private_key_file;
        let pem = secret::read_private_text(path)?;
        let key = SigningKey::from_pem(pem.expose()).map_err(|source| KeyError::Key { path: path.clone(), source })?;
        let path = &merchant.api_v3_key_file;
        let bytes = secret::read_private(path)?;
        let seal = SealKey::new(bytes.expose().trim_ascii_end())
            .filter(|_| bytes.expose().trim_ascii_end().len() == KEY_BYTES)
            .ok_or_else(|| KeyError::Seal { path: path.clone() })?;
        let trust = match &merchant.verification {
            Verification::PlatformCertificates => Trust::Certificates(Mutex::new(Cache::default())),
            Verification::PublicKey { id, file } => Trust::Key { id: id.clone(), key: read_public(file)? },
        };
        Ok(Self { number: merchant.mch_id.clone(), serial: merchant.serial.clone(), key, seal, trust })
    }
}

fn read_public(path: &Path) -> Result<VerifyingKey, KeyError> {
    let unusable = |source| KeyError::Public { path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(|error| unusable(error.into()))?;
    let pem = bytes.get(..PUBLIC_KEY_BYTES_MAX.min(bytes.len())).unwrap_or_default();
    VerifyingKey::from_pem(pem).map_err(|error| unusable(error.into()))
}

/// TLS for the public endpoint, by the roots that browsers trust.
pub(super) fn public_roots() -> Result<Arc<rustls::ClientConfig>, KeyError> {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
