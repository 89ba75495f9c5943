//! Compact JWE: ECDH-ES, direct, with A256GCM.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{Context, SHA256};
use runtime::Ids;
use runtime::secret::Secret;
use serde_json::{Map, Value, json};

use super::agreement::{AgreementKey, AgreementPublicKey};
use super::jwk::Jwk;
use super::{base64url, from_base64url, object};

/// Longest sealed text that is looked at, in bytes.
pub const SEALED_BYTES_MAX: usize = 8 * 1024;

const ALG: &str = "ECDH-ES";
const ENC: &str = "A256GCM";
const KEY_BITS: u32 = 256;
const TAG_BYTES: usize = 16;
const IV_BYTES: usize = 12;
const HEADER_BYTES_MAX: usize = 1_024;

/// Why a sealed text cannot be opened. The first check that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JweError {
    /// Longer than [`SEALED_BYTES_MAX`].
    #[error("longer than allowed")]
    Size,
    /// Not five base64url parts, or one that direct agreement must leave empty is not.
    #[error("not the five parts of a directly agreed JWE")]
    Shape,
    /// The header is malformed, has a member twice, or asks for what is not spoken (`zip`, `crit`, another algorithm).
    #[error("a header that is not spoken")]
    Header,
    /// The header names another key.
    #[error("sealed for another key")]
    Kid,
    /// The ephemeral key is unusable.
    #[error("unusable ephemeral key")]
    Epk,
    /// The text does not open: wrong key, or changed.
    #[error("does not open")]
    Open,
    /// Sealing failed in the crypto library.
    #[error("cannot be sealed")]
    Seal,
}

impl JweError {
    /// The name of the check, as callers see it in metadata `check`.
    pub fn check(self) -> &'static str {
        match self {
            Self::Size => "sealed_size",
            Self::Shape => "sealed_shape",
            Self::Header => "sealed_header",
            Self::Kid => "sealed_kid",
            Self::Epk => "sealed_epk",
            Self::Open | Self::Seal => "sealed_open",
        }
    }
}

/// Seals bytes for a key. `cty` says what they are, for example "JWT".
///
/// Errors: Epk when the key is no point of its curve, Seal.
pub fn seal(plain: &[u8], cty: &str, to: &AgreementPublicKey, ids: &Ids) -> Result<String, JweError> {
    let ephemeral = AgreementKey::generate(to.curve(), ids).map_err(|_| JweError::Seal)?;
    seal_with(plain, cty, to, &ephemeral, ids.bytes())
}

fn seal_with(
    plain: &[u8],
    cty: &str,
    to: &AgreementPublicKey,
    ephemeral: &AgreementKey,
    iv: [u8; IV_BYTES],
) -> Result<String, JweError> {
    let Jwk { kty, crv, x, y, .. } = ephemeral.jwk();
    let mut epk = json!({ "kty": kty, "crv": crv, "x": x });
    if let (Some(y), Some(epk)) = (y, epk.as_object_mut()) {
        epk.insert("y".to_owned(), y.into());
    }
    let header = json!({ "alg": ALG, "enc": ENC, "cty": cty, "epk": epk, "kid": to.kid() });
    let header = base64url(header.to_string().as_bytes());
    let key = content_key(ephemeral, to, &[], &[]).ok_or(JweError::Epk)?;
    let mut sealed = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(iv), Aad::from(header.as_bytes()), &mut sealed)
        .map_err(|_| JweError::Seal)?;
    let (cipher, tag) = sealed.split_at_checked(plain.len()).ok_or(JweError::Seal)?;
    Ok(format!("{header}..{}.{}.{}", base64url(&iv), base64url(cipher), base64url(tag)))
}

