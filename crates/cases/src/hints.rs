//! Who waits for a case, and the word that it moved.

use contracts::ids::CaseId;
use runtime::{Clock, watch};
use std::time::Duration;

/// Streams that wait for different cases seldom share a bell.
const BELLS: usize = 256;

/// Bells that are rung after a commit. A hint may be lost or mean nothing; whoever waits looks by itself after a while.
pub(crate) struct Hints {
    bells: Vec<watch::Sender<u64>>,
    worker: tokio::sync::Notify,
}

/// One stream's waiting for one case.
pub(crate) struct Waiting(watch::Receiver<u64>);

impl Hints {
    pub(crate) fn new() -> Self {
        Self { bells: (0..BELLS).map(|_| watch::Sender::new(0)).collect(), worker: tokio::sync::Notify::new() }
    }

    /// Says that a case moved.
    pub(crate) fn moved(&self, case: CaseId) {
        if let Some(bell) = self.bell(case) {
            bell.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Starts waiting for a case. Take it before the first look.
    pub(crate) fn waiting(&self, case: CaseId) -> Option<Waiting> {
        self.bell(case).map(|bell| Waiting(bell.subscribe()))
    }

    /// Says that something became due.
    pub(crate) fn due(&self) {
        self.worker.notify_one();
    }

    /// Waits until something became due, at most `poll`.
    pub(crate) async fn due_within(&self, clock: &Clock, poll: Duration) {
        let _ = clock.timeout(poll, self.worker.notified()).await;
    }

    fn bell(&self, case: CaseId) -> Option<&watch::Sender<u64>> {
        // The last bits of a version 7 id are random.
        let index = usize::try_from(case.bits() % BELLS as u128).unwrap_or(0);
        self.bells.get(index)
    }
}

impl Waiting {
    /// Waits for the bell, at most `poll`.
    pub(crate) async fn wait(&mut self, clock: &Clock, poll: Duration) {
        let _ = clock.timeout(poll, self.0.changed()).await;
    }
}
