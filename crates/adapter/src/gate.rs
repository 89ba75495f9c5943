//! What a back end bears: calls at once, calls a second, opening hours. One gate a profile; a full one never touches another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::{Clock, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;
use crate::kind::Zone;
use crate::profile::{Hours, Limits};

/// How long a caller waits before it tries a full department again.
const BUSY_RETRY: Duration = Duration::from_secs(1);
const MINUTES_A_DAY: i64 = 24 * 60;
const MICROS_A_MINUTE: i64 = 60_000_000;

/// What a call is for: what settles goes before what only reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A citizen reads.
    Read,
    /// A payment is settled, inquired or given back.
    Settle,
}

/// The gate before one back end.
pub struct Gate {
    clock: Clock,
    all: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    wait: Duration,
    pace: Mutex<Pace>,
    hours: Option<Hours>,
    zone: Zone,
}

/// A place among the calls at once; given back when it is dropped.
#[must_use]
pub struct Pass {
    _all: OwnedSemaphorePermit,
    _read: Option<OwnedSemaphorePermit>,
}

/// A leaky bucket by the clock: the moment at which the next call is due if everything before it had kept the rate.
struct Pace {
    interval_micros: i64,
    burst_micros: i64,
    due: Timestamp,
}

impl Gate {
    /// Builds the gate of a profile.
    #[must_use]
    pub fn new(limits: &Limits, zone: Zone, clock: Clock) -> Self {
        let permits = |count: u32| Arc::new(Semaphore::new(usize::try_from(count).unwrap_or(1)));
        let interval_micros = 1_000_000 / i64::from(limits.rate.max(1));
        Self {
            all: permits(limits.concurrency),
            reads: permits(limits.concurrency.saturating_sub(limits.reserved).max(1)),
            wait: limits.wait.get(),
            pace: Mutex::new(Pace {
                interval_micros,
                burst_micros: interval_micros.saturating_mul(i64::from(limits.burst)),
                due: Timestamp::from_micros(0),
            }),
            hours: limits.hours,
            zone,
            clock,
        }
    }

    /// Waits for a place, not longer than the profile says.
    ///
    /// Errors: Closed outside the hours, Busy when no place came free.
    pub async fn enter(&self, class: Class) -> Result<Pass, Error> {
        self.check_hours()?;
        let entering = async {
            let read = match class {
                Class::Read => Some(Arc::clone(&self.reads).acquire_owned().await.ok()?),
                Class::Settle => None,
            };
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Pass { _all: all, _read: read })
        };
        let entered = self.clock.timeout(self.wait, entering).await;
        entered.ok().flatten().ok_or(Error::Busy(BUSY_RETRY))
    }

    /// Waits until the rate allows one more call, not longer than the profile says.
    ///
    /// Errors: Busy, with the time after which the rate allows it.
    pub async fn keep_pace(&self) -> Result<(), Error> {
        let delay = self.pace.lock().unwrap_or_else(PoisonError::into_inner).next(self.clock.now(), self.wait);
        let delay = delay.map_err(Error::Busy)?;
        if !delay.is_zero() {
            self.clock.sleep(delay).await;
        }
        Ok(())
    }

    fn check_hours(&self) -> Result<(), Error> {
        let Some(hours) = self.hours else { return Ok(()) };
        let now = self.clock.now();
        match minutes_until_open(hours, self.zone, now) {
            Some(0) | None => Ok(()),
            Some(minutes) => {
                let minute = now.micros().div_euclid(MICROS_A_MINUTE).saturating_add(minutes);
                Err(Error::Closed { opens_at: Some(Timestamp::from_micros(minute.saturating_mul(MICROS_A_MINUTE))) })
            }
        }
    }
}

impl Pace {
    /// Takes the next turn: how long to wait for it; or, when that is too long, how long until it would do.
    fn next(&mut self, now: Timestamp, wait_max: Duration) -> Result<Duration, Duration> {
        let earliest = now.micros().saturating_sub(self.burst_micros);
        let due = self.due.micros().max(earliest).saturating_add(self.interval_micros);
        let delay = Timestamp::from_micros(due).since(now);
        if delay > wait_max {
            return Err(delay);
        }
        self.due = Timestamp::from_micros(due);
        Ok(delay)
    }
}

