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
use std::path::Path;

use runtime::secret;
use runtime::{Ids, Timestamp};

use super::crypto::ApiKey;
use crate::beijing;
use crate::key_files::{KeyError, io, make_pair, read, signer, write_public};
use crate::rsa::{Signer, Verifier};

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

    /// Opens what was sealed for the key that the caller named: the one of public-key mode, or the certificate's.
    pub(super) fn open(&self, named: Option<&str>, sealed: &str) -> Option<String> {
        let is_named = |signer: &&Signer| named.is_some_and(|named| named.eq_ignore_ascii_case(signer.serial()));
        [&self.public, &self.certificate].into_iter().find(is_named)?.opens(sealed)
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
