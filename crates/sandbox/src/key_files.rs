//! The key files of the simulated payment channels: made at the first start, worth nothing anywhere else.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_RSA_SHA256, RsaKeySize, SerialNumber};
use runtime::secret::{self, KeyFileError};
use runtime::{Ids, Timestamp};

use crate::beijing;
use crate::rsa::Signer;

const YEARS: i16 = 5;

/// The keys cannot be made, kept or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A key file cannot be used.
    #[error("a key file of the sandbox cannot be used")]
    File(#[from] KeyFileError),
    /// A file cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A key or certificate cannot be made.
    #[error("cannot make a key or certificate")]
    Make(#[from] rcgen::Error),
    /// What the file holds is no key.
    #[error("{path} holds no usable key")]
    Unusable {
        /// Which.
        path: PathBuf,
    },
}

/// Makes a private key, and a certificate of it, where the key is missing.
pub(crate) fn make_pair(
    directory: &Path,
    key_name: &str,
    certificate_name: Option<&str>,
    subject: &str,
    ids: &Ids,
    now: Timestamp,
) -> Result<(), KeyError> {
    let key_file = directory.join(key_name);
    if key_file.exists() {
        return Ok(());
    }
    let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    secret::create_private_dir(directory).map_err(|source| io(directory, source))?;
    if let Some(name) = certificate_name {
        let certificate = certificate_params(
            &[(DnType::OrganizationName, "lastmile sandbox"), (DnType::CommonName, subject)],
            ids,
            now,
        )
        .self_signed(&pair)?;
        // Before the key: a key without its certificate would be taken for complete.
        std::fs::write(directory.join(name), certificate.pem()).map_err(|source| io(&directory.join(name), source))?;
    }
    Ok(secret::create_private(&key_file, pair.serialize_pem().as_bytes())?)
}

/// What a certificate says, of whoever is named: good from this month on.
pub(crate) fn certificate_params(name: &[(DnType, &str)], ids: &Ids, now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    let today = beijing::day(now);
    let date = |year: i16| {
        let month = u8::try_from(today.month()).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(year), month, 1)
    };
    params.not_before = date(today.year());
    params.not_after = date(today.year() + YEARS);
    // A positive number of 20 bytes without leading zeros, as WeChat's are.
    let mut serial = ids.bytes::<20>();
    serial[0] = serial[0] & 0x3F | 0x40;
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    // Without the name that rcgen puts there, which would keep its place.
    params.distinguished_name = DistinguishedName::new();
    for (part, text) in name {
        params.distinguished_name.push(part.clone(), *text);
    }
    params
}

/// Reads a private key that signs under a name.
pub(crate) fn signer(path: &Path, serial: String) -> Result<Signer, KeyError> {
    let pem = secret::read_private_text(path)?;
    Signer::from_pem(pem.expose(), serial).ok_or_else(|| KeyError::Unusable { path: path.to_owned() })
}

/// Writes what is no secret, where it is missing.
pub(crate) fn write_public(path: &Path, text: &str) -> Result<(), KeyError> {
    if path.exists() { Ok(()) } else { std::fs::write(path, text).map_err(|source| io(path, source)) }
}

/// Reads what is no secret.
pub(crate) fn read(path: &Path) -> Result<String, KeyError> {
    std::fs::read_to_string(path).map_err(|source| io(path, source))
}

/// An error of the file system.
pub(crate) fn io(path: &Path, source: std::io::Error) -> KeyError {
    KeyError::Io { path: path.to_owned(), source }
}
