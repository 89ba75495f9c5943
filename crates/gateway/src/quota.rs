//! Quotas of entry points, counted here and settled in the background.
//!
//! A call only looks at counters in memory. Once a second the counts since the last time are added to the shared ones (Redis, or this
//! process's memory where there is none), and what all replicas used together comes back. So a quota can be passed by what the
//! replicas admit within one such second, and never costs a call a round trip.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use runtime::Timestamp;

/// A quota counts calls a minute.
const WINDOW: Duration = Duration::from_secs(60);

/// Entry point and item.
type Key = (String, String);

/// Counts of one window.
#[derive(Debug, Default)]
struct Meter {
    /// Number of the window, counted from 1970.
    window: AtomicU64,
    /// Admitted here in the window.
    here: AtomicU64,
    /// Admitted here and already part of `shared`.
    settled: AtomicU64,
    /// Admitted by all replicas, as of the last settling.
    shared: AtomicU64,
}

/// The quotas of one gateway.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    meters: RwLock<BTreeMap<Key, Arc<Meter>>>,
}

/// What has to be added to the shared count of a window.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsettled {
    pub(crate) key: Key,
    pub(crate) window: u64,
    pub(crate) count: u64,
}

impl Quotas {
    /// Takes one call out of a quota.
    /// Errors: how long until the window ends, when the quota is used up.
    pub(crate) fn take(&self, entry_point: &str, item: &str, quota: u64, now: Timestamp) -> Result<(), Duration> {
        let meter = self.meter(entry_point, item);
        let window = window_of(now);
        if meter.window.swap(window, Ordering::AcqRel) != window {
            // The first call of a window begins it anew. Two at once may both do so: what is lost is one call's count.
            meter.here.store(0, Ordering::Release);
            meter.settled.store(0, Ordering::Release);
            meter.shared.store(0, Ordering::Release);
        }
        let others = meter.shared.load(Ordering::Acquire).saturating_sub(meter.settled.load(Ordering::Acquire));
        let here = meter.here.fetch_add(1, Ordering::AcqRel);
        if others.saturating_add(here) < quota {
            return Ok(());
        }
        meter.here.fetch_sub(1, Ordering::AcqRel);
        Err(until_next_window(now))
    }

    /// What was admitted since the last settling.
    pub(crate) fn unsettled(&self) -> Vec<Unsettled> {
        let meters = self.meters.read().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::new();
        for (key, meter) in meters.iter() {
            let count = meter.here.load(Ordering::Acquire).saturating_sub(meter.settled.load(Ordering::Acquire));
            if count > 0 {
                all.push(Unsettled { key: key.clone(), window: meter.window.load(Ordering::Acquire), count });
            }
        }
        all
    }

    /// Records that a count was added, and what all replicas have used.
    pub(crate) fn settle(&self, settled: &Unsettled, shared: u64) {
        let meter = self.meter(&settled.key.0, &settled.key.1);
        if meter.window.load(Ordering::Acquire) == settled.window {
            meter.settled.fetch_add(settled.count, Ordering::AcqRel);
            meter.shared.store(shared, Ordering::Release);
        }
    }

    fn meter(&self, entry_point: &str, item: &str) -> Arc<Meter> {
        let key = (entry_point.to_owned(), item.to_owned());
        if let Some(meter) = self.meters.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Arc::clone(meter);
        }
        // Keys come from the catalogue, never from a caller: there are no more than its routes.
        Arc::clone(self.meters.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_default())
    }
}

fn window_of(now: Timestamp) -> u64 {
    u64::try_from(now.micros()).unwrap_or(0) / window_micros()
}

fn until_next_window(now: Timestamp) -> Duration {
    let into = u64::try_from(now.micros()).unwrap_or(0) % window_micros();
    Duration::from_micros(window_micros() - into)
}

fn window_micros() -> u64 {
    u64::try_from(WINDOW.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_quota_is_a_quota() {
        let quotas = Quotas::default();
        for _ in 0..3 {
            assert_eq!(quotas.take("wechat", "violation", 3, at(10)), Ok(()));
        }
        assert_eq!(quotas.take("wechat", "violation", 3, at(10)), Err(Duration::from_secs(50)));
        assert_eq!(quotas.take("alipay", "violation", 3, at(10)), Ok(()), "another entry point has its own");
        assert_eq!(quotas.take("wechat", "violation", 3, at(60)), Ok(()), "the next minute begins anew");
    }

    #[test]
    fn replicas_share_it() {
        let (one, other) = (Quotas::default(), Quotas::default());
        let mut shared = 0;
        let mut settle = |quotas: &Quotas| {
            for unsettled in quotas.unsettled() {
                shared += unsettled.count;
                quotas.settle(&unsettled, shared);
            }
        };
        for _ in 0..2 {
            assert_eq!(one.take("wechat", "violation", 4, at(10)), Ok(()));
            assert_eq!(other.take("wechat", "violation", 4, at(10)), Ok(()));
        }
        settle(&one);
        settle(&other);
        assert!(other.take("wechat", "violation", 4, at(11)).is_err(), "both replicas together have used four");
        assert_eq!(one.take("wechat", "violation", 4, at(11)), Ok(()), "it has not heard of the other's two yet");
        settle(&one);
        assert!(one.take("wechat", "violation", 4, at(12)).is_err());
    }
}
