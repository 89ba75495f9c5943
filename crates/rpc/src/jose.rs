//! Keys, signatures and sealed texts, in the forms of JOSE.
//!
//! Narrow on purpose: lastmile signs with EdDSA over Ed25519, accepts ES256 from entry points as well, and seals with ECDH-ES and
//! A256GCM over X25519 or P-256. Nothing else of JOSE is spoken; a header that asks for more is refused before any key is looked at.
//! Randomness comes from `runtime::Ids`, so that a simulation makes the same tokens for the same seed.
//!
//! Source: RFC 7515 (JWS), 7516 (JWE), 7517 (JWK), 7518 (algorithms), 7638 (thumbprints), 8037 (EdDSA and X25519), 8725 (practice).

mod agreement;
mod json;
mod jwe;
mod jwk;
mod jws;
mod pkcs8;
mod signing;

pub use agreement::{AgreementKey, AgreementPublicKey, Curve};
pub use jwe::{JweError, SEALED_BYTES_MAX, open, seal};
pub use jwk::{Jwk, JwkError, Jwks};
pub use jws::{Header, JwsError, Parsed, parse};
pub use signing::{Algorithm, SigningKey, VerifyingKey};

pub(crate) use json::{JsonError, object};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Why a key file or key text cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system, or the file's permissions.
    #[error("the key file cannot be used")]
    File(#[from] runtime::secret::KeyFileError),
    /// Not PKCS#8 PEM of the wanted kind.
    #[error("not a PKCS#8 PEM text of {0}")]
    Format(&'static str),
    /// The crypto library refused it.
    #[error("the key is not usable")]
    Rejected,
}

/// Writes base64url without padding.
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads base64url: no padding, no line breaks, no bits left over. `None` for anything else.
pub(crate) fn from_base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests;
