//! The keys of the sandbox's WeChat Pay: made at the first start, kept in a directory, worth nothing anywhere else.
//!
//! ```text
//! <dir>/README.txt
//! <dir>/platform/certificate.pem      certificate_key.pem       the platform certificate
//! <dir>/platform/public_key.pem       public_key_private.pem    the key of public-key mode
//! <dir>/platform/public_key_id.txt
//! <dir>/<mchid>/private_key.pem       certificate.pem           a merchant's own
//! <dir>/<mchid>/serial_no.txt         apiv3_key.txt
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_RSA_SHA256, RsaKeySize, SerialNumber};
use runtime::secret::{self, KeyFileError};
use runtime::{Ids, Timestamp};

use super::crypto::{ApiKey, Signer, Verifier};
use crate::beijing;

const YEARS: i16 = 5;
const README: &str =
    "Keys of the lastmile sandbox's WeChat Pay. Made at its first start; they open nothing outside it.\n";

/// Every key that the sandbox's WeChat Pay and its merchants hold.
#[derive(Debug)]
pub struct Keys {
    /// Signs answers and callbacks under the certificate's serial number.
    pub(super) certificate: Signer,
    /// The platform certificate, PEM.
    pub(super) certificate_pem: String,
    /// Its ends, RFC 3339 in Beijing time.
    pub(super) valid: (String, String),
    /// Signs answers and callbacks in public-key mode.
    pub(super) public: Signer,
    merchants: BTreeMap<String, MerchantKeys>,
}

/// What the sandbox knows of a merchant, and a lastmile that uses the sandbox must be told.
#[derive(Debug)]
pub struct MerchantKeys {
    /// Serial number of the merchant's certificate, upper-case hexadecimal.
    pub serial: String,
    /// Verifies the merchant's requests.
    pub(super) verifier: Verifier,
    /// Seals certificates and callbacks.
    pub(super) api_key: ApiKey,
}

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

impl Keys {
    /// Reads the keys of these merchants from the directory; what is missing is made. Synchronous: it belongs to the start.
    pub fn load_or_create(directory: &Path, merchants: &[String], ids: &Ids, now: Timestamp) -> Result<Self, KeyError> {
        secret::create_private_dir(directory).map_err(|source| io(directory, source))?;
        write_public(&directory.join("README.txt"), README)?;
        let platform = directory.join("platform");
        make_pair(&platform, "certificate_key.pem", Some("certificate.pem"), "Tenpay.com Root CA (sandbox)", ids, now)?;
        make_pair(&platform, "public_key_private.pem", None, "", ids, now)?;
        let certificate_pem = read(&platform.join("certificate.pem"))?;
        let (serial, valid) = certificate_facts(&platform.join("certificate.pem"), &certificate_pem)?;
        let certificate = signer(&platform.join("certificate_key.pem"), serial)?;
        let id_file = platform.join("public_key_id.txt");
        write_public(&id_file, &format!("PUB_KEY_ID_01{:022}\n", ids.below(10_u64.pow(19))))?;
        let public = signer(&platform.join("public_key_private.pem"), read(&id_file)?.trim().to_owned())?;
        write_public(&platform.join("public_key.pem"), &public.public_pem())?;
        let mut known = BTreeMap::new();
        for merchant in merchants {
            known
                .insert(merchant.clone(), MerchantKeys::load_or_create(&directory.join(merchant), merchant, ids, now)?);
        }
        Ok(Self { certificate, certificate_pem, valid, public, merchants: known })
    }

    /// Returns a merchant's keys.
    pub fn merchant(&self, mchid: &str) -> Option<&MerchantKeys> {
        self.merchants.get(mchid)
    }

    /// Returns the id of the key of public-key mode.
    pub fn public_key_id(&self) -> &str {
        self.public.serial()
    }

    /// Returns the key to answer with: the one that the caller named, else the certificate's.
    pub(super) fn answering(&self, named: Option<&str>) -> &Signer {
        if named == Some(self.public.serial()) { &self.public } else { &self.certificate }
    }
}

