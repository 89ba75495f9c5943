//! Tokens as an attacker would write them: any header, any payload, any signature.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
};
use runtime::{Clock, Ids, Timestamp};
use serde_json::{Value, json};

use crate::jose::{SigningKey, VerifyingKey, base64url};

pub(super) fn now() -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000)
}

pub(super) const NOW: i64 = 1_800_000_000;

pub(super) fn ids(seed: u64) -> Ids {
    Ids::seeded(Clock::manual(now()).0, seed)
}

/// A sound citizen token's claims.
pub(super) fn citizen() -> Value {
    json!({
        "iss": "identity", "aud": "gateway", "sub": "c_1", "act": { "sub": "wechat" }, "level": 3,
        "exp": NOW + 900, "iat": NOW, "nbf": NOW, "jti": "j1", "consents": ["traffic.violation"],
        "sealed": { "traffic/430100": "x" }
    })
}

/// A sound client assertion's claims.
pub(super) fn client() -> Value {
    json!({ "iss": "wechat", "sub": "wechat", "aud": "identity", "exp": NOW + 60, "iat": NOW, "jti": "j1" })
}

/// The same object with one member changed, or taken away when `value` is null.
pub(super) fn with(mut claims: Value, name: &str, value: Value) -> Value {
    let object = claims.as_object_mut().expect("an object");
    if value.is_null() {
        object.remove(name);
    } else {
        object.insert(name.to_owned(), value);
    }
    claims
}

/// Any header and payload text, properly signed.
pub(super) fn signed(key: &SigningKey, header: &str, payload: &str) -> String {
    let input = format!("{}.{}", base64url(header.as_bytes()), base64url(payload.as_bytes()));
    let signature = key.signature(&input).expect("signs");
    format!("{input}.{signature}")
}

/// An entry point's P-256 key.
pub(super) struct EcKey {
    pkcs8: Vec<u8>,
    pub(super) public: VerifyingKey,
}

impl EcKey {
    pub(super) fn generate() -> Self {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).expect("a key");
        let pkcs8 = document.as_ref().to_vec();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).expect("reads");
        let point = pair.public_key().as_ref();
        let half = |range: std::ops::Range<usize>| point[range].try_into().expect("32 bytes");
        Self { public: VerifyingKey::P256 { x: half(1..33), y: half(33..65) }, pkcs8 }
    }

    fn sign(&self, algorithm: &'static EcdsaSigningAlgorithm, input: &str) -> Vec<u8> {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &self.pkcs8).expect("reads");
        pair.sign(&SystemRandom::new(), input.as_bytes()).expect("signs").as_ref().to_vec()
    }

    /// A sound ES256 token.
    pub(super) fn token(&self, header: &str, payload: &str) -> String {
        self.with_signature(header, payload, |fixed, _| fixed)
    }

    /// The same with a signature made of the sound one in both forms: raw and DER.
    pub(super) fn with_signature(
        &self,
        header: &str,
        payload: &str,
        change: impl FnOnce(Vec<u8>, Vec<u8>) -> Vec<u8>,
    ) -> String {
        let input = format!("{}.{}", base64url(header.as_bytes()), base64url(payload.as_bytes()));
        let fixed = self.sign(&ECDSA_P256_SHA256_FIXED_SIGNING, &input);
        let der = self.sign(&ECDSA_P256_SHA256_ASN1_SIGNING, &input);
        format!("{input}.{}", base64url(&change(fixed, der)))
    }
}
