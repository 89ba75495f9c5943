//! Time and ids.
//!
//! A service never reads the system clock and never draws a random number by itself; it asks the [`Clock`] and the [`Ids`] of its
//! context. Waiting always goes through tokio's timer, which a simulator or a paused test runtime can move at will.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const MICROS_PER_SECOND: i64 = 1_000_000;
const NANOS_PER_MICRO: i32 = 1_000;

/// A moment in UTC.
///
/// Units: whole microseconds since 1970-01-01T00:00:00Z; negative before. Serialised as that number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest moment that can be written; a stand-in for "never".
    pub const MAX: Self = Self(i64::MAX);

    /// Wraps microseconds since 1970 UTC.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns microseconds since 1970 UTC, as they are stored in SQL.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Adds a span of time. Saturates at [`Timestamp::MAX`]; fractions of a microsecond are cut off.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros_of(span)))
    }

    /// Subtracts a span of time. Saturates at the earliest moment.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros_of(span)))
    }

    /// Returns the span from `earlier` to `self`, zero when `earlier` is in fact later.
    pub fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// Builds a moment from the (seconds, nanoseconds) pair of a protobuf `Timestamp`; what is finer than a microsecond is cut off.
    pub fn from_seconds_nanos(seconds: i64, nanos: i32) -> Self {
        let micros = seconds.saturating_mul(MICROS_PER_SECOND);
        Self(micros.saturating_add(i64::from(nanos.div_euclid(NANOS_PER_MICRO))))
    }

    /// Returns (seconds, nanoseconds) with 0 ≤ nanoseconds < 10⁹, also before 1970.
    pub fn seconds_nanos(self) -> (i64, i32) {
        let seconds = self.0.div_euclid(MICROS_PER_SECOND);
        let micros = i32::try_from(self.0.rem_euclid(MICROS_PER_SECOND)).unwrap_or(0);
        (seconds, micros * NANOS_PER_MICRO)
    }
}

fn micros_of(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// The time of one role.
///
/// Shape: `now` may be the system's, set by hand, or simulated; `sleep` and `timeout` always follow tokio's timer.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
    Simulated { epoch: Timestamp, start: tokio::time::Instant },
}

/// The hand that moves a manual clock.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

/// A deadline passed before the work was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("deadline passed")]
pub struct Elapsed;

impl Clock {
    /// Follows the operating system's wall clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Stands still at `start` until its [`ManualClock`] is moved. For tests of rules that depend on the date.
    pub fn manual(start: Timestamp) -> (Self, ManualClock) {
        let micros = Arc::new(AtomicI64::new(start.0));
        (Self(Source::Manual(micros.clone())), ManualClock(micros))
    }

    /// Reads `epoch` now and moves with tokio's (virtual) time from here on. Call it inside the simulated host's runtime.
    pub fn simulated(epoch: Timestamp) -> Self {
        Self(Source::Simulated { epoch, start: tokio::time::Instant::now() })
    }

    /// Returns the current moment.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => system_now(),
            Source::Manual(micros) => Timestamp(micros.load(Ordering::SeqCst)),
            Source::Simulated { epoch, start } => {
                epoch.plus(tokio::time::Instant::now().saturating_duration_since(*start))
            }
        }
    }

    /// Waits.
    pub async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }

    /// Runs `work` for at most `span`; the work is dropped when the span is over.
    pub async fn timeout<F: Future>(&self, span: Duration, work: F) -> Result<F::Output, Elapsed> {
        tokio::time::timeout(span, work).await.map_err(|_| Elapsed)
    }
}

/// The one place in the workspace that reads the wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the clock that everything else asks")]
fn system_now() -> Timestamp {
    let now = SystemTime::now();
    match now.duration_since(UNIX_EPOCH) {
        Ok(span) => Timestamp(micros_of(span)),
        Err(before) => Timestamp(micros_of(before.duration()).saturating_neg()),
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Source::System => "system",
            Source::Manual(_) => "manual",
            Source::Simulated { .. } => "simulated",
        };
        write!(f, "Clock({kind})")
    }
}

impl ManualClock {
    /// Moves the clock forward.
    pub fn advance(&self, span: Duration) {
        self.0.fetch_add(micros_of(span), Ordering::SeqCst);
    }

    /// Sets the clock, forwards or backwards.
    pub fn set(&self, at: Timestamp) {
        self.0.store(at.0, Ordering::SeqCst);
    }
}

