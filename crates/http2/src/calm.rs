//! How much a peer may ask of us that brings nothing.

use tokio::time::Instant;

/// What it begins with, and can have at most.
const MOST: u32 = 2_000;
/// What it gets back in a second, and for a call that came to its end.
const PER_SECOND: u64 = 50;
const PER_CALL: u32 = 20;

/// A budget for frames that are not work: pings, settings, resets, empty pieces. A peer that works has always some; one that only
/// keeps us busy has soon spent it.
#[derive(Debug)]
pub(crate) struct Calm {
    left: u32,
    since: Instant,
}

impl Calm {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: MOST, since: now }
    }

    /// Takes the cost of a frame; false when there is not enough left.
    pub(crate) fn spend(&mut self, cost: u32) -> bool {
        if self.left < cost {
            self.refill();
        }
        self.left.checked_sub(cost).map(|left| self.left = left).is_some()
    }

    /// A call came to its end.
    pub(crate) fn earn(&mut self) {
        self.left = (self.left + PER_CALL).min(MOST);
    }

    fn refill(&mut self) {
        let seconds = self.since.elapsed().as_secs();
        if seconds > 0 {
            let refill = u32::try_from(seconds.saturating_mul(PER_SECOND)).unwrap_or(MOST).min(MOST);
            self.left = (self.left + refill).min(MOST);
            self.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn whoever_works_is_never_out_of_it() {
        let mut calm = Calm::new(Instant::now());
        for _ in 0..100_000 {
            assert!(calm.spend(10), "two resets a call");
            calm.earn();
        }
        let spent = (0..).take_while(|_| calm.spend(1)).count();
        assert!((1_000..=MOST as usize).contains(&spent), "{spent}");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((0..).take_while(|_| calm.spend(1)).count(), 100);
    }
}
