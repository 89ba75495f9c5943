//! AES as API v3 uses it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A merchant's APIv3 key.
#[derive(Debug)]
pub(super) struct ApiKey(LessSafeKey);

impl ApiKey {
    /// Takes the 32 characters of an APIv3 key.
    pub(super) fn new(text: &str) -> Option<Self> {
        UnboundKey::new(&AES_256_GCM, text.as_bytes()).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    /// Seals with AES-256-GCM under a nonce of 12 characters; base64 with the tag at the end.
    pub(super) fn seal(&self, nonce: &str, associated: &str, text: &str) -> Option<String> {
        let nonce = Nonce::try_assume_unique_for_key(nonce.as_bytes()).ok()?;
        let mut bytes = text.as_bytes().to_vec();
        self.0.seal_in_place_append_tag(nonce, Aad::from(associated.as_bytes()), &mut bytes).ok()?;
        Some(STANDARD.encode(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_text_opens_with_the_key_and_what_belongs_to_it() {
        const KEY: &str = "0123456789abcdef0123456789abcdef";
        let sealed = ApiKey::new(KEY).expect("a key").seal("0123456789ab", "certificate", "text").expect("sealed");
        let mut bytes = STANDARD.decode(sealed).expect("base64");
        assert_eq!(bytes.len(), 4 + 16, "the tag stands at the end");
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, KEY.as_bytes()).expect("a key"));
        let nonce = || Nonce::try_assume_unique_for_key(b"0123456789ab").expect("a nonce");
        assert!(key.open_in_place(nonce(), Aad::from(b"other"), &mut bytes.clone()).is_err());
        assert_eq!(key.open_in_place(nonce(), Aad::from(b"certificate"), &mut bytes).expect("opens"), b"text");
        assert!(ApiKey::new("short").is_none());
    }
}
