//! Pages by key, never by offset.
//!
//! A token says where the last page ended and which list it was of; it is opaque to the caller and authorises nothing: the handler
//! filters by the caller's own rights on every page as if there were no token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{Violation, digest};

const VERSION: u8 = 1;
const CHECK_BYTES: usize = 8;
const TOKEN_LENGTH_MAX: usize = 1_024;

/// Makes the token of the page that follows `key`.
///
/// Shape: `list` names the list with everything that shapes it (method, filters, order), so that a token cannot be carried from one
/// list to another; `key` is the sort key of the last row sent, at most 512 bytes.
pub fn token(list: &str, key: &[u8]) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&check(list, key));
    bytes.extend_from_slice(key);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a token; `None` for the first page (an empty token).
///
/// Errors: a violation of `page_token` when it is malformed or of another list.
pub fn key(list: &str, token: &str) -> Result<Option<Vec<u8>>, Violation> {
    if token.is_empty() {
        return Ok(None);
    }
    let bad = || Violation::new("page_token", "is not a token of this list");
    if token.len() > TOKEN_LENGTH_MAX {
        return Err(bad());
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    let (head, key) = bytes.split_at_checked(1 + CHECK_BYTES).ok_or_else(bad)?;
    let expected = check(list, key);
    match head {
        [VERSION, given @ ..] if given == expected => Ok(Some(key.to_vec())),
        _ => Err(bad()),
    }
}

/// Reads `page_size`: 0 takes the default, more than the most takes the most.
///
/// Errors: a violation of `page_size` when it is negative.
pub fn size(asked: i32, default: u32, max: u32) -> Result<u32, Violation> {
    match u32::try_from(asked) {
        Ok(0) => Ok(default),
        Ok(size) => Ok(size.min(max)),
        Err(_) => Err(Violation::new("page_size", "must not be negative")),
    }
}

/// Ties a key to its list: the first bytes of a digest. It guards against mistakes; it is not a signature and need not be one.
fn check(list: &str, key: &[u8]) -> [u8; CHECK_BYTES] {
    let digest = digest::sha256_parts(&[b"lastmile page token", list.as_bytes(), key]);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(digest.split_at(CHECK_BYTES).0);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_its_list() {
        let token = token("cases/open", b"2026|case_01");
        assert_eq!(key("cases/open", &token), Ok(Some(b"2026|case_01".to_vec())));
        assert_eq!(key("cases/open", ""), Ok(None));
        assert!(key("cases/all", &token).is_err());
    }

    #[test]
    fn malformed_tokens_are_refused() {
        let good = token("l", b"k");
        let flipped: String = good.chars().rev().collect();
        for bad in ["a", "!!!!", "AAAA", &flipped, &format!("{good}A"), &"A".repeat(2_000)] {
            assert!(key("l", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_a_default_and_a_most() {
        assert_eq!(size(0, 20, 100), Ok(20));
        assert_eq!(size(7, 20, 100), Ok(7));
        assert_eq!(size(1_000, 20, 100), Ok(100));
        assert!(size(-1, 20, 100).is_err());
    }
}
