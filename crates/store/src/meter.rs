use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what one database was asked, so that a test can prove that a path asks it nothing.
///
/// Shape: a cheap handle; clones and all clones of the [`crate::Db`] share the counters. Counters only grow.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    statements: AtomicU64,
    transactions: AtomicU64,
    commits: AtomicU64,
    retries: AtomicU64,
    unknown: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Statements sent by callers, reads and writes alike; BEGIN, COMMIT and ROLLBACK not counted.
    pub statements: u64,
    /// Transactions begun, each retry again.
    pub transactions: u64,
    /// Commits that the engine acknowledged.
    pub commits: u64,
    /// Transactions run again because they had given way to others.
    pub retries: u64,
    /// Commits whose answer was lost.
    pub unknown: u64,
}

impl Meter {
    /// Reads all counters.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            statements: read(&self.0.statements),
            transactions: read(&self.0.transactions),
            commits: read(&self.0.commits),
            retries: read(&self.0.retries),
            unknown: read(&self.0.unknown),
        }
    }

    pub(crate) fn statement(&self) {
        self.0.statements.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn transaction(&self) {
        self.0.transactions.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn commit(&self) {
        self.0.commits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn retry(&self) {
        self.0.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unknown(&self) {
        self.0.unknown.fetch_add(1, Ordering::Relaxed);
    }
}
