//! Digests: of bytes, of parts, of whole requests.
//!
//! A request is digested over its protobuf encoding. That is deterministic here: prost writes fields in the order of their numbers,
//! the contract's maps are ordered maps, and fields that this version does not know are not kept. A test walks the contract and
//! refuses an unordered map.

use aws_lc_rs::digest::{Context, SHA256};
use prost::Message;

/// Returns SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    finish({
        let mut context = Context::new(&SHA256);
        context.update(bytes);
        context
    })
}

/// Returns SHA-256 over parts, each preceded by its length as 8 bytes: no two lists of parts share an encoding.
pub fn sha256_parts(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    finish(context)
}

fn finish(context: Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

/// Digests a request for idempotency: the same `request_id` with another digest is `REQUEST_ID_REUSED`.
///
/// Shape: `method` is the full method name, so that an id reused across methods differs as well. Two requests that differ only in how
/// a client wrote them (field order, explicit defaults) have one digest.
pub fn request(method: &str, request: &impl Message) -> [u8; 32] {
    sha256_parts(&[method.as_bytes(), &request.encode_to_vec()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::{Struct, Value, value::Kind};

    #[test]
    fn known_answers() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex::encode(sha256(b"")), empty);
        assert_ne!(sha256_parts(&[b"ab", b"c"]), sha256_parts(&[b"a", b"bc"]));
        assert_ne!(sha256_parts(&[]), sha256_parts(&[b""]));
    }

    #[test]
    fn the_order_in_which_a_map_was_filled_does_not_matter() {
        let text = |t: &str| Value { kind: Some(Kind::StringValue(t.into())) };
        let one: Struct = Struct { fields: [("a".to_owned(), text("1")), ("b".to_owned(), text("2"))].into() };
        let other: Struct = Struct { fields: [("b".to_owned(), text("2")), ("a".to_owned(), text("1"))].into() };
        assert_eq!(request("/x/Y", &one), request("/x/Y", &other));
        assert_ne!(request("/x/Y", &one), request("/x/Z", &one));
    }
}
