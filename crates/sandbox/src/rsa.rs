//! RSA as both payment channels use it: PKCS#1 v1.5 with SHA-256, signatures in base64; and OAEP with SHA-1, by which WeChat Pay has
//! seal what is personal.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A private key with the name that it signs under: a serial number, an id.
#[derive(Debug)]
pub(crate) struct Signer {
    key: KeyPair,
    opener: PrivateDecryptingKey,
    serial: String,
}

/// A public key.
#[derive(Clone, Debug)]
pub(crate) struct Verifier(Vec<u8>);

impl Signer {
    /// Reads a PKCS#8 key.
    pub(crate) fn from_pem(pem: &str, serial: String) -> Option<Self> {
        let der = der_of(pem, "PRIVATE KEY")?;
        let (key, opener) = (KeyPair::from_pkcs8(&der).ok()?, PrivateDecryptingKey::from_pkcs8(&der).ok()?);
        Some(Self { key, opener, serial })
    }

    /// Returns the serial number of its certificate, or the id of its public key.
    pub(crate) fn serial(&self) -> &str {
        &self.serial
    }

    /// Signs; base64.
    pub(crate) fn sign(&self, text: &str) -> String {
        let mut signature = vec![0; self.key.public_modulus_len()];
        // Signing fails for keys that are too small only, and those are refused when they are read.
        let signed = self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature);
        signed.map(|()| STANDARD.encode(signature)).unwrap_or_default()
    }

    /// Opens what was sealed for the other half with OAEP; base64.
    pub(crate) fn opens(&self, sealed: &str) -> Option<String> {
        let opener = OaepPrivateDecryptingKey::new(self.opener.clone()).ok()?;
        let mut plain = vec![0; opener.min_output_size()];
        let plain = opener.decrypt(&OAEP_SHA1_MGF1SHA1, &STANDARD.decode(sealed).ok()?, &mut plain, None).ok()?;
        String::from_utf8(plain.to_vec()).ok()
    }

    /// Returns the other half.
    pub(crate) fn verifier(&self) -> Verifier {
        Verifier(self.public_der())
    }

    /// Returns the other half as PEM (SubjectPublicKeyInfo).
    pub(crate) fn public_pem(&self) -> String {
        pem_of("PUBLIC KEY", &self.public_der())
    }

    fn public_der(&self) -> Vec<u8> {
        let der: Option<PublicKeyX509Der<'_>> = self.key.public_key().as_der().ok();
        der.map(|der| der.as_ref().to_vec()).unwrap_or_default()
    }
}

impl Verifier {
    /// Tells whether the base64 signature is of this text.
    pub(crate) fn verifies(&self, text: &str, signature: &str) -> bool {
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.0).verify(text.as_bytes(), &signature).is_ok()
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
