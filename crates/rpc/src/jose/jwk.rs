//! Public keys as JSON.

use serde::{Deserialize, Serialize};

use super::agreement::{AgreementPublicKey, Curve};
use super::{VerifyingKey, base64url, from_base64url};
use crate::digest::sha256;

/// Why a JWK cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// Kind, curve, use or algorithm is none of those spoken.
    #[error("a kind of key that is not spoken")]
    Unsupported,
    /// It carries a private part. Nobody should have sent it; it must be thrown away.
    #[error("a private key")]
    Private,
    /// A coordinate is missing or malformed, or the point is none that a key may have.
    #[error("not a point of the curve")]
    Point,
    /// `kid` is not the thumbprint.
    #[error("the kid is not the key's RFC 7638 thumbprint")]
    Kid,
}

/// A public key in JSON form.
///
/// Shape: `kty` OKP (`crv` Ed25519 or X25519) or EC (`crv` P-256); `use` is `sig` or `enc`; `kid` is the RFC 7638 thumbprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// Kind: "OKP" or "EC".
    pub kty: String,
    /// Curve: "Ed25519", "X25519" or "P-256".
    pub crv: String,
    /// Public coordinate, base64url.
    pub x: String,
    /// Second coordinate, for EC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    /// "sig" or "enc".
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Algorithm: "EdDSA", "ES256" or "ECDH-ES".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// RFC 7638 thumbprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// Whether there was a private part. It is noticed so that it can be refused; never kept, never written.
    #[serde(default, rename = "d", skip_serializing, deserialize_with = "present")]
    has_private: bool,
}

/// A set of keys, as `/.well-known/jwks.json` serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwks {
    /// The keys.
    pub keys: Vec<Jwk>,
}

impl Jwk {
    pub(super) fn signature(key: &VerifyingKey) -> Self {
        let (kty, crv, x, y) = match key {
            VerifyingKey::Ed25519(x) => ("OKP", "Ed25519", x, None),
            VerifyingKey::P256 { x, y } => ("EC", "P-256", x, Some(base64url(y))),
        };
        Self::new(kty, crv, base64url(x), y, "sig", key.algorithm().as_str(), key.kid())
    }

    pub(super) fn agreement(key: &AgreementPublicKey) -> Self {
        let (kty, crv, x, y) = match key {
            AgreementPublicKey::X25519(x) => ("OKP", "X25519", x, None),
            AgreementPublicKey::P256 { x, y } => ("EC", "P-256", x, Some(base64url(y))),
        };
        Self::new(kty, crv, base64url(x), y, "enc", "ECDH-ES", key.kid())
    }

    fn new(kty: &str, crv: &str, x: String, y: Option<String>, purpose: &str, alg: &str, kid: String) -> Self {
        Self {
            kty: kty.to_owned(),
            crv: crv.to_owned(),
            x,
            y,
            purpose: Some(purpose.to_owned()),
            alg: Some(alg.to_owned()),
            kid: Some(kid),
            has_private: false,
        }
    }

    /// Reads a key that verifies signatures. A `kid` that is given must be the thumbprint.
    ///
    /// Errors: Unsupported, Private, Point, Kid.
    pub fn to_verifying_key(&self) -> Result<VerifyingKey, JwkError> {
        let key = match (self.kty.as_str(), self.crv.as_str(), &self.y) {
            ("OKP", "Ed25519", None) => VerifyingKey::Ed25519(not_small(coordinate(&self.x)?)?),
            ("EC", "P-256", Some(y)) => VerifyingKey::P256 { x: coordinate(&self.x)?, y: coordinate(y)? },
            _ => return Err(JwkError::Unsupported),
        };
        self.check("sig", key.algorithm().as_str(), &key.kid())?;
        Ok(key)
    }

    /// Reads a key to seal for. A `kid` that is given must be the thumbprint.
    ///
    /// Errors: Unsupported, Private, Point, Kid.
    pub fn to_agreement_key(&self) -> Result<AgreementPublicKey, JwkError> {
        let key = match (self.kty.as_str(), self.crv.as_str(), &self.y) {
            ("OKP", "X25519", None) => AgreementPublicKey::X25519(coordinate(&self.x)?),
            ("EC", "P-256", Some(y)) => AgreementPublicKey::P256 { x: coordinate(&self.x)?, y: coordinate(y)? },
            _ => return Err(JwkError::Unsupported),
        };
        self.check("enc", "ECDH-ES", &key.kid())?;
        Ok(key)
    }

    fn check(&self, purpose: &str, alg: &str, thumbprint: &str) -> Result<(), JwkError> {
        if self.has_private {
            return Err(JwkError::Private);
        }
        let fits = |given: &Option<String>, wanted: &str| given.as_deref().is_none_or(|given| given == wanted);
        if !fits(&self.purpose, purpose) || !fits(&self.alg, alg) {
            return Err(JwkError::Unsupported);
        }
        if fits(&self.kid, thumbprint) { Ok(()) } else { Err(JwkError::Kid) }
    }
}

impl AgreementPublicKey {
    /// The RFC 7638 thumbprint.
    pub fn kid(&self) -> String {
        match self {
            Self::X25519(x) => thumbprint_okp(Curve::X25519.name(), x),
            Self::P256 { x, y } => thumbprint_ec(x, y),
        }
    }
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

fn coordinate(text: &str) -> Result<[u8; 32], JwkError> {
    from_base64url(text).and_then(|bytes| bytes.try_into().ok()).ok_or(JwkError::Point)
}

/// Refuses the points of small order, for which a signature over one message can hold for any.
fn not_small(key: [u8; 32]) -> Result<[u8; 32], JwkError> {
    const SMALL: [&str; 7] = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    let [head @ .., last] = key;
    let unsigned = [head.as_slice(), &[last & 0x7f]].concat();
    if SMALL.contains(&hex::encode(unsigned).as_str()) { Err(JwkError::Point) } else { Ok(key) }
}

/// Source: RFC 7638, 3.2 and RFC 8037, 2: members in lexicographic order, no spaces.
pub(super) fn thumbprint_okp(curve: &str, x: &[u8; 32]) -> String {
    base64url(&sha256(format!(r#"{{"crv":"{curve}","kty":"OKP","x":"{}"}}"#, base64url(x)).as_bytes()))
}

pub(super) fn thumbprint_ec(x: &[u8; 32], y: &[u8; 32]) -> String {
    let text = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, base64url(x), base64url(y));
    base64url(&sha256(text.as_bytes()))
}
