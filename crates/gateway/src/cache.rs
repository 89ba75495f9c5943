//! A bounded map that forgets what was not asked for lately.
//!
//! Two generations: a lookup that finds its entry in the old one moves it to the young one; when the young one is full it becomes the
//! old one and what nobody asked for in between is gone. Every operation is one or two hash lookups, there is no list to keep, and
//! the bound holds exactly.

use std::borrow::Borrow;
use std::hash::Hash;

use runtime::Lookup;

/// A bounded map of at most `2 × half` entries.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    young: Lookup<K, V>,
    old: Lookup<K, V>,
    half: usize,
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    /// Makes a map of at most `entries_max` entries, two at least.
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { young: Lookup::default(), old: Lookup::default(), half: (entries_max / 2).max(1) }
    }

    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_asked_for() {
        let mut cache = Cache::new(4);
        for number in 0..100_u32 {
            cache.insert(number, number);
            assert_eq!(cache.get(&0), Some(0), "asked for every time");
            assert!(cache.young.len() + cache.old.len() <= 4);
        }
        assert_eq!(cache.get(&50), None);
    }
}
