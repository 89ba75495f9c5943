//! Named points at which a drill kills the process.
//!
//! Code that has a moment worth dying at says so: `crash::point("cases.settle.before_send")`. Unless a plan is armed this costs one
//! relaxed load. A plan names one point and the hit at which the process sends itself SIGKILL: no destructor runs, nothing is
//! flushed, as when the machine loses power.
//!
//! A drill that breaks something else at such a moment, as the database, lets the process stand still there ([`stop_at`]) until it has.
//!
//! A real process is armed once, from the configuration keys `drill.crash` and `drill.stop`, which no default sets. In a simulation every host
//! carries its own [`Points`]: there a hit stops that host alone. The current task unwinds, the host's other tasks are never polled
//! again, and its sockets go silent, until the simulator crashes and restarts the host.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context as Waker, Poll};

/// Where and when to die: the `hit`-th time (counted from 1) that `point` is reached.
///
/// Shape: written `cases.settle.before_send:3`; without a number the first hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The name of the point.
    pub point: String,
    /// Which hit, counted from 1.
    pub hit: u32,
}

/// A crash plan could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a crash plan is `point` or `point:hit`, with hit a whole number from 1")]
pub struct BadPlan;

impl FromStr for Plan {
    type Err = BadPlan;

    fn from_str(text: &str) -> Result<Self, BadPlan> {
        let (point, hit) = match text.split_once(':') {
            None => (text, 1),
            Some((point, hit)) => (point, hit.parse().map_err(|_| BadPlan)?),
        };
        if point.is_empty() || hit == 0 {
            return Err(BadPlan);
        }
        Ok(Self { point: point.to_owned(), hit })
    }
}

/// The payload with which a simulated host's task unwinds at its crash point. Panic catchers must let it pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crashed;

/// Tells whether a caught panic is a simulated crash.
pub fn is_crash(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Crashed>()
}

type Handler = Arc<dyn Fn(&str) + Send + Sync>;

/// The crash points of one process or of one simulated host: what is armed, and how often each was reached.
#[derive(Clone)]
pub struct Points(Arc<Shared>);

struct Shared {
    /// Whether hits are looked at all; the only thing that production code reads.
    watching: AtomicBool,
    dead: AtomicBool,
    state: Mutex<State>,
    /// None kills the process.
    handler: Option<Handler>,
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    stops: Vec<Plan>,
    hits: BTreeMap<&'static str, u32>,
}

static PROCESS: OnceLock<Points> = OnceLock::new();

tokio::task_local! {
    static CURRENT: Points;
}

/// Dies here if a plan says so; otherwise does nothing.
///
/// Shape: asks the points of the current simulated host if there is one, else those of the process.
pub fn point(name: &'static str) {
    if CURRENT.try_with(|points| points.point(name)).is_err()
        && let Some(points) = PROCESS.get()
    {
        points.point(name);
    }
}

/// Arms the process: it will kill itself at the plan's hit.
pub fn arm(plan: Plan) {
    Points::process().arm(plan);
}

/// The process will stand still (SIGSTOP) at the hit of each plan, until somebody lets it go on (SIGCONT). Hits count from here.
pub fn stop_at(plans: Vec<Plan>) {
    Points::process().stop_at(plans);
}

/// Returns how often each point of this process was reached since counting began (see [`Points::count`]).
pub fn hits() -> BTreeMap<&'static str, u32> {
    Points::process().hits()
}

impl Points {
    /// The points of this process. Every call returns the same set.
    pub fn process() -> Self {
        PROCESS.get_or_init(|| Self::new(None)).clone()
    }

    /// The points of one simulated host; `handler` hears the name of the point at which the host died, so that the test can call the
    /// simulator's crash. Keep it across restarts and call [`Points::revive`] before each.
    pub fn simulated(handler: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let points = Self::new(Some(Arc::new(handler)));
        points.count();
        points
    }

    fn new(handler: Option<Handler>) -> Self {
        Self(Arc::new(Shared {
            watching: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            state: Mutex::new(State::default()),
            handler,
        }))
    }

    /// Arms a plan, in place of an earlier one. Hits count from here.
    pub fn arm(&self, plan: Plan) {
        self.locked(|state| {
            state.hits.clear();
            state.plan = Some(plan);
        });
        self.count();
    }

    fn stop_at(&self, plans: Vec<Plan>) {
        self.locked(|state| state.stops = plans);
        self.count();
    }

    /// Counts hits from now on, also when nothing is armed.
    pub fn count(&self) {
        self.0.watching.store(true, Ordering::Release);
    }

