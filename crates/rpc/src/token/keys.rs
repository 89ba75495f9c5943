//! The keys in force, and whose they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::jose::VerifyingKey;

/// A key in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub key: VerifyingKey,
    /// Who may sign with it: a role, a profile ("adapter/traffic/430100") or an entry point. It is the only `iss` that the key makes true.
    pub owner: Arc<str>,
}

/// Where a verifier finds keys.
pub trait Keys: Send + Sync {
    /// Finds the key in force with this id. Called on the data path: no I/O.
    fn find(&self, kid: &str) -> Option<Key>;

    /// Waits, for a second at most, until there may be keys that were not there. A set that never changes does not wait.
    fn renewed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A fixed set of keys by id. What changes while it is read is [`crate::keyring::KeyRing`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    keys: BTreeMap<String, Key>,
}

/// Why a key cannot be in a set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Another owner has the same key.
    #[error("the key {kid} belongs to another owner")]
    Owned {
        /// Its id.
        kid: String,
    },
}

impl KeySet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key. The same key of the same owner twice is once.
    ///
    /// Errors: Owned: one key never speaks for two.
    pub fn add(&mut self, owner: &str, key: VerifyingKey) -> Result<(), KeySetError> {
        let kid = key.kid();
        match self.keys.get(&kid) {
            Some(known) if known.owner.as_ref() != owner => Err(KeySetError::Owned { kid }),
            _ => {
                self.keys.insert(kid, Key { key, owner: owner.into() });
                Ok(())
            }
        }
    }

    /// The same with another key, for building a set in one expression.
    ///
    /// Errors: as [`KeySet::add`].
    pub fn with(mut self, owner: &str, key: VerifyingKey) -> Result<Self, KeySetError> {
        self.add(owner, key)?;
        Ok(self)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Keys for KeySet {
    fn find(&self, kid: &str) -> Option<Key> {
        self.keys.get(kid).cloned()
    }
}
