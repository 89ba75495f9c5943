use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use runtime::telemetry::{Counter, Metrics};

/// Counts what one database was asked, so that a test can prove that a path asks it nothing.
///
/// Shape: a cheap handle; clones and all clones of the [`crate::Db`] share the counters. Counters only grow. The metrics
/// `lastmile_store_statements_total` and so on show the same, by database.
#[derive(Clone)]
pub struct Meter(Arc<Counters>);

struct Counters {
    statements: Tally,
    transactions: Tally,
    commits: Tally,
    retries: Tally,
    unknown: Tally,
}

/// A number of ours, and the metric that shows it: databases of one name share a metric, and must not share a number.
struct Tally(AtomicU64, Counter);

impl Tally {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.1.inc();
    }
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
    pub(crate) fn new(metrics: &Metrics, database: &str) -> Self {
        let tally = |what: &str, help: &str| {
            let family = metrics.counter(&format!("lastmile_store_{what}"), help);
            let labels = vec![("database", Cow::Owned(database.to_owned()))];
            Tally(AtomicU64::new(0), family.get_or_create(&labels).clone())
        };
        Self(Arc::new(Counters {
            statements: tally("statements", "Statements sent to a database"),
            transactions: tally("transactions", "Transactions begun, each retry again"),
            commits: tally("commits", "Commits acknowledged"),
            retries: tally("retries", "Transactions run again after giving way to others"),
            unknown: tally("commits_unknown", "Commits whose answer was lost"),
        }))
    }

    /// Reads all counters.
    pub fn counts(&self) -> Counts {
        let read = |tally: &Tally| tally.0.load(Ordering::Relaxed);
        Counts {
            statements: read(&self.0.statements),
            transactions: read(&self.0.transactions),
            commits: read(&self.0.commits),
            retries: read(&self.0.retries),
            unknown: read(&self.0.unknown),
        }
    }

    pub(crate) fn statement(&self) {
        self.0.statements.add();
    }

    pub(crate) fn transaction(&self) {
        self.0.transactions.add();
    }

    pub(crate) fn commit(&self) {
        self.0.commits.add();
    }

    pub(crate) fn retry(&self) {
        self.0.retries.add();
    }

    pub(crate) fn unknown(&self) {
        self.0.unknown.add();
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts().fmt(f)
    }
}
