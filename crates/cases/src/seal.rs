//! Columns that only this service can read: what the citizen typed (plate, licence) and the payer's name at the channel.

use std::io;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use contracts::ids::CaseId;
use runtime::Ids;
use runtime::secret::{KeyFileError, Pii, create_private, read_private};

/// The layout of a sealed column: this byte, the nonce, the ciphertext with its tag.
const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;

/// Why a sealed column, or the key for it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file.
    #[error("the key file for stored input cannot be used")]
    File(#[from] KeyFileError),
    /// The file does not hold 32 bytes.
    #[error("the key file for stored input does not hold {KEY_BYTES} bytes")]
    Length,
    /// Another key, another case or column, or a changed byte.
    #[error("a stored column cannot be opened")]
    Opening,
}

/// Seals and opens columns under one key.
pub(crate) struct Sealer {
    key: LessSafeKey,
    ids: Ids,
}

impl Sealer {
    /// Reads the key of 32 bytes at `path`, or makes one with mode 0600.
    pub(crate) fn load_or_create(path: &Path, ids: &Ids) -> Result<Self, SealError> {
        if !path.exists() {
            match create_private(path, &ids.bytes::<KEY_BYTES>()) {
                // Another replica that shares the directory was first: its key is the key.
                Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
        }
        let bytes = read_private(path)?;
        if bytes.expose().len() != KEY_BYTES {
            return Err(SealError::Length);
        }
        let key = UnboundKey::new(&AES_256_GCM, bytes.expose()).map_err(|_| SealError::Length)?;
        Ok(Self { key: LessSafeKey::new(key), ids: ids.clone() })
    }

    /// Seals `plain` for one column of one case.
    pub(crate) fn seal(&self, case: CaseId, column: &'static str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce = self.ids.bytes::<NONCE_LEN>();
        let mut body = plain.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound(case, column), &mut body)
            .map_err(|_| SealError::Opening)?;
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// Opens what was sealed for this column of this case.
    pub(crate) fn open(&self, case: CaseId, column: &'static str, sealed: &[u8]) -> Result<Pii<Vec<u8>>, SealError> {
        let Some((&VERSION, rest)) = sealed.split_first() else { return Err(SealError::Opening) };
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(SealError::Opening)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Opening)?;
        let mut body = body.to_vec();
        let plain = self.key.open_in_place(nonce, bound(case, column), &mut body).map_err(|_| SealError::Opening)?;
        Ok(Pii::new(plain.to_vec()))
    }
}

/// A sealed value opens in its own row and column alone.
fn bound(case: CaseId, column: &'static str) -> Aad<Vec<u8>> {
    Aad::from(format!("{case}/{column}").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::Clock;

    #[test]
    fn opens_in_its_own_row_and_column_under_its_own_key_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("rows.key");
        let ids = Ids::seeded(Clock::system(), 1);
        let sealer = Sealer::load_or_create(&path, &ids).expect("a key");
        let (case, other) = (CaseId::new(1), CaseId::new(2));
        let sealed = sealer.seal(case, "input", "湘A8K2J6".as_bytes()).expect("seals");
        assert_ne!(sealed, sealer.seal(case, "input", "湘A8K2J6".as_bytes()).expect("seals"), "never twice the same");
        let again = Sealer::load_or_create(&path, &ids).expect("the same key");
        assert_eq!(again.open(case, "input", &sealed).expect("opens").expose(), "湘A8K2J6".as_bytes());
        assert!(again.open(other, "input", &sealed).is_err());
        assert!(again.open(case, "payer", &sealed).is_err());
        for cut in [0, 1, 12, sealed.len() - 1] {
            assert!(again.open(case, "input", sealed.get(..cut).unwrap_or_default()).is_err(), "{cut} bytes");
        }
        let stranger = Sealer::load_or_create(&dir.path().join("other.key"), &ids).expect("a key");
        assert!(stranger.open(case, "input", &sealed).is_err());
    }
}
