//! Can the clock be believed? Tokens, certificates and deadlines hang on it.

use std::time::Duration;

use runtime::Timestamp;

use super::{Finding, storage};
use crate::Config;

/// 2026-01-01: no lastmile is older.
const EARLIEST: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
const BACK_BAD: Duration = Duration::from_secs(5);

pub(super) fn check(config: &Config, now: Timestamp) -> Vec<Finding> {
    vec![finding(now, storage::last_written(&config.data.directory))]
}

fn finding(now: Timestamp, last_written: Option<Timestamp>) -> Finding {
    let remedy = "set the clock and keep it set with an NTP client: tokens, certificates and deadlines depend on it";
    if now < EARLIEST {
        return Finding::bad("clock", "it stands before 2026", remedy);
    }
    match last_written {
        Some(written) if written.since(now) > BACK_BAD => {
            let back = written.since(now).as_secs();
            Finding::bad(
                "clock",
                format!("it was set back: the newest file in the data directory is {back} s ahead"),
                remedy,
            )
        }
        _ => Finding::good("clock", "it is later than everything that was written"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_clock_that_went_back_is_bad() {
        let now = EARLIEST.plus(Duration::from_secs(1_000));
        assert_eq!(finding(now, None).verdict, Verdict::Good);
        assert_eq!(finding(now, Some(now.plus(BACK_BAD))).verdict, Verdict::Good);
        assert_eq!(finding(now, Some(now.plus(BACK_BAD * 2))).verdict, Verdict::Bad);
        assert_eq!(finding(EARLIEST.minus(BACK_BAD), None).verdict, Verdict::Bad);
    }
}
