//! What is left of the time goes along with the call, minus the hop's own cost.

use std::time::Duration;

use tokio::time::Instant;

use super::ClientOptions;
use super::chain::{Handle, Request, Response, Step};
use super::deadline::timeout_of;
use crate::call;
use crate::contract::Contract;
use crate::fault::{Common, Effect, status};
use crate::frames::answer;
use crate::wire::Flight;

/// What the steps of a client pass along. Taken out again before the request leaves.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    /// When the caller gives up; none for a stream without a deadline of its own.
    pub(super) deadline: Option<Instant>,
    /// Whether the answer streams.
    pub(super) streaming: bool,
    /// What may have happened so far.
    pub(super) flight: Flight,
}

pub(super) struct Budget {
    call_timeout: Duration,
    hop_cost: Duration,
}

impl Budget {
    pub(super) fn new(options: &ClientOptions) -> Self {
        Self { call_timeout: options.call_timeout, hop_cost: options.hop_cost }
    }

    /// The earliest of: what this call asks for, what its own caller still waits, and the wire's default where neither says anything.
    fn deadline(&self, request: &Request, streaming: bool) -> Option<Instant> {
        let now = Instant::now();
        let asked = timeout_of(request.headers()).ok().flatten().map(|timeout| now + timeout);
        let inherited = call::deadline().map(|deadline| deadline - self.hop_cost.min(deadline - now));
        match (asked, inherited) {
            (Some(asked), Some(inherited)) => Some(asked.min(inherited)),
            (Some(one), None) | (None, Some(one)) => Some(one),
            (None, None) if streaming => None,
            (None, None) => Some(now + self.call_timeout),
        }
    }
}

impl Step for Budget {
    async fn run(&self, mut request: Request, next: &impl Handle) -> Response {
        let path = request.uri().path();
        let method = Contract::lastmile().ok().and_then(|contract| contract.method(path));
        let streaming = method.map_or_else(|| crate::standard::streams(path), |method| method.server_streaming);
        let deadline = self.deadline(&request, streaming);
        let flight = Flight::default();
        request.extensions_mut().insert(Outgoing { deadline, streaming, flight: flight.clone() });
        let Some(deadline) = deadline else { return next.handle(request).await };
        if deadline <= Instant::now() {
            return answer(status(&Common::Deadline { effect: Effect::None }));
        }
        match tokio::time::timeout_at(deadline, next.handle(request)).await {
            Ok(response) => response,
            Err(_) => answer(status(&Common::Deadline { effect: flight.effect() })),
        }
    }
}
