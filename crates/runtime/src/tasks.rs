//! What runs in the background, and what its end means.
//!
//! Everything that outlives the call that started it is spawned here, under a name. So a stop can wait for it, a panic is logged
//! and not lost, and the failure of something the process cannot live without stops the process.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::crash;

/// The background work of one process or of one simulated host.
///
/// Shape: a cheap handle; clones share the same set. Two stops: the soft token asks work to come to an end, the hard one drops it.
#[derive(Clone)]
pub struct Tasks(Arc<Shared>);

struct Shared {
    tracker: TaskTracker,
    /// What only serves other work.
    attendants: TaskTracker,
    soft: CancellationToken,
    hard: CancellationToken,
    points: crash::Points,
    failed: OnceLock<&'static str>,
}

/// The work was dropped before it ended: it panicked, or the process stopped hard. Its effect is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {0} was lost before it ended")]
pub struct Lost(pub &'static str);

/// How a piece of work came to its end.
enum End<T> {
    Done(T),
    Cut,
    Panicked,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// Starts an empty set under the crash points of the process.
    pub fn new() -> Self {
        Self::with_crash_points(crash::Points::process())
    }

    /// Starts an empty set under a simulated host's crash points: once the host is dead, none of its tasks is polled again.
    pub fn with_crash_points(points: crash::Points) -> Self {
        Self(Arc::new(Shared {
            tracker: TaskTracker::new(),
            attendants: TaskTracker::new(),
            soft: CancellationToken::new(),
            hard: CancellationToken::new(),
            points,
            failed: OnceLock::new(),
        }))
    }

    /// Runs `work` in the background. A panic in it is logged under `name` and ends this task alone.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let guarded = self.guard(name, work);
        self.place(&self.0.tracker, async move {
            guarded.await;
        });
    }

    /// Runs what only serves other work, such as a connection to a peer: a drain does not wait for it, since it is needed as long as
    /// anything else runs, and only the hard stop ends it.
    pub fn attend(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let guarded = self.guard(name, work);
        self.place(&self.0.attendants, async move {
            guarded.await;
        });
    }

    /// Runs work that the process cannot do without: when it fails, panics, or ends before the stop, the process stops.
    pub fn spawn_critical<E: fmt::Display>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let tasks = self.clone();
        let guarded = self.guard(name, async move { work.await.map_err(|error| error.to_string()) });
        self.place(&self.0.tracker, async move {
            match guarded.await {
                End::Cut => return,
                End::Done(Ok(())) if tasks.0.soft.is_cancelled() => return,
                End::Done(Ok(())) => tracing::error!(task = name, "critical task ended by itself; stopping"),
                End::Done(Err(error)) => tracing::error!(task = name, error, "critical task failed; stopping"),
                End::Panicked => tracing::error!(task = name, "critical task is gone; stopping"),
            }
            // The first failure is the one that explains the stop.
            let _ = tasks.0.failed.set(name);
            tasks.stop();
        });
    }

    /// Runs `work` to its end even when the caller goes away, and hands back what it returned.
    ///
    /// For effects that must not be cut in half by a client that hangs up.
    /// Errors: [`Lost`] when it panicked or the process stopped hard.
    pub async fn run_to_end<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Lost> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let guarded = self.guard(name, work.in_current_span());
        self.place(&self.0.tracker, async move {
            if let End::Done(value) = guarded.await {
                // Nobody listening is fine: the effect was the point.
                let _ = answer.send(value);
            }
        });
        answered.await.map_err(|_| Lost(name))
    }

    /// Returns an executor that spawns here, for libraries that start their own tasks.
    pub fn executor(&self, name: &'static str) -> Executor {
        Executor { tasks: self.clone(), name }
    }

    /// Returns the soft stop: cancelled when the process should come to an end.
    pub fn token(&self) -> CancellationToken {
        self.0.soft.clone()
    }

    /// Asks everything to come to an end.
    pub fn stop(&self) {
        self.0.soft.cancel();
    }

    /// Drops everything that still runs, at its next await.
    pub fn abort(&self) {
        self.0.soft.cancel();
        self.0.hard.cancel();
    }

    /// Waits until nothing runs any more, at most `span`; tells whether it came to that. What only serves other work counts after the
    /// hard stop.
    pub async fn wait(&self, span: Duration) -> bool {
        self.0.tracker.close();
        self.0.attendants.close();
        let ended = async {
            self.0.tracker.wait().await;
            if self.0.hard.is_cancelled() {
                self.0.attendants.wait().await;
            }
        };
        tokio::time::timeout(span, ended).await.is_ok()
    }

    /// Returns the name of the critical task whose failure stopped the process, if one did.
    pub fn failed(&self) -> Option<&'static str> {
        self.0.failed.get().copied()
    }

    /// Returns how many tasks run now.
    pub fn running(&self) -> usize {
        self.0.tracker.len()
    }

    /// Wraps work so that it never unwinds into the executor and ends at the hard stop.
    fn guard<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = End<T>> + Send + 'static {
        let hard = self.0.hard.clone();
        async move {
            let work = AssertUnwindSafe(work).catch_unwind();
            tokio::select! {
                biased;
                () = hard.cancelled() => End::Cut,
                ended = work => match ended {
                    Ok(value) => End::Done(value),
                    Err(payload) => fallen(name, payload.as_ref()),
                },
            }
        }
    }

    fn place(&self, tracker: &TaskTracker, work: impl Future<Output = ()> + Send + 'static) {
        if self.0.points.is_simulated() {
            tracker.spawn(self.0.points.scope(work));
        } else {
            tracker.spawn(work);
        }
    }
}

