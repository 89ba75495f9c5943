//! From the signal to the end.
//!
//! SIGTERM or SIGINT, or the failure of a critical task, starts the soft stop: listeners close, work in hand is finished. What has
//! not ended after the grace period, or at a second signal, is dropped. Every step of a case is already in SQL by then, so a hard
//! stop costs time and nothing else.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Tasks;

/// How long the hard stop may take before the process leaves without it.
const HARD_STOP_MAX: Duration = Duration::from_secs(5);

/// Why and how the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What began it.
    pub cause: Cause,
    /// Whether all work ended by itself within the grace period.
    pub drained: bool,
}

/// What began the stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// SIGTERM or SIGINT.
    Signal,
    /// The critical task of that name failed.
    Failure(&'static str),
    /// The code asked for it.
    Request,
}

impl Ending {
    /// Whether the process should exit with success: it was asked to stop, not forced to.
    pub fn is_success(&self) -> bool {
        !matches!(self.cause, Cause::Failure(_))
    }
}

/// The signals that stop the process. Create it before anything is started, so that no early signal is lost.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over SIGTERM and SIGINT.
    pub fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next of the two.
    pub async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for a signal or for the tasks' stop, then drains for at most `grace` and stops hard what is left.
pub async fn run(mut signals: Signals, tasks: &Tasks, grace: Duration) -> Ending {
    let token = tasks.token();
    let signalled = tokio::select! {
            biased;
        () = signals.next() => true,
        () = token.cancelled() => false,
    };
    let cause = match tasks.failed() {
        Some(name) => Cause::Failure(name),
        None if signalled => Cause::Signal,
        None => Cause::Request,
    };
    tracing::info!(?cause, grace_ms = grace.as_millis(), running = tasks.running(), "draining");
    tasks.stop();
    let drained = tokio::select! {
            biased;
        drained = tasks.wait(grace) => drained,
        () = signals.next() => false,
    };
    if !drained {
        tracing::warn!(running = tasks.running(), "grace is over; dropping what still runs");
        tasks.abort();
        tasks.wait(HARD_STOP_MAX).await;
    }
    Ending { cause, drained }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(2);

    #[tokio::test]
    async fn a_signal_drains_and_a_failure_is_named() {
        let tasks = Tasks::new();
        let token = tasks.token();
        let (finished, drained) = tokio::sync::oneshot::channel();
        tasks.spawn("loop", async move {
            token.cancelled().await;
            finished.send(()).expect("the test listens");
        });
        let signals = Signals::new().expect("takes the signals");
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).expect("sends");
        let ending = run(signals, &tasks, GRACE).await;
        assert_eq!(ending, Ending { cause: Cause::Signal, drained: true });
        assert!(ending.is_success());
        drained.await.expect("the work came to its own end");

        let tasks = Tasks::new();
        tasks.spawn_critical("listener", async { Err("address in use") });
        let ending = run(Signals::new().expect("takes the signals"), &tasks, GRACE).await;
        assert_eq!(ending, Ending { cause: Cause::Failure("listener"), drained: true });
        assert!(!ending.is_success());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_drain_is_dropped_after_the_grace() {
        let tasks = Tasks::new();
        tasks.spawn("stuck", std::future::pending());
        tasks.stop();
        let ending = run(Signals::new().expect("takes the signals"), &tasks, GRACE).await;
        assert_eq!(ending, Ending { cause: Cause::Request, drained: false });
        assert_eq!(tasks.running(), 0);
    }
}
