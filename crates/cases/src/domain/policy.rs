use contracts::ids::CaseId;
use std::time::Duration;

/// How long to wait between tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first try.
    pub first: Duration,
    /// At most; every wait doubles until then.
    pub max: Duration,
}

impl Backoff {
    /// The wait after the `tries`-th try (from 1), with up to a quarter more.
    ///
    /// The surplus depends on the case and the try alone: cases spread, and a replay waits exactly as long again.
    #[must_use]
    pub fn wait(&self, case: CaseId, tries: u32) -> Duration {
        let doublings = tries.saturating_sub(1).min(20);
        let base = self.first.saturating_mul(1 << doublings).min(self.max);
        base + base / 4 / 256 * spread(case, tries)
    }
}

/// A number below 256 that looks random over cases and tries.
fn spread(case: CaseId, tries: u32) -> u32 {
    let [a, b, c, d, ..] = case.bits().to_le_bytes();
    let mixed = u32::from_le_bytes([a, b, c, d]).wrapping_add(tries.wrapping_mul(0x9e37_79b9));
    (mixed ^ (mixed >> 15)).wrapping_mul(0x2c1b_3c6d) >> 24
}

/// How long each part of a case may take. One value of this type holds for a whole installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For the department to hold the bill.
    pub confirm_within: Duration,
    /// For payments to have an order.
    pub order_within: Duration,
    /// For the citizen to pay.
    pub pay_within: Duration,
    /// An order that would be payable for less than this is not made.
    pub pay_min: Duration,
    /// How much longer than the order the department is asked to hold the bill.
    pub hold_beyond: Duration,
    /// For the channel to confirm that an order is closed.
    pub close_within: Duration,
    /// For the department to take a hold back; it lapses by itself in any case.
    pub release_within: Duration,
    /// For the department to be reached at all once the money is there; after it the money goes back.
    pub deliver_within: Duration,
    /// For a settlement without an answer to be resolved by inquiry; after it a clerk decides.
    pub settle_within: Duration,
    /// For the ledger to post.
    pub post_within: Duration,
    /// For the channel to return the money.
    pub refund_within: Duration,
    /// For a clerk to decide, each time.
    pub clerk_within: Duration,
    /// How many settlements are sent at most, each after proof that the one before never happened.
    pub sends_max: u32,
    /// How many final refusals of an adapter, each before anything was sent, are taken for an answer.
    pub refusals_max: u32,
    /// How long a settlement may be in flight before its inquiry begins, should the worker be gone.
    pub settle_call: Duration,
    /// Between tries of one call.
    pub retry: Backoff,
    /// Between questions to the channel whether the money came.
    pub refresh: Backoff,
    /// Between inquiries while a clerk has the case.
    pub clerk_recheck: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let secs = Duration::from_secs;
        Self {
            confirm_within: secs(2 * MINUTE),
            order_within: secs(MINUTE),
            pay_within: secs(15 * MINUTE),
            pay_min: secs(MINUTE),
            hold_beyond: secs(15 * MINUTE),
            close_within: secs(5 * MINUTE),
            release_within: secs(MINUTE),
            deliver_within: secs(24 * HOUR),
            settle_within: secs(30 * MINUTE),
            post_within: secs(30 * MINUTE),
            refund_within: secs(72 * HOUR),
            clerk_within: secs(24 * HOUR),
            sends_max: 3,
            refusals_max: 5,
            settle_call: secs(30),
            retry: Backoff { first: Duration::from_millis(500), max: secs(MINUTE) },
            refresh: Backoff { first: secs(10), max: secs(MINUTE) },
            clerk_recheck: secs(5 * MINUTE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_their_most_and_spread_by_case() {
        let backoff = Backoff { first: Duration::from_millis(512), max: Duration::from_secs(60) };
        let case = CaseId::new(7);
        for (tries, least) in [(1, 512), (2, 1_024), (3, 2_048), (9, 60_000), (4_000_000_000, 60_000)] {
            let wait = backoff.wait(case, tries);
            let least = Duration::from_millis(least);
            assert!(wait >= least && wait <= least + least / 4, "{tries}: {wait:?}");
            assert_eq!(wait, backoff.wait(case, tries), "the same again");
        }
        let waits: std::collections::BTreeSet<_> = (0..64).map(|id| backoff.wait(CaseId::new(id * 977), 1)).collect();
        assert!(waits.len() > 32, "cases spread: {}", waits.len());
    }
}
