//! Keeps payments' own keys: that under which payer references are sealed until the channel has them, and that of receipts.
//!
//! AES-256-GCM under a key in a file of its own; the order's id is bound in, so that a sealed value opens for its order alone.

use std::io;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use contracts::ids::OrderId;
use runtime::Ids;
use runtime::secret::{self, KeyFileError, Pii, Secret};

use crate::receipts::Seal;

const KEY_BYTES: usize = 32;

/// The key for payer references.
pub(crate) struct Vault {
    key: LessSafeKey,
    ids: Ids,
    receipts: Option<Seal>,
}

/// The key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The file.
    #[error("a key file of payments cannot be used")]
    File(#[from] KeyFileError),
    /// Its content.
    #[error("a key file of payments does not hold 32 bytes")]
    Length,
}

impl Vault {
    /// Reads the key, or makes it where the file is missing.
    pub(crate) fn open(path: &Path, ids: Ids) -> Result<Self, VaultError> {
        let bytes = key_bytes(path, &ids)?;
        let key = UnboundKey::new(&AES_256_GCM, bytes.expose()).map_err(|_| VaultError::Length)?;
        Ok(Self { key: LessSafeKey::new(key), ids, receipts: None })
    }

    /// The same with the key of receipts, which is made where the file is missing.
    pub(crate) fn with_receipts(self, path: &Path) -> Result<Self, VaultError> {
        let receipts = Some(Seal::open(path, &self.ids)?);
        Ok(Self { receipts, ..self })
    }

    /// The key of receipts.
    pub(crate) fn receipts(&self) -> Option<&Seal> {
        self.receipts.as_ref()
    }

    /// Seals a payer reference for its order. None is a failure of the cryptographic library.
    pub(crate) fn seal(&self, order: OrderId, payer: &Pii<String>) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = self.ids.bytes();
        let mut bytes = payer.expose().clone().into_bytes();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce_used, bound(order), &mut bytes).ok()?;
        Some([&nonce[..], &bytes].concat())
    }

    /// Opens what was sealed for this order; None for anything else.
    pub(crate) fn open_for(&self, order: OrderId, sealed: &[u8]) -> Option<Pii<String>> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut bytes = rest.to_vec();
        let opened = self.key.open_in_place(nonce, bound(order), &mut bytes).ok()?;
        Some(Pii::new(std::str::from_utf8(opened).ok()?.to_owned()))
    }
}

/// Reads the 32 bytes of a key, or makes them where the file is missing.
pub(crate) fn key_bytes(path: &Path, ids: &Ids) -> Result<Secret<Vec<u8>>, VaultError> {
    let bytes = match secret::read_private(path) {
        Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            make(path, ids)?;
            secret::read_private(path)?
        }
        read => read?,
    };
    if bytes.expose().len() == KEY_BYTES { Ok(bytes) } else { Err(VaultError::Length) }
}

fn make(path: &Path, ids: &Ids) -> Result<(), KeyFileError> {
    let key: [u8; KEY_BYTES] = ids.bytes();
    match secret::create_private(path, &key) {
        // Another process of this role was first: its key is the key.
        Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn bound(order: OrderId) -> Aad<[u8; 16]> {
    Aad::from(order.bits().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::Clock;

    #[test]
    fn a_payer_opens_for_its_own_order_and_key_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = |name: &str| Vault::open(&dir.path().join(name), Ids::system(Clock::system())).expect("opens");
        let (order, payer) = (OrderId::new(7), Pii::new("oUpF8".to_owned()));
        let sealed = open("one.key").seal(order, &payer).expect("seals");
        assert!(!sealed.windows(5).any(|part| part == b"oUpF8"));
        assert_eq!(open("one.key").open_for(order, &sealed), Some(payer.clone()), "the key stays");
        assert_eq!(open("one.key").open_for(OrderId::new(8), &sealed), None);
        assert_eq!(open("two.key").open_for(order, &sealed), None);
        assert_eq!(open("one.key").open_for(order, &sealed[..8]), None);
        assert_ne!(open("one.key").seal(order, &payer), Some(sealed));
    }

    #[test]
    fn a_file_that_is_no_key_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("short.key");
        secret::create_private(&path, b"short").expect("writes");
        assert!(matches!(Vault::open(&path, Ids::system(Clock::system())), Err(VaultError::Length)));
    }
}
