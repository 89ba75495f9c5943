//! Which key an answer or callback of WeChat is verified with.
//!
//! Newer merchants verify with one public key that has an id; older ones with platform certificates, which are downloaded, arrive
//! sealed under the APIv3 key, and are replaced by WeChat every few years, with old and new valid side by side for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use tokio::sync::Mutex;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::seal::{SealKey, Sealed};
use super::signing::VerifyingKey;

/// After a download, an unknown serial number does not cause another sooner: callbacks with invented ones must not make us hammer
/// WeChat.
const RENEW_PAUSE: Duration = Duration::from_secs(60);
/// A download that failed is repeated no sooner.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
const CERTIFICATES_MAX: usize = 16;

/// Where a merchant's trust comes from.
pub(super) enum Trust {
    /// One public key.
    Key {
        /// `PUB_KEY_ID_…`.
        id: String,
        /// The key.
        key: VerifyingKey,
    },
    /// Downloaded certificates.
    Certificates(Mutex<Cache>),
}

/// The platform certificates as last downloaded.
#[derive(Default)]
pub(super) struct Cache {
    keys: Keys,
    loaded_at: Option<Timestamp>,
    tried_at: Option<Timestamp>,
}

/// Keys by serial number (see [`serial`]).
pub(super) type Keys = BTreeMap<String, PlatformKey>;

/// The key of one platform certificate.
#[derive(Clone, Debug)]
pub(super) struct PlatformKey {
    pub(super) key: VerifyingKey,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// A platform certificate, for whoever has to say when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformCertificate {
    /// Its serial number, in capital hexadecimal digits.
    pub serial: String,
    /// From when it is good.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
}

#[derive(Deserialize)]
struct List {
    data: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    encrypt_certificate: Sealed,
}

impl PlatformKey {
    fn is_valid(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

impl Cache {
    /// The key for a serial number, and whether the certificates ought to be downloaded (again) now.
    pub(super) fn look(&self, of: &str, now: Timestamp, refresh: Duration) -> (Option<VerifyingKey>, bool) {
        let found = find(&self.keys, of, now);
        let is_fresh = self.loaded_at.is_some_and(|at| now.since(at) < refresh);
        let pause = if self.loaded_at >= self.tried_at { RENEW_PAUSE } else { RETRY_PAUSE };
        let may_try = self.tried_at.is_none_or(|at| now.since(at) >= pause);
        let wanted = may_try && (found.is_none() || !is_fresh);
        (found, wanted)
    }

    /// Notes that a download is tried.
    pub(super) fn trying(&mut self, now: Timestamp) {
        self.tried_at = Some(now);
    }

    /// Takes over what was downloaded and verified.
    pub(super) fn load(&mut self, keys: Keys, now: Timestamp) {
        self.keys = keys;
        self.loaded_at = Some(now);
    }
}

/// Finds the key of a certificate that is valid now.
pub(super) fn find(keys: &Keys, of: &str, now: Timestamp) -> Option<VerifyingKey> {
    keys.get(&serial(of)).filter(|key| key.is_valid(now)).map(|key| key.key.clone())
}

/// Reads the answer of the download. Err says what cannot be read.
///
/// That a certificate opens under the APIv3 key is what makes it WeChat's; the serial number is taken from the certificate itself,
/// because the one beside it is not sealed.
pub(super) fn read(body: &[u8], seal: &SealKey) -> Result<Keys, &'static str> {
    let list: List = serde_json::from_slice(body).map_err(|_| "certificate list")?;
    if list.data.len() > CERTIFICATES_MAX {
        return Err("number of certificates");
    }
    let mut keys = Keys::new();
    for listed in &list.data {
        let pem = seal.open(&listed.encrypt_certificate).ok_or("sealed certificate")?;
        let der = CertificateDer::from_pem_slice(&pem).map_err(|_| "certificate")?;
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| "certificate")?;
        let validity = certificate.validity();
        let key = PlatformKey {
            key: VerifyingKey::from_der(certificate.public_key().raw).map_err(|_| "certificate's key")?,
            not_before: Timestamp::from_seconds_nanos(validity.not_before.timestamp(), 0),
            not_after: Timestamp::from_seconds_nanos(validity.not_after.timestamp(), 0),
        };
        keys.insert(serial(&hex::encode(certificate.raw_serial())), key);
    }
    Ok(keys)
}

/// Lists certificates with their ends.
pub(super) fn ends(keys: Keys) -> Vec<PlatformCertificate> {
    let listed = keys.into_iter().map(|(serial, key)| PlatformCertificate {
        serial,
        not_before: key.not_before,
        not_after: key.not_after,
    });
    listed.collect()
}

/// A serial number as it is compared: capital letters, no leading zeros.
pub(super) fn serial(text: &str) -> String {
    text.trim_start_matches('0').to_ascii_uppercase()
}
