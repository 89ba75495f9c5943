//! RSA and AES as API v3 uses them.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A private key with the serial number or id that it signs under.
#[derive(Debug)]
pub(super) struct Signer {
    key: KeyPair,
    serial: String,
}

/// A public key.
#[derive(Clone, Debug)]
pub(super) struct Verifier(Vec<u8>);

/// A merchant's APIv3 key.
#[derive(Debug)]
pub(super) struct ApiKey(LessSafeKey);

impl Signer {
    /// Reads a PKCS#8 key.
    pub(super) fn from_pem(pem: &str, serial: String) -> Option<Self> {
        let der = der_of(pem, "PRIVATE KEY")?;
        Some(Self { key: KeyPair::from_pkcs8(&der).ok()?, serial })
    }

    /// Returns the serial number of its certificate, or the id of its public key.
    pub(super) fn serial(&self) -> &str {
        &self.serial
    }

    /// Signs with PKCS#1 v1.5 and SHA-256; base64.
    pub(super) fn sign(&self, text: &str) -> String {
        let mut signature = vec![0; self.key.public_modulus_len()];
        // Signing fails for keys that are too small only, and those are refused when they are read.
        let signed = self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature);
        signed.map(|()| STANDARD.encode(signature)).unwrap_or_default()
    }

    /// Returns the other half.
    pub(super) fn verifier(&self) -> Verifier {
        Verifier(self.public_der())
    }

    /// Returns the other half as PEM (SubjectPublicKeyInfo).
    pub(super) fn public_pem(&self) -> String {
        pem_of("PUBLIC KEY", &self.public_der())
    }

    fn public_der(&self) -> Vec<u8> {
        let der: Option<PublicKeyX509Der<'_>> = self.key.public_key().as_der().ok();
        der.map(|der| der.as_ref().to_vec()).unwrap_or_default()
    }
}

impl Verifier {
    /// Tells whether the base64 signature is of this text.
    pub(super) fn verifies(&self, text: &str, signature: &str) -> bool {
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.0).verify(text.as_bytes(), &signature).is_ok()
    }
}

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

fn der_of(pem: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
}

fn pem_of(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).filter_map(|at| text.get(at..text.len().min(at + 64))).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
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