    /// Returns how often each point was reached since counting or arming.
    pub fn hits(&self) -> BTreeMap<&'static str, u32> {
        self.locked(|state| state.hits.clone())
    }

    /// Tells whether a simulated host has died and was not revived.
    pub fn dead(&self) -> bool {
        self.0.dead.load(Ordering::Acquire)
    }

    /// Lets a simulated host live again, with nothing armed. Counts stay.
    pub fn revive(&self) {
        self.locked(|state| state.plan = None);
        self.0.dead.store(false, Ordering::Release);
    }

    /// Passes the point `name`, or dies at it.
    ///
    /// Panics: on a simulated host, with [`Crashed`] and without a message; that is how the task ends.
    pub fn point(&self, name: &'static str) {
        if !self.0.watching.load(Ordering::Relaxed) {
            return;
        }
        let (fires, stops) = self.locked(|state| {
            let hits = state.hits.entry(name).or_insert(0);
            *hits = hits.saturating_add(1);
            let is_it = |plan: &Plan| plan.point == name && plan.hit == *hits;
            (state.plan.as_ref().is_some_and(is_it), state.stops.iter().any(is_it))
        });
        if stops {
            stop_process(name);
        }
        if fires || self.dead() {
            self.die(name);
        }
    }

    fn die(&self, name: &'static str) {
        let Some(handler) = &self.0.handler else { kill_process(name) };
        if !self.0.dead.swap(true, Ordering::AcqRel) {
            handler(name);
        }
        std::panic::resume_unwind(Box::new(Crashed));
    }

    /// Runs a simulated host's code under these points: [`point`] finds them, and once the host is dead the work stands still.
    pub fn scope<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), Freeze { points: self.clone(), work: Box::pin(work) })
    }

    fn locked<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether these points belong to a simulated host.
    pub(crate) fn is_simulated(&self) -> bool {
        self.0.handler.is_some()
    }
}

impl fmt::Debug for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Points").field("dead", &self.dead()).finish_non_exhaustive()
    }
}

/// Stops polling the work of a dead host.
struct Freeze<F> {
    points: Points,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Freeze<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Waker<'_>) -> Poll<F::Output> {
        if self.points.dead() {
            return Poll::Pending;
        }
        self.work.as_mut().poll(cx)
    }
}

/// Leaves the name on standard error, and stands still until a drill lets the process go on.
#[expect(clippy::print_stderr, reason = "the harness reads it while nothing here runs")]
fn stop_process(name: &str) {
    eprintln!("crash point {name}: this process stands still");
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
}

/// Leaves the name on standard error, for the harness that reads it, and dies as by `kill -9`.
#[expect(clippy::print_stderr, reason = "the last words of a process that must flush nothing else")]
fn kill_process(name: &str) -> ! {
    eprintln!("crash point {name}: killing this process");
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    loop {
        // SIGKILL cannot be held back; this thread only has to stay until it lands.
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn a_plan_reads_a_name_and_a_hit() {
        assert_eq!("a.b".parse(), Ok(Plan { point: "a.b".into(), hit: 1 }));
        assert_eq!("a.b:3".parse(), Ok(Plan { point: "a.b".into(), hit: 3 }));
        for bad in ["", ":2", "a:0", "a:-1", "a:x", "a:1:2"] {
            assert_eq!(bad.parse::<Plan>(), Err(BadPlan), "{bad:?}");
        }
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the test looks at how the bare task ends")]
    async fn a_simulated_host_dies_at_the_nth_hit_and_stands_still() {
        let deaths = Arc::new(AtomicU32::new(0));
        let counter = deaths.clone();
        let points = Points::simulated(move |name| {
            assert_eq!(name, "t.step");
            counter.fetch_add(1, Ordering::SeqCst);
        });
        points.arm(Plan { point: "t.step".into(), hit: 3 });
        let passed = Arc::new(AtomicU32::new(0));
        let steps = passed.clone();
        let task = tokio::spawn(points.scope(async move {
            loop {
                point("t.step");
                steps.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        }));
        let payload = task.await.expect_err("the task unwinds").into_panic();
        assert!(is_crash(payload.as_ref()));
        assert_eq!(passed.load(Ordering::SeqCst), 2);
        assert!(points.dead());
        assert_eq!(points.hits().get("t.step"), Some(&3));

        let mut other = std::pin::pin!(points.scope(async { 1 }));
        assert!(futures::poll!(other.as_mut()).is_pending(), "a dead host's work is not polled");
        points.revive();
        assert_eq!(other.await, 1);
        assert_eq!(deaths.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn an_unarmed_point_does_nothing_and_counts_nothing() {
        let points = Points::new(None);
        points.point("t.idle");
        assert!(points.hits().is_empty());
        points.count();
        points.point("t.idle");
        assert_eq!(points.hits().get("t.idle"), Some(&1));
    }
}