/// The source of ids and random bytes.
///
/// Shape: one generator behind a mutex; a clone draws from the same stream. Seeded, the same calls give the same values.
#[derive(Clone)]
pub struct Ids {
    clock: Clock,
    random: Arc<Mutex<StdRng>>,
}

impl Ids {
    /// Draws from a ChaCha generator that the operating system seeded.
    pub fn system(clock: Clock) -> Self {
        Self { clock, random: Arc::new(Mutex::new(StdRng::from_os_rng())) }
    }

    /// Draws a stream that depends on `seed` alone (and, for ids, on the clock).
    pub fn seeded(clock: Clock, seed: u64) -> Self {
        Self { clock, random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))) }
    }

    /// Makes a UUID version 7: milliseconds, then twelve bits of the millisecond's fraction, then 62 random bits.
    ///
    /// Order: ids sort by the microsecond they were made in (to about a quarter); within it the order is random.
    /// Source: RFC 9562, sections 5.7 and 6.2 method 3.
    pub fn uuid(&self) -> Uuid {
        let micros = u64::try_from(self.clock.now().micros()).unwrap_or(0);
        let fraction = u16::try_from((micros % 1_000) * 4_096 / 1_000).unwrap_or(0);
        let [high, low] = fraction.to_be_bytes();
        let mut tail = self.bytes::<10>();
        tail[0] = high;
        tail[1] = low;
        uuid::Builder::from_unix_timestamp_millis(micros / 1_000, &tail).into_uuid()
    }

    /// Draws random bytes, fit for keys and nonces when the source is the system's.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.locked(|random| random.fill_bytes(&mut bytes));
        bytes
    }

    /// Draws a whole number in `0..bound`, each equally likely; zero when `bound` is zero.
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.locked(|random| random.random_range(0..bound)) }
    }

    /// Draws `length` lower-case hexadecimal digits.
    pub fn hex(&self, length: usize) -> String {
        self.locked(|random| {
            (0..length).map(|_| char::from_digit(random.random_range(0..16), 16).unwrap_or('0')).collect()
        })
    }

    fn locked<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn seconds_and_nanos_round_trip_before_and_after_1970() {
        for micros in [0, 1, 999_999, 1_000_000, -1, -1_000_001, 1_700_000_000_123_456] {
            let at = Timestamp::from_micros(micros);
            let (seconds, nanos) = at.seconds_nanos();
            assert!((0..1_000_000_000).contains(&nanos), "{micros} gave {nanos} ns");
            assert_eq!(Timestamp::from_seconds_nanos(seconds, nanos), at);
        }
    }

    proptest! {
        #[test]
        fn arithmetic_never_overflows(micros: i64, span in any::<Duration>()) {
            let at = Timestamp::from_micros(micros);
            prop_assert!(at.plus(span) >= at);
            prop_assert!(at.minus(span) <= at);
            prop_assert_eq!(at.since(at.plus(span)), Duration::ZERO);
        }
    }

    #[test]
    fn seeded_ids_repeat_and_differ_by_seed() {
        let (clock, _hand) = Clock::manual(Timestamp::from_micros(1_700_000_000_000_500));
        let draw = |seed| {
            let ids = Ids::seeded(clock.clone(), seed);
            (ids.uuid(), ids.bytes::<16>(), ids.below(1_000_000), ids.hex(9))
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn ids_sort_by_the_microsecond_they_were_made_in() {
        let (clock, hand) = Clock::manual(Timestamp::from_micros(1_700_000_000_000_000));
        let ids = Ids::seeded(clock, 1);
        let made: Vec<_> = (0..2_000)
            .map(|_| {
                hand.advance(Duration::from_micros(1));
                ids.uuid()
            })
            .collect();
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(made.iter().all(|id| id.get_version_num() == 7));
    }

    #[test]
    fn below_stays_below() {
        let ids = Ids::seeded(Clock::system(), 3);
        assert_eq!(ids.below(0), 0);
        assert!((0..1_000).all(|_| ids.below(3) < 3));
    }

    #[tokio::test(start_paused = true)]
    async fn the_simulated_clock_follows_virtual_time() {
        let clock = Clock::simulated(Timestamp::from_micros(42));
        clock.sleep(Duration::from_secs(3_600)).await;
        assert_eq!(clock.now().since(Timestamp::from_micros(42)).as_secs(), 3_600);
        let late = clock.timeout(Duration::from_millis(5), std::future::pending::<()>()).await;
        assert_eq!(late, Err(Elapsed));
    }
}
