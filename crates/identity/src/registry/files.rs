//! Public keys in files, in the forms that people have them in.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rpc::jose::{Jwks, VerifyingKey};

const FILE_BYTES_MAX: u64 = 64 * 1024;
const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// The DER that stands before the key itself in a SubjectPublicKeyInfo. Source: RFC 8410, 4; RFC 5480, 2.
const SPKI_ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
const SPKI_P256: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3,
    0x42, 0, 4,
];

/// Reads a JWK, a JWK set, or the PEM text of one public key.
///
/// Errors: in words, what is wrong with the file.
pub(super) fn read(path: &Path) -> Result<Vec<VerifyingKey>, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err("longer than 64 KiB".to_owned());
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    if text.contains("PRIVATE KEY") {
        return Err("a private key: the client keeps it, give the public half".to_owned());
    }
    if let Some((_, rest)) = text.split_once(BEGIN) {
        return pem(rest).map(|key| vec![key]).ok_or_else(|| "no public key of Ed25519 or P-256".to_owned());
    }
    if let Ok(set) = serde_json::from_str::<Jwks>(&text) {
        return set.keys.iter().map(|jwk| jwk.to_verifying_key().map_err(|error| error.to_string())).collect();
    }
    super::verifying(&text).map(|key| vec![key]).map_err(|error| error.to_string())
}

fn pem(rest: &str) -> Option<VerifyingKey> {
    let (body, _) = rest.split_once(END)?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(body).ok()?;
    let key = if let Some(point) = der.strip_prefix(&SPKI_ED25519) {
        VerifyingKey::Ed25519(point.try_into().ok()?)
    } else {
        let (x, y) = der.strip_prefix(&SPKI_P256)?.split_at_checked(32)?;
        VerifyingKey::P256 { x: x.try_into().ok()?, y: y.try_into().ok()? }
    };
    // The same refusals as for a JWK: a point that no honest key has.
    key.jwk().to_verifying_key().ok()
}