/// Opens a text that was sealed for this key.
///
/// Limits: [`SEALED_BYTES_MAX`]. Errors: see [`JweError`].
pub fn open(sealed: &str, key: &AgreementKey) -> Result<Secret<Vec<u8>>, JweError> {
    if sealed.len() > SEALED_BYTES_MAX {
        return Err(JweError::Size);
    }
    let parts: Vec<&str> = sealed.split('.').collect();
    let &[header, "", iv, cipher, tag] = parts.as_slice() else { return Err(JweError::Shape) };
    if header.len() > HEADER_BYTES_MAX {
        return Err(JweError::Size);
    }
    let decode = |part| from_base64url(part).ok_or(JweError::Shape);
    let iv: [u8; IV_BYTES] = decode(iv)?.try_into().map_err(|_| JweError::Shape)?;
    let tag = decode(tag)?;
    if tag.len() != TAG_BYTES {
        return Err(JweError::Shape);
    }
    let agreed = read_header(&object(&decode(header)?).map_err(|_| JweError::Header)?, key)?;
    let mut text = [decode(cipher)?, tag].concat();
    let plain = agreed
        .open_in_place(Nonce::assume_unique_for_key(iv), Aad::from(header.as_bytes()), &mut text)
        .map_err(|_| JweError::Open)?;
    Ok(Secret::new(plain.to_vec()))
}

/// Checks the header and derives the content key from it.
fn read_header(header: &Map<String, Value>, key: &AgreementKey) -> Result<LessSafeKey, JweError> {
    let known = ["alg", "enc", "cty", "typ", "epk", "kid", "apu", "apv"];
    if header.keys().any(|name| !known.contains(&name.as_str())) {
        return Err(JweError::Header);
    }
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    if text("alg") != Some(ALG) || text("enc") != Some(ENC) {
        return Err(JweError::Header);
    }
    match header.get("kid") {
        None => {}
        Some(Value::String(kid)) if kid == key.kid() => {}
        Some(_) => return Err(JweError::Kid),
    }
    let party = |name: &str| match header.get(name) {
        None => Ok(Vec::new()),
        Some(Value::String(info)) => from_base64url(info).ok_or(JweError::Header),
        Some(_) => Err(JweError::Header),
    };
    let (apu, apv) = (party("apu")?, party("apv")?);
    let epk: Jwk = header.get("epk").cloned().and_then(|epk| serde_json::from_value(epk).ok()).ok_or(JweError::Epk)?;
    let epk = epk.to_agreement_key().map_err(|_| JweError::Epk)?;
    content_key(key, &epk, &apu, &apv).ok_or(JweError::Epk)
}

fn content_key(private: &AgreementKey, public: &AgreementPublicKey, apu: &[u8], apv: &[u8]) -> Option<LessSafeKey> {
    let z = private.agree(public)?;
    let key = concat_kdf(z.expose(), ENC, KEY_BITS, apu, apv);
    UnboundKey::new(&AES_256_GCM, key.expose()).ok().map(LessSafeKey::new)
}

/// Derives a key of at most 256 bits. Source: RFC 7518, 4.6.2; NIST SP 800-56A, 5.8.1, one round of SHA-256.
fn concat_kdf(z: &[u8], algorithm: &str, key_bits: u32, apu: &[u8], apv: &[u8]) -> Secret<Vec<u8>> {
    let mut context = Context::new(&SHA256);
    context.update(&1_u32.to_be_bytes());
    context.update(z);
    for info in [algorithm.as_bytes(), apu, apv] {
        context.update(&u32::try_from(info.len()).unwrap_or(u32::MAX).to_be_bytes());
        context.update(info);
    }
    context.update(&key_bits.to_be_bytes());
    let mut key = context.finish().as_ref().to_vec();
    key.truncate(key_bits as usize / 8);
    Secret::new(key)
}

#[cfg(test)]
mod tests {
    use super::super::{AgreementKey, Curve};
    use super::*;
    use runtime::{Clock, Timestamp};

    fn ids() -> Ids {
        Ids::seeded(Clock::manual(Timestamp::from_micros(0)).0, 1)
    }

    fn p256(d: &str, x: &str, y: &str) -> AgreementKey {
        let secret = from_base64url(d).expect("base64url").try_into().expect("32 bytes");
        let key = AgreementKey::from_secret(Curve::P256, secret).expect("a key");
        let Jwk { x: got_x, y: got_y, .. } = key.jwk();
        assert_eq!((got_x.as_str(), got_y.as_deref()), (x, Some(y)));
        key
    }