impl MerchantKeys {
    fn load_or_create(directory: &Path, mchid: &str, ids: &Ids, now: Timestamp) -> Result<Self, KeyError> {
        make_pair(directory, "private_key.pem", Some("certificate.pem"), mchid, ids, now)?;
        let certificate = directory.join("certificate.pem");
        let (serial, _) = certificate_facts(&certificate, &read(&certificate)?)?;
        write_public(&directory.join("serial_no.txt"), &format!("{serial}\n"))?;
        let api_key_file = directory.join("apiv3_key.txt");
        if !api_key_file.exists() {
            secret::create_private(&api_key_file, ids.hex(32).as_bytes())?;
        }
        let api_key = secret::read_private_text(&api_key_file)?;
        let api_key = ApiKey::new(api_key.expose().trim()).ok_or(KeyError::Unusable { path: api_key_file })?;
        let key_file = directory.join("private_key.pem");
        let verifier = signer(&key_file, serial.clone())?.verifier();
        Ok(Self { serial, verifier, api_key })
    }
}

/// Makes a private key, and a certificate of it, where the key is missing.
fn make_pair(
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
        let certificate = certificate_params(subject, ids, now).self_signed(&pair)?;
        // Before the key: a key without its certificate would be taken for complete.
        std::fs::write(directory.join(name), certificate.pem()).map_err(|source| io(&directory.join(name), source))?;
    }
    Ok(secret::create_private(&key_file, pair.serialize_pem().as_bytes())?)
}

fn certificate_params(subject: &str, ids: &Ids, now: Timestamp) -> CertificateParams {
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
    params.distinguished_name.push(DnType::OrganizationName, "lastmile sandbox");
    params.distinguished_name.push(DnType::CommonName, subject);
    params
}

/// The serial number of a certificate and its ends.
fn certificate_facts(path: &Path, pem: &str) -> Result<(String, (String, String)), KeyError> {
    let unusable = || KeyError::Unusable { path: path.to_owned() };
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| unusable())?;
    let certificate = pem.parse_x509().map_err(|_| unusable())?;
    let time = |seconds: i64| beijing::rfc3339(Timestamp::from_seconds_nanos(seconds, 0));
    let validity = certificate.validity();
    let ends = (time(validity.not_before.timestamp()), time(validity.not_after.timestamp()));
    Ok((hex::encode_upper(certificate.raw_serial()), ends))
}

fn signer(path: &Path, serial: String) -> Result<Signer, KeyError> {
    let pem = secret::read_private_text(path)?;
    Signer::from_pem(pem.expose(), serial).ok_or_else(|| KeyError::Unusable { path: path.to_owned() })
}

fn write_public(path: &Path, text: &str) -> Result<(), KeyError> {
    if path.exists() { Ok(()) } else { std::fs::write(path, text).map_err(|source| io(path, source)) }
}

fn read(path: &Path) -> Result<String, KeyError> {
    std::fs::read_to_string(path).map_err(|source| io(path, source))
}

fn io(path: &Path, source: std::io::Error) -> KeyError {
    KeyError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::Clock;

    #[test]
    fn keys_are_made_once_and_read_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let ids = Ids::system(Clock::system());
        let now = Clock::system().now();
        let load = |merchants: &[&str]| {
            let merchants: Vec<String> = merchants.iter().map(|m| (*m).to_owned()).collect();
            Keys::load_or_create(directory.path(), &merchants, &ids, now).expect("keys")
        };
        let first = load(&["1900000001"]);
        let second = load(&["1900000001", "1900000002"]);
        assert_eq!(first.certificate.serial(), second.certificate.serial());
        assert_eq!(first.public_key_id(), second.public_key_id());
        let serial = &first.merchant("1900000001").expect("a merchant").serial;
        assert_eq!(*serial, second.merchant("1900000001").expect("a merchant").serial);
        assert_ne!(*serial, second.merchant("1900000002").expect("a merchant").serial);
        assert!(serial.len() == 40 && first.public_key_id().len() == 35);
        assert!(first.valid.0 < beijing::rfc3339(now) && beijing::rfc3339(now) < first.valid.1);
        let signature = first.public.sign("text");
        assert!(second.public.verifier().verifies("text", &signature));
        assert!(!second.certificate.verifier().verifies("text", &signature));
    }
}