fn fallen<T>(name: &'static str, payload: &(dyn Any + Send)) -> End<T> {
    if crash::is_crash(payload) {
        return End::Cut;
    }
    tracing::error!(task = name, "task panicked");
    End::Panicked
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &self.running()).finish_non_exhaustive()
    }
}

/// Spawns a library's tasks under one name. Implements hyper's executor trait.
#[derive(Clone, Debug)]
pub struct Executor {
    tasks: Tasks,
    name: &'static str,
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        self.tasks.spawn(self.name, work.map(drop));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_its_task_alone() {
        let tasks = Tasks::new();
        tasks.spawn("bad", async { panic!("on purpose") });
        assert_eq!(tasks.run_to_end("good", async { 5 }).await, Ok(5));
        let lost: Result<(), Lost> = tasks.run_to_end("bad too", async { panic!("on purpose") }).await;
        assert_eq!(lost, Err(Lost("bad too")));
        assert!(tasks.wait(SECOND).await);
        assert!(!tasks.token().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn critical_work_that_fails_stops_the_process_and_is_named() {
        for (name, work) in [
            ("fails", futures::future::ready(Err("broken")).boxed()),
            ("ends", futures::future::ready(Ok(())).boxed()),
            ("panics", async { panic!("on purpose") }.boxed()),
        ] {
            let tasks = Tasks::new();
            tasks.spawn_critical(name, work);
            tasks.token().cancelled().await;
            assert_eq!(tasks.failed(), Some(name));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn critical_work_that_ends_after_the_stop_is_no_failure() {
        let tasks = Tasks::new();
        let token = tasks.token();
        tasks.spawn_critical("loop", async move {
            token.cancelled().await;
            Ok::<_, String>(())
        });
        tasks.stop();
        assert!(tasks.wait(SECOND).await);
        assert_eq!(tasks.failed(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_hard_stop_drops_what_will_not_end() {
        let tasks = Tasks::new();
        tasks.spawn("stuck", std::future::pending());
        tasks.stop();
        assert!(!tasks.wait(SECOND).await);
        tasks.abort();
        assert!(tasks.wait(SECOND).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_does_not_wait_for_what_serves_other_work() {
        let tasks = Tasks::new();
        let (open, mut closed) = tokio::sync::oneshot::channel::<()>();
        tasks.attend("connection", async move {
            let _open = open;
            std::future::pending().await
        });
        tasks.stop();
        assert!(tasks.wait(SECOND).await);
        assert!(closed.try_recv().is_err_and(|error| error == tokio::sync::oneshot::error::TryRecvError::Empty));
        tasks.abort();
        assert!(tasks.wait(SECOND).await);
        assert!(closed.try_recv().is_err_and(|error| error == tokio::sync::oneshot::error::TryRecvError::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn work_runs_to_its_end_when_the_caller_goes_away() {
        let tasks = Tasks::new();
        let (done, finished) = tokio::sync::oneshot::channel();
        let effect = tasks.run_to_end("effect", async move {
            tokio::time::sleep(SECOND).await;
            done.send(()).expect("the test listens");
        });
        assert!(tokio::time::timeout(SECOND / 10, effect).await.is_err());
        finished.await.expect("the effect happened");
    }
}
