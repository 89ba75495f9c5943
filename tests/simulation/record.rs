//! What is seen while a simulation runs: the events with their time, and what clients asked and were answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use invariants::{Call, Probe};
use lastmile_tests::pry::Prey;
use runtime::Timestamp;

/// Everything that somebody outside the mesh saw.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Seen>>);

#[derive(Default)]
pub(crate) struct Seen {
    /// When and what, in the order in which it was seen.
    pub(crate) events: Vec<(Timestamp, String)>,
    pub(crate) calls: Vec<Call>,
    pub(crate) probes: Vec<Probe>,
    /// The cases that were opened, each with the number of its citizen.
    pub(crate) preys: Vec<(u32, Prey)>,
    /// What must not be found in a log.
    pub(crate) canaries: Vec<String>,
    /// What a client saw and should never have seen.
    pub(crate) breaches: Vec<String>,
    /// How many citizens have still something to do.
    pub(crate) busy: usize,
    /// Where the watcher of the entry point's stream stands.
    pub(crate) watched: i64,
}

impl Record {
    pub(crate) fn note(&self, at: Timestamp, what: impl Into<String>) {
        self.seen().events.push((at, what.into()));
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
