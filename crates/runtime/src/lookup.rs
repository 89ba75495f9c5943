//! A map for lookups alone.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;

#[expect(clippy::disallowed_types, reason = "it is not walked: this is where that is made sure of")]
type Hashed<K, V> = std::collections::HashMap<K, V>;

/// A hash map that nobody can walk.
///
/// The order of a hash map is drawn anew in every process, past the seed of a simulation. A lookup does not depend on it; so this has
/// lookups and nothing else, where a `BTreeMap` would cost too much.
#[derive(Clone)]
pub struct Lookup<K, V>(Hashed<K, V>);

impl<K: Eq + Hash, V> Lookup<K, V> {
    /// Returns what stands under `key`.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(key)
    }

    /// Tells whether something stands under `key`.
    pub fn contains_key<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.contains_key(key)
    }

    /// Puts `value` under `key`, and returns what stood there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    /// Takes out what stands under `key`, with its key.
    pub fn remove_entry<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        self.0.remove_entry(key)
    }

    /// Returns what stands under `key`, made with its default where there is nothing.
    pub fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.0.entry(key).or_default()
    }
}

impl<K, V> Lookup<K, V> {
    /// Counts the entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K, V> Default for Lookup<K, V> {
    fn default() -> Self {
        Self(Hashed::new())
    }
}

impl<K: Eq + Hash, V> FromIterator<(K, V)> for Lookup<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

/// Its size: to print the entries would be to walk them.
impl<K, V> fmt::Debug for Lookup<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lookup({} entries)", self.0.len())
    }
}
