//! Can the clock be believed? Tokens, certificates and deadlines hang on it. It is held against everything that is at hand: what was
//! written here before, the machine's own steady clock, the clock of each database server. Certificates that begin later than now are
//! told where certificates are.

use std::time::Duration;

use runtime::{Context, Timestamp};
use store::Reading;
use tokio::time::Instant;

use super::{Finding, storage};
use crate::{Config, Role};

/// 2026-01-01: no lastmile is older.
const EARLIEST: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
/// What processes forgive each other; beyond it the tokens of one are refused by the other.
const LEEWAY: Duration = rpc::token::LEEWAY;
/// Machines that keep their clocks by NTP are nearer to each other than this.
const APART: Duration = Duration::from_secs(1);
/// No clock that is being corrected as it should be jumps like this.
const JUMP: Duration = Duration::from_millis(250);
const REMEDY: &str =
    "set the clock and keep it set with an NTP client: tokens, certificates and deadlines depend on it";

/// One moment by the wall clock and by the steady one, which nobody can set.
pub(super) struct Moment {
    wall: Timestamp,
    steady: Instant,
    /// How far the two readings may be from each other.
    within: Duration,
}

impl Moment {
    pub(super) fn now(context: &Context) -> Self {
        let before = Instant::now();
        let wall = context.clock.now();
        Self { wall, steady: before, within: before.elapsed() }
    }
}

pub(super) fn check(config: &Config, begun: &Moment, ended: &Moment, servers: &[(Role, Reading)]) -> Vec<Finding> {
    let mut findings = vec![written(ended.wall, storage::last_written(&config.data.directory)), steady(begun, ended)];
    findings.extend(servers.iter().map(|(role, reading)| beside(*role, reading)));
    findings
}

/// Nothing was written later than now.
fn written(now: Timestamp, last_written: Option<Timestamp>) -> Finding {
    if now < EARLIEST {
        return Finding::bad("clock", "it stands before 2026", REMEDY);
    }
    match last_written {
        Some(written) if written.since(now) > LEEWAY => {
            let ahead = written.since(now).as_secs();
            Finding::bad(
                "clock",
                format!("it was set back: the newest file in the data directory is {ahead} s ahead"),
                REMEDY,
            )
        }
        Some(written) => {
            let later = now.since(written).as_secs();
            Finding::good("clock", format!("it is {later} s later than the newest file in the data directory"))
        }
        None => Finding::good("clock", "nothing was written here yet that it could be held against"),
    }
}

/// While we looked, it went as fast as the steady clock.
fn steady(begun: &Moment, ended: &Moment) -> Finding {
    let subject = "clock's pace";
    let steady = ended.steady.saturating_duration_since(begun.steady);
    let jumped = signed(begun.wall.plus(steady), ended.wall);
    let what = format!("it went {jumped:+} ms beside the steady clock in {} ms", steady.as_millis());
    if Duration::from_millis(jumped.unsigned_abs()) > JUMP + begun.within + ended.within {
        Finding::bad(subject, format!("{what}: somebody sets it"), "let one NTP client alone set it, and slowly")
    } else {
        Finding::good(subject, what)
    }
}

/// A database server and we show the same time.
fn beside(role: Role, reading: &Reading) -> Finding {
    let subject = format!("clock of store {role}");
    let ahead = signed(reading.ours, reading.theirs);
    let within = reading.within.as_micros().div_ceil(1_000);
    let what = format!("the server's is {ahead:+} ms beside this machine's, give or take {within} ms");
    let remedy = "set the wrong one of the two, and keep both set with NTP clients";
    let apart = Duration::from_millis(ahead.unsigned_abs()).saturating_sub(reading.within);
    if apart > LEEWAY {
        Finding::bad(subject, what, remedy)
    } else if apart > APART {
        Finding::warning(subject, what, remedy)
    } else {
        Finding::good(subject, what)
    }
}

/// From one moment to another in milliseconds; negative when the second is the earlier.
fn signed(from: Timestamp, to: Timestamp) -> i64 {
    (to.micros() - from.micros()) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    const NOW: Timestamp = Timestamp::from_micros(EARLIEST.micros() + 1_000_000_000);

    #[test]
    fn a_clock_that_went_back_is_bad() {
        assert_eq!(written(NOW, None).verdict, Verdict::Good);
        assert_eq!(written(NOW, Some(NOW.plus(LEEWAY))).verdict, Verdict::Good);
        assert_eq!(written(NOW, Some(NOW.plus(LEEWAY * 2))).verdict, Verdict::Bad);
        assert_eq!(written(EARLIEST.minus(LEEWAY), None).verdict, Verdict::Bad);
        assert!(written(NOW, Some(NOW.minus(LEEWAY))).what.contains("5 s later"));
    }

    #[test]
    fn a_clock_that_is_set_while_it_is_looked_at_is_bad() {
        let steady = Instant::now();
        let moment =
            |wall, after: u64| Moment { wall, steady: steady + Duration::from_millis(after), within: Duration::ZERO };
        let pace = |later: Timestamp| super::steady(&moment(NOW, 0), &moment(later, 400));
        assert_eq!(pace(NOW.plus(Duration::from_millis(400))).verdict, Verdict::Good);
        assert_eq!(pace(NOW.plus(Duration::from_millis(649))).verdict, Verdict::Good);
        for (later, told) in [(NOW.plus(Duration::from_secs(2)), "+1600 ms"), (NOW.minus(LEEWAY), "-5400 ms")] {
            let finding = pace(later);
            assert_eq!(finding.verdict, Verdict::Bad);
            assert!(finding.what.contains(told), "{finding}");
        }
    }

    #[test]
    fn a_server_with_another_time_is_told_with_the_difference() {
        let reading = |theirs| Reading { theirs, ours: NOW, within: Duration::from_millis(2) };
        let beside = |theirs| super::beside(Role::Cases, &reading(theirs));
        assert_eq!(beside(NOW.plus(Duration::from_millis(1_002))).verdict, Verdict::Good);
        let fast = beside(NOW.plus(Duration::from_millis(1_100)));
        assert_eq!((fast.verdict, fast.what.contains("+1100 ms")), (Verdict::Warning, true), "{fast}");
        let slow = beside(NOW.minus(Duration::from_millis(5_100)));
        assert_eq!((slow.verdict, slow.what.contains("-5100 ms")), (Verdict::Bad, true), "{slow}");
    }
}
