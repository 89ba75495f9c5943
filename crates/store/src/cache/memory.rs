use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use runtime::{Clock, Timestamp};

/// What an entry weighs beside its key and value, roughly: two tree nodes and the key a second time.
const ENTRY_BYTES: usize = 128;

/// A bounded map whose entries run out. Full, it gives up what would run out first.
pub(super) struct Memory {
    entries_max: usize,
    bytes_max: usize,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    by_end: BTreeSet<(Timestamp, String)>,
    bytes: usize,
}

struct Entry {
    value: Vec<u8>,
    count: u64,
    ends: Timestamp,
}

impl Memory {
    pub(super) fn new(entries_max: usize, bytes_max: usize, clock: Clock) -> Self {
        Self { entries_max, bytes_max, clock, state: Mutex::default() }
    }

    pub(super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.locked(|state, _| state.entries.get(key).map(|entry| entry.value.clone()))
    }

    pub(super) fn put(&self, key: &str, value: &[u8], ttl: Duration) {
        self.locked(|state, now| {
            state.remove(key);
            self.insert(state, key, Entry { value: value.to_vec(), count: 0, ends: now.plus(ttl) });
        });
    }

    pub(super) fn put_if_absent(&self, key: &str, value: &[u8], ttl: Duration) -> bool {
        self.locked(|state, now| {
            let absent = !state.entries.contains_key(key);
            if absent {
                self.insert(state, key, Entry { value: value.to_vec(), count: 0, ends: now.plus(ttl) });
            }
            absent
        })
    }

    pub(super) fn remove(&self, key: &str) {
        self.locked(|state, _| state.remove(key));
    }

    pub(super) fn incr(&self, key: &str, by: u64, window: Duration) -> u64 {
        self.locked(|state, now| {
            if let Some(entry) = state.entries.get_mut(key) {
                entry.count = entry.count.saturating_add(by);
                return entry.count;
            }
            self.insert(state, key, Entry { value: Vec::new(), count: by, ends: now.plus(window) });
            by
        })
    }

    fn insert(&self, state: &mut State, key: &str, entry: Entry) {
        let bytes = weight(key, &entry);
        while state.entries.len() >= self.entries_max || state.bytes.saturating_add(bytes) > self.bytes_max {
            if !state.drop_first() {
                break;
            }
        }
        state.bytes = state.bytes.saturating_add(bytes);
        state.by_end.insert((entry.ends, key.to_owned()));
        state.entries.insert(key.to_owned(), entry);
    }

    /// Acts on a state from which everything that has run out is gone.
    fn locked<T>(&self, act: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.by_end.first().is_some_and(|(ends, _)| *ends <= now) {
            state.drop_first();
        }
        act(&mut state, now)
    }
}

impl State {
    fn remove(&mut self, key: &str) {
        if let Some((key, entry)) = self.entries.remove_entry(key) {
            self.bytes = self.bytes.saturating_sub(weight(&key, &entry));
            self.by_end.remove(&(entry.ends, key));
        }
    }

    fn drop_first(&mut self) -> bool {
        let Some((_, key)) = self.by_end.pop_first() else { return false };
        if let Some(entry) = self.entries.remove(&key) {
            self.bytes = self.bytes.saturating_sub(weight(&key, &entry));
        }
        true
    }
}

fn weight(key: &str, entry: &Entry) -> usize {
    key.len().saturating_mul(2).saturating_add(entry.value.len()).saturating_add(ENTRY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn memory(entries_max: usize, bytes_max: usize) -> (Memory, runtime::clock::ManualClock) {
        let (clock, hand) = Clock::manual(Timestamp::from_micros(0));
        (Memory::new(entries_max, bytes_max, clock), hand)
    }

    #[test]
    fn full_it_gives_up_what_runs_out_first() {
        let (memory, _hand) = memory(3, 1 << 20);
        for (key, minutes) in [("a", 3), ("b", 1), ("c", 2), ("d", 4)] {
            memory.put(key, key.as_bytes(), MINUTE * minutes);
        }
        assert_eq!(memory.get("b"), None);
        assert!(["a", "c", "d"].iter().all(|key| memory.get(key).is_some()));
    }

    #[test]
    fn its_weight_is_bounded_and_never_leaks() {
        let (memory, hand) = memory(1_000_000, 100_000);
        for round in 0..1_000_u32 {
            memory.put(&format!("key{}", round % 700), &vec![0; 1_000], MINUTE * (1 + round % 7));
            memory.incr(&format!("count{round}"), 1, MINUTE);
            memory.put_if_absent(&format!("nonce{}", round % 300), b"", MINUTE);
            assert!(memory.locked(|state, _| state.bytes) <= 100_000);
        }
        hand.advance(MINUTE * 10);
        assert_eq!(memory.locked(|state, _| (state.bytes, state.entries.len(), state.by_end.len())), (0, 0, 0));
    }
}