/// Minutes until the department opens, in its local time; 0 when it is open. `None` when the time cannot be told.
fn minutes_until_open(hours: Hours, zone: Zone, now: Timestamp) -> Option<i64> {
    let local = zone.local(now)?;
    let minute = i64::from(local.hour()) * 60 + i64::from(local.minute());
    let (start, end) = (i64::from(hours.start), i64::from(hours.end));
    let is_open = if start < end { (start..end).contains(&minute) } else { minute >= start || minute < end };
    Some(if is_open { 0 } else { (start - minute).rem_euclid(MINUTES_A_DAY) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn gate(yaml: &str, clock: Clock) -> Gate {
        let limits = serde_yaml_ng::from_str(yaml).expect("limits");
        Gate::new(&limits, Zone::parse("+08:00").expect("a zone"), clock)
    }

    const SMALL: &str =
        "{concurrency: 2, reserved: 1, wait: 100ms, rate: 10, burst: 2, timeout: 1s, reply_bytes_max: 1000}";

    #[tokio::test(start_paused = true)]
    async fn readers_leave_room_for_settling_and_a_full_gate_says_so() {
        let gate = gate(SMALL, Clock::simulated(Timestamp::from_micros(0)));
        let first = gate.enter(Class::Read).await.expect("free");
        assert_eq!(gate.enter(Class::Read).await.err(), Some(Error::Busy(BUSY_RETRY)));
        let settling = gate.enter(Class::Settle).await.expect("kept free");
        assert!(gate.enter(Class::Settle).await.is_err());
        drop((first, settling));
        assert!(gate.enter(Class::Read).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_after_the_burst() {
        let clock = Clock::simulated(Timestamp::from_micros(0));
        let gate = gate(SMALL, clock.clone());
        clock.sleep(SECOND).await;
        let start = clock.now();
        for _ in 0..6 {
            gate.keep_pace().await.expect("within the wait");
        }
        let took = clock.now().since(start);
        assert!(took >= Duration::from_millis(300) && took <= Duration::from_millis(500), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn too_long_a_wait_is_told_and_takes_no_turn() {
        let clock = Clock::simulated(Timestamp::from_micros(0));
        let gate = gate(&SMALL.replace("rate: 10", "rate: 1").replace("burst: 2", "burst: 1"), clock.clone());
        clock.sleep(SECOND * 5).await;
        gate.keep_pace().await.expect("the burst");
        for _ in 0..3 {
            let Err(Error::Busy(after)) = gate.keep_pace().await else { panic!("busy") };
            assert!(after <= SECOND, "{after:?}");
        }
    }

    #[tokio::test]
    async fn closed_says_when_it_opens() {
        let at = |text: &str| crate::kind::parse_rfc3339(text).expect("a time");
        let (clock, hand) = Clock::manual(at("2026-11-22T00:00:00Z"));
        let gate = gate(&SMALL.replace('}', ", hours: '08:30-17:30'}"), clock);
        let cases = [
            // Beijing is eight hours ahead.
            ("2026-11-22T00:29:59Z", Some("2026-11-22T00:30:00Z")),
            ("2026-11-22T00:30:00Z", None),
            ("2026-11-22T09:29:59Z", None),
            ("2026-11-22T09:30:00Z", Some("2026-11-23T00:30:00Z")),
        ];
        for (now, opens) in cases {
            hand.set(at(now));
            let closed = gate.enter(Class::Settle).await.err();
            assert_eq!(closed, opens.map(|opens| Error::Closed { opens_at: Some(at(opens)) }), "{now}");
        }
    }

    #[test]
    fn hours_over_midnight() {
        let hours = Hours { start: 22 * 60, end: 6 * 60 };
        let zone = Zone::parse("+00:00").expect("a zone");
        let at = |minute: i64| minutes_until_open(hours, zone, Timestamp::from_micros(minute * MICROS_A_MINUTE));
        assert_eq!(at(23 * 60), Some(0));
        assert_eq!(at(5 * 60 + 59), Some(0));
        assert_eq!(at(6 * 60), Some(16 * 60));
    }
}
