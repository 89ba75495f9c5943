//! Keys that sign, keys that verify.

use std::fmt;
use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use jsonwebtoken::{Algorithm as JwtAlgorithm, DecodingKey, EncodingKey};
use runtime::Ids;
use runtime::secret::Secret;
use serde::Serialize;

use super::jwk::{Jwk, thumbprint_ec, thumbprint_okp};
use super::pkcs8::ED25519;
use super::{KeyError, base64url};

/// A signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// Ed25519. What lastmile signs with.
    EdDsa,
    /// ECDSA over P-256 with SHA-256. Accepted from entry points.
    Es256,
}

impl Algorithm {
    /// As it is written in a header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
        }
    }
}

/// An Ed25519 key that signs.
pub struct SigningKey {
    seed: Secret<[u8; 32]>,
    encoding: EncodingKey,
    public: [u8; 32],
    kid: String,
}

impl SigningKey {
    /// Reads the PKCS#8 PEM file at `path`, or makes one with mode 0600.
    ///
    /// Errors: File when it cannot be read or others can read it, Format when it is no Ed25519 key.
    pub fn load_or_create(path: &Path, ids: &Ids) -> Result<Self, KeyError> {
        Self::from_seed(*ED25519.load_or_create(path, ids.bytes())?.expose())
    }

    /// Makes a key that no file keeps.
    ///
    /// Errors: Rejected.
    pub fn generate(ids: &Ids) -> Result<Self, KeyError> {
        Self::from_seed(ids.bytes())
    }

    /// Reads a PKCS#8 PEM text.
    ///
    /// Errors: Format.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Self::from_seed(*ED25519.read(pem)?.expose())
    }

    fn from_seed(seed: [u8; 32]) -> Result<Self, KeyError> {
        let seed = Secret::new(seed);
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| KeyError::Rejected)?;
        let public: [u8; 32] = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Rejected)?;
        let encoding = EncodingKey::from_ed_der(ED25519.der(seed.expose()).expose());
        Ok(Self { encoding, kid: thumbprint_okp("Ed25519", &public), seed, public })
    }

    /// The PKCS#8 PEM text, for a file that only its owner can read.
    pub fn to_pem(&self) -> Secret<String> {
        ED25519.pem(self.seed.expose())
    }

    /// The key's id: its RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key that verifies.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey::Ed25519(self.public)
    }

    /// The public key for a JWKS.
    pub fn jwk(&self) -> Jwk {
        self.verifying_key().jwk()
    }

    /// Signs claims as a compact JWS with header `alg`, `kid` and `typ`.
    ///
    /// Errors: Rejected when the claims cannot be written as JSON.
    pub fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<String, KeyError> {
        #[derive(Serialize)]
        struct Head<'a> {
            alg: &'a str,
            kid: &'a str,
            typ: &'a str,
        }
        let head = Head { alg: Algorithm::EdDsa.as_str(), kid: &self.kid, typ };
        let head = serde_json::to_vec(&head).map_err(|_| KeyError::Rejected)?;
        let body = serde_json::to_vec(claims).map_err(|_| KeyError::Rejected)?;
        let input = format!("{}.{}", base64url(&head), base64url(&body));
        let signature = self.signature(&input)?;
        Ok(format!("{input}.{signature}"))
    }

    /// The signature over a JWS signing input, base64url.
    pub(crate) fn signature(&self, input: &str) -> Result<String, KeyError> {
        jsonwebtoken::crypto::sign(input.as_bytes(), &self.encoding, JwtAlgorithm::EdDSA)
            .map_err(|_| KeyError::Rejected)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

/// A public key that verifies signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyingKey {
    /// Ed25519, the 32 bytes of RFC 8032.
    Ed25519([u8; 32]),
    /// P-256: x and y, big-endian.
    P256 {
        /// x.
        x: [u8; 32],
        /// y.
        y: [u8; 32],
    },
}

impl VerifyingKey {
    /// The one algorithm of this key.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519(_) => Algorithm::EdDsa,
            Self::P256 { .. } => Algorithm::Es256,
        }
    }

    /// The RFC 7638 thumbprint.
    pub fn kid(&self) -> String {
        match self {
            Self::Ed25519(x) => thumbprint_okp("Ed25519", x),
            Self::P256 { x, y } => thumbprint_ec(x, y),
        }
    }

    /// The key for a JWKS.
    pub fn jwk(&self) -> Jwk {
        Jwk::signature(self)
    }

    /// Tells whether `signature` (64 raw bytes, base64url) is this key's over `input`.
    pub(super) fn verifies(&self, input: &[u8], signature: &str) -> bool {
        let (key, algorithm) = match self {
            Self::Ed25519(x) => (DecodingKey::from_ed_der(x), JwtAlgorithm::EdDSA),
            Self::P256 { x, y } => match DecodingKey::from_ec_components(&base64url(x), &base64url(y)) {
                Ok(key) => (key, JwtAlgorithm::ES256),
                Err(_) => return false,
            },
        };
        jsonwebtoken::crypto::verify(signature, input, &key, algorithm).unwrap_or(false)
    }
}
