//! What WeChat seals under the merchant's APIv3 key: callbacks' content and platform certificates. AES-256-GCM, the tag at the end.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Bytes of the APIv3 key.
pub(super) const KEY_BYTES: usize = 32;
/// The one algorithm that API v3 names for this.
const ALGORITHM: &str = "AEAD_AES_256_GCM";

/// The merchant's APIv3 key.
pub(super) struct SealKey(LessSafeKey);

/// A sealed value as it stands in JSON.
#[derive(Deserialize)]
pub(super) struct Sealed {
    pub(super) algorithm: String,
    pub(super) ciphertext: String,
    #[serde(default)]
    pub(super) associated_data: Option<String>,
    pub(super) nonce: String,
}

impl SealKey {
    /// Takes the 32 bytes of the key.
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        UnboundKey::new(&AES_256_GCM, bytes).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    /// Opens a sealed value; None when it was not sealed under this key, or was changed.
    pub(super) fn open(&self, sealed: &Sealed) -> Option<Vec<u8>> {
        if sealed.algorithm != ALGORITHM {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(sealed.nonce.as_bytes()).ok()?;
        let aad = Aad::from(sealed.associated_data.as_deref().unwrap_or_default().as_bytes());
        let mut bytes = STANDARD.decode(&sealed.ciphertext).ok()?;
        let opened = self.0.open_in_place(nonce, aad, &mut bytes).ok()?.len();
        bytes.truncate(opened);
        Some(bytes)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const KEY: &[u8; KEY_BYTES] = b"0123456789abcdef0123456789abcdef";

    /// Seals as WeChat does.
    pub(in super::super) fn seal(plain: &[u8], nonce: &str, associated_data: &str) -> serde_json::Value {
        sealed_under(KEY, plain, nonce, associated_data)
    }

    /// Seals a callback's content under a key.
    pub(in super::super) fn seal_with(key: &[u8], plain: &[u8]) -> serde_json::Value {
        sealed_under(key, plain, "0123456789ab", "transaction")
    }

    fn sealed_under(key: &[u8], plain: &[u8], nonce: &str, associated_data: &str) -> serde_json::Value {
        let key = SealKey::new(key).expect("32 bytes");
        let mut bytes = plain.to_vec();
        let unique = Nonce::try_assume_unique_for_key(nonce.as_bytes()).expect("12 bytes");
        key.0.seal_in_place_append_tag(unique, Aad::from(associated_data.as_bytes()), &mut bytes).expect("seals");
        serde_json::json!({
            "algorithm": ALGORITHM,
            "ciphertext": STANDARD.encode(bytes),
            "associated_data": associated_data,
            "nonce": nonce,
        })
    }

    fn sealed(value: &serde_json::Value) -> Sealed {
        serde_json::from_value(value.clone()).expect("a sealed value")
    }

    #[test]
    fn what_was_sealed_opens() {
        let value = seal(b"{}", "593BEC0C930B", "transaction");
        assert_eq!(SealKey::new(KEY).expect("a key").open(&sealed(&value)).as_deref(), Some(&b"{}"[..]));
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let key = SealKey::new(KEY).expect("a key");
        let good = seal(b"{}", "593BEC0C930B", "transaction");
        for (field, value) in [
            ("algorithm", "AEAD_AES_128_GCM"),
            ("associated_data", "certificate"),
            ("nonce", "593BEC0C930C"),
            ("nonce", "short"),
            ("ciphertext", "AAAA"),
            ("ciphertext", "not base64!"),
        ] {
            let mut bad = good.clone();
            bad[field] = value.into();
            assert_eq!(key.open(&sealed(&bad)), None, "{field} = {value}");
        }
        assert!(SealKey::new(b"short").is_none());
    }
}
