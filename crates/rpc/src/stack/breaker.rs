//! A peer that is away is not asked by everybody.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use runtime::telemetry::Gauge;
use tokio::time::Instant;

use super::chain::{Handle, Request, Response, Step};
use super::inject::WireFailed;
use crate::Effect;
use crate::fault::{Common, status};
use crate::frames::answer;

/// When a wire stops trying, and when it tries again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerOptions {
    /// Failures in a row that open the breaker. Only the wire's own count (no connection, broken off, no answer in time): an answer,
    /// whatever it says, is a sign of life.
    pub failures_max: u32,
    /// How long it stays open the first time; it doubles with each failed probe.
    pub pause_min: Duration,
    /// Longest pause between probes.
    pub pause_max: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures_max: 7, pause_min: Duration::from_millis(500), pause_max: Duration::from_secs(5) }
    }
}

pub(super) struct Breaker {
    name: String,
    options: BreakerOptions,
    state: Mutex<State>,
    open: Gauge,
}

#[derive(Default)]
struct State {
    failures: u32,
    pause: Duration,
    /// When open: not before then.
    closed_until: Option<Instant>,
    probing: bool,
}

/// How a call was let through.
enum Pass {
    Normal,
    Probe,
}

impl Breaker {
    pub(super) fn new(name: &str, options: BreakerOptions, context: &runtime::Context) -> Self {
        let family = context.metrics.gauge("lastmile_rpc_breaker_open", "1 while a peer is given time to come back");
        let open = family.get_or_create(&vec![("peer", name.to_owned().into())]).clone();
        Self { name: name.to_owned(), options, state: Mutex::default(), open }
    }

    fn enter(&self) -> Result<Pass, Duration> {
        let mut state = self.state();
        let Some(until) = state.closed_until else { return Ok(Pass::Normal) };
        let now = Instant::now();
        if now < until {
            return Err(until - now);
        }
        if state.probing {
            return Err(self.options.pause_min);
        }
        state.probing = true;
        Ok(Pass::Probe)
    }

    fn leave(&self, alive: bool) {
        let mut state = self.state();
        state.probing = false;
        if alive {
            *state = State::default();
            self.open.set(0);
            return;
        }
        state.failures = state.failures.saturating_add(1);
        if state.failures >= self.options.failures_max {
            state.pause = (state.pause * 2).clamp(self.options.pause_min, self.options.pause_max);
            state.closed_until = Some(Instant::now() + state.pause);
            self.open.set(1);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a call that its caller gave up as a failure: the budget's timeout drops the future here.
struct Watch<'a> {
    breaker: &'a Breaker,
    probe: bool,
    verdict: Option<bool>,
    deadline: Option<Instant>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        match self.verdict {
            Some(alive) => self.breaker.leave(alive),
            // Dropped at its deadline: no answer in time. Dropped earlier: the caller lost interest, which says nothing of the peer.
            None if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) => self.breaker.leave(false),
            None if self.probe => self.breaker.state().probing = false,
            None => {}
        }
    }
}

impl Step for Breaker {
    async fn run(&self, request: Request, next: &impl Handle) -> Response {
        let probe = match self.enter() {
            Ok(Pass::Normal) => false,
            Ok(Pass::Probe) => true,
            Err(retry_after) => {
                let fault = Common::Peer { peer: self.name.clone(), effect: Effect::None, retry_after, source: None };
                return answer(status(&fault));
            }
        };
        let deadline = request.extensions().get::<super::budget::Outgoing>().and_then(|outgoing| outgoing.deadline);
        let mut watch = Watch { breaker: self, probe, verdict: None, deadline };
        let mut response = next.handle(request).await;
        watch.verdict = Some(response.extensions_mut().remove::<WireFailed>().is_none());
        response
    }
}