    /// RFC 7518, appendix C: the agreement between Alice and Bob, and the key derived for A128GCM.
    #[test]
    fn rfc_7518_appendix_c() {
        let alice = p256(
            "0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo",
            "gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0",
            "SLW_xSffzlPWrHEVI30DHM_4egVwt3NQqeUD7nMFpps",
        );
        let bob = p256(
            "VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw",
            "weNJy2HscCSM6AEDTDg04biOvhFhyyWvOHQfeF_PxMQ",
            "e8lnCO-AlStT-NJVX-crhB7QRYhiix03illJOVAOyck",
        );
        let z = alice.agree(bob.public()).expect("agrees");
        let expected_z = [
            158, 86, 217, 29, 129, 113, 53, 211, 114, 131, 66, 131, 191, 132, 38, 156, 251, 49, 110, 163, 218, 128,
            106, 72, 246, 218, 167, 121, 140, 254, 144, 196,
        ];
        assert_eq!(z.expose().as_slice(), expected_z);
        assert_eq!(bob.agree(alice.public()).expect("agrees").expose(), z.expose());
        let key = concat_kdf(z.expose(), "A128GCM", 128, b"Alice", b"Bob");
        assert_eq!(base64url(key.expose()), "VqqN6vgjbSBcIijNcacQGg");
    }

    #[test]
    fn seals_and_opens_on_both_curves() {
        for curve in [Curve::X25519, Curve::P256] {
            let key = AgreementKey::generate(curve, &ids()).expect("a key");
            let sealed = seal(b"a plate", "JWT", key.public(), &ids()).expect("seals");
            assert_eq!(open(&sealed, &key).expect("opens").expose(), b"a plate");
            let other = AgreementKey::generate(curve, &Ids::seeded(Clock::system(), 2)).expect("a key");
            assert_eq!(open(&sealed, &other).expect_err("another key"), JweError::Kid);
        }
    }

    #[test]
    fn changed_texts_do_not_open() {
        let key = AgreementKey::generate(Curve::X25519, &ids()).expect("a key");
        let sealed = seal(b"a plate", "JWT", key.public(), &ids()).expect("seals");
        let parts: Vec<_> = sealed.split('.').map(str::to_owned).collect();
        for (part, expected) in [(2, JweError::Open), (3, JweError::Open), (4, JweError::Open)] {
            let mut changed = parts.clone();
            let first = if changed[part].starts_with('A') { "B" } else { "A" };
            changed[part].replace_range(0..1, first);
            assert_eq!(open(&changed.join("."), &key).expect_err("refused"), expected, "part {part}");
        }
        let mut keyed = parts.clone();
        keyed[1] = "AAAA".into();
        assert_eq!(open(&keyed.join("."), &key).expect_err("refused"), JweError::Shape);
        assert_eq!(open(&parts[..4].join("."), &key).expect_err("refused"), JweError::Shape);
        assert_eq!(open(&"A".repeat(SEALED_BYTES_MAX + 1), &key).expect_err("refused"), JweError::Size);
    }

    #[test]
    fn headers_that_ask_for_more_are_refused() {
        let key = AgreementKey::generate(Curve::X25519, &ids()).expect("a key");
        let sealed = seal(b"a plate", "JWT", key.public(), &ids()).expect("seals");
        let (head, rest) = sealed.split_once('.').expect("parts");
        let head = object(&from_base64url(head).expect("base64url")).expect("an object");
        let with = |name: &str, value: Value| {
            let mut head = head.clone();
            head.insert(name.to_owned(), value);
            format!("{}.{rest}", base64url(Value::Object(head).to_string().as_bytes()))
        };
        let low = json!({ "kty": "OKP", "crv": "X25519", "x": base64url(&[0; 32]) });
        for (name, value, expected) in [
            ("zip", json!("DEF"), JweError::Header),
            ("crit", json!(["exp"]), JweError::Header),
            ("jku", json!("https://example.com"), JweError::Header),
            ("alg", json!("ECDH-ES+A256KW"), JweError::Header),
            ("alg", json!("dir"), JweError::Header),
            ("enc", json!("A128GCM"), JweError::Header),
            ("kid", json!(7), JweError::Kid),
            ("epk", json!({}), JweError::Epk),
            ("epk", low, JweError::Epk),
            ("apu", json!("***"), JweError::Header),
        ] {
            assert_eq!(open(&with(name, value), &key).expect_err("refused"), expected, "{name}");
        }
    }
}
