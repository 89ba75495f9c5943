//! Compact JWS, read with suspicion.

use serde_json::{Map, Value};

use super::signing::{Algorithm, VerifyingKey};
use super::{JsonError, from_base64url, object};

/// Why a text is not a token that lastmile looks at. The first check that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Longer than the limit; nothing of it was read.
    #[error("longer than allowed")]
    Size,
    /// Not three base64url parts.
    #[error("not three base64url parts")]
    Shape,
    /// The header is no JSON object, has a member twice, or one of a wrong type.
    #[error("malformed header")]
    Header,
    /// The header brings its own key, names a place to fetch one, or demands an extension.
    #[error("a header member that is never honoured")]
    ForbiddenHeader,
    /// `alg` is none of those allowed, or not the one of the key.
    #[error("algorithm not allowed")]
    Algorithm,
    /// `kid` is missing or malformed.
    #[error("no usable kid")]
    Kid,
    /// The payload is no JSON object, or has a member twice.
    #[error("malformed claims")]
    Claims,
    /// The signature is not the key's.
    #[error("signature does not verify")]
    Signature,
}

impl JwsError {
    /// The name of the check, as callers see it in metadata `check`.
    pub fn check(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Shape => "shape",
            Self::Header => "header",
            Self::ForbiddenHeader => "header_forbidden",
            Self::Algorithm => "alg",
            Self::Kid => "kid",
            Self::Claims => "claims",
            Self::Signature => "signature",
        }
    }
}

/// Members that would let the sender choose the key or the rules. Source: RFC 8725, 3.10; RFC 7515, 4.1.
const FORBIDDEN: [&str; 7] = ["jku", "jwk", "x5u", "x5c", "crit", "b64", "zip"];
const KID_LENGTH_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 1_024;

/// The header of a token that was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The key's id: 1 to 64 characters of `[A-Za-z0-9_-]`.
    pub kid: String,
    /// The type, as written; `None` when absent.
    pub typ: Option<String>,
}

/// A token whose form is sound. Nothing in it is true until [`Parsed::verify`] says so.
#[derive(Debug)]
pub struct Parsed<'a> {
    header: Header,
    payload: Vec<u8>,
    input: &'a str,
    signature: &'a str,
}

/// Takes a compact JWS apart.
///
/// Limits: `bytes_max` for the whole text, checked first; 1 KiB for the header.
/// Errors: see [`JwsError`]; never Claims or Signature.
pub fn parse(token: &str, bytes_max: usize) -> Result<Parsed<'_>, JwsError> {
    if token.len() > bytes_max {
        return Err(JwsError::Size);
    }
    let (input, signature) = token.rsplit_once('.').ok_or(JwsError::Shape)?;
    let (head, payload) = input.split_once('.').ok_or(JwsError::Shape)?;
    if payload.contains('.') || head.is_empty() || payload.is_empty() || signature.is_empty() {
        return Err(JwsError::Shape);
    }
    if head.len() > HEADER_BYTES_MAX {
        return Err(JwsError::Size);
    }
    let decode = |part| from_base64url(part).ok_or(JwsError::Shape);
    let (head, payload, raw_signature) = (decode(head)?, decode(payload)?, decode(signature)?);
    let header = read_header(&object(&head).map_err(|_| JwsError::Header)?)?;
    // Both algorithms sign with 64 bytes; a DER signature, or an empty one, has no business here.
    if raw_signature.len() != 64 {
        return Err(JwsError::Signature);
    }
    Ok(Parsed { header, payload, input, signature })
}

fn read_header(header: &Map<String, Value>) -> Result<Header, JwsError> {
    if FORBIDDEN.iter().any(|name| header.contains_key(*name)) {
        return Err(JwsError::ForbiddenHeader);
    }
    let algorithm = match header.get("alg") {
        Some(Value::String(alg)) if alg == Algorithm::EdDsa.as_str() => Algorithm::EdDsa,
        Some(Value::String(alg)) if alg == Algorithm::Es256.as_str() => Algorithm::Es256,
        Some(Value::String(_)) => return Err(JwsError::Algorithm),
        _ => return Err(JwsError::Header),
    };
    let kid = match header.get("kid") {
        Some(Value::String(kid)) if is_kid(kid) => kid.clone(),
        _ => return Err(JwsError::Kid),
    };
    let typ = match header.get("typ") {
        None => None,
        Some(Value::String(typ)) => Some(typ.clone()),
        Some(_) => return Err(JwsError::Header),
    };
    // `cty` would say that the payload is a token again; nested tokens are only ever sealed ones.
    if header.contains_key("cty") || header.contains_key("enc") {
        return Err(JwsError::Header);
    }
    Ok(Header { algorithm, kid, typ })
}

fn is_kid(kid: &str) -> bool {
    (1..=KID_LENGTH_MAX).contains(&kid.len())
        && kid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

impl Parsed<'_> {
    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The claims, before anything is known of who wrote them. Only to find the key they must verify under.
    pub(crate) fn unverified_claims(&self) -> Result<Map<String, Value>, JwsError> {
        object(&self.payload).map_err(|error| match error {
            JsonError::Syntax | JsonError::Duplicate => JwsError::Claims,
        })
    }

    /// Checks the signature and hands out the claims.
    ///
    /// Errors: Algorithm when the key is of another one, Signature, Claims.
    pub fn verify(&self, key: &VerifyingKey) -> Result<Map<String, Value>, JwsError> {
        if key.algorithm() != self.header.algorithm {
            return Err(JwsError::Algorithm);
        }
        if !key.verifies(self.input.as_bytes(), self.signature) {
            return Err(JwsError::Signature);
        }
        self.unverified_claims()
    }
}
