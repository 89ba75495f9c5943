//! The keys of merchants, read from their files.

use runtime::secret;
use tokio::sync::Mutex;

use super::seal::{KEY_BYTES, SealKey};
use super::signing::{SigningKey, VerifyingKey};
use super::trust::{Cache, Trust};
use super::{Credentials, Verification};
use crate::channel::keys::KeyError;

/// A merchant account with its keys.
pub(super) struct Account {
    pub(super) number: String,
    pub(super) serial: String,
    pub(super) key: SigningKey,
    pub(super) seal: SealKey,
    pub(super) trust: Trust,
}

impl Account {
    /// Reads a merchant's keys from its files: the one place that does.
    pub(super) fn read(number: &str, credentials: &Credentials) -> Result<Self, KeyError> {
        let key = SigningKey::read(&credentials.private_key_file)?;
        let path = &credentials.api_v3_key_file;
        let bytes = secret::read_private(path)?;
        let seal = SealKey::new(bytes.expose().trim_ascii_end())
            .filter(|_| bytes.expose().trim_ascii_end().len() == KEY_BYTES)
            .ok_or_else(|| KeyError::Seal { path: path.clone() })?;
        let trust = match &credentials.verification {
            Verification::PlatformCertificates => Trust::Certificates(Mutex::new(Cache::default())),
            Verification::PublicKey { id, file } => Trust::Key { id: id.clone(), key: VerifyingKey::read(file)? },
        };
        Ok(Self { number: number.to_owned(), serial: credentials.serial.clone(), key, seal, trust })
    }
}
