//! Retries, where there are any: on the gateway's wires, for reads, within a budget.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body::Body as _;
use runtime::Ids;
use tokio::time::Instant;

use super::budget::Outgoing;
use super::chain::{Handle, Request, Response, Step};
use super::observe::code_of;
use crate::frames::{CollectError, Collected, answer};

/// Marks a request whose repetition has no effect. The gateway puts it on reads; without it nothing is sent twice.
#[derive(Clone, Copy, Debug)]
pub struct Idempotent;

/// How much is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOptions {
    /// Tries in all, the first included.
    pub tries_max: u32,
    /// Each try but the last may take this long.
    pub try_timeout: Duration,
    /// Retries that a hundred calls earn.
    pub budget_percent: u32,
    /// Retries that may be saved up.
    pub budget_max: u32,
    /// Pause before the first retry; it doubles, with jitter.
    pub pause: Duration,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            tries_max: 3,
            try_timeout: Duration::from_secs(3),
            budget_percent: 20,
            budget_max: 20,
            pause: Duration::from_millis(20),
        }
    }
}

/// One retry, in hundredths, so that a call can earn a fraction.
const RETRY_COST: u32 = 100;

/// Longest request that is kept for a second try.
const REQUEST_BYTES_MAX: u64 = 1024 * 1024 + 8;

pub(super) struct Retry {
    options: Option<RetryOptions>,
    ids: Ids,
    saved: Mutex<u32>,
}

impl Retry {
    pub(super) fn new(options: Option<RetryOptions>, ids: Ids) -> Self {
        let saved = options.as_ref().map_or(0, |options| options.budget_max * RETRY_COST);
        Self { options, ids, saved: Mutex::new(saved) }
    }

    fn earn(&self, options: &RetryOptions) {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        *saved = saved.saturating_add(options.budget_percent).min(options.budget_max * RETRY_COST);
    }

    fn spend(&self) -> bool {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        match saved.checked_sub(RETRY_COST) {
            Some(left) => {
                *saved = left;
                true
            }
            None => false,
        }
    }

    async fn tries(&self, options: &RetryOptions, request: Request, next: &impl Handle) -> Response {
        self.earn(options);
        let (head, body) = request.into_parts();
        let body = match Collected::read(body, REQUEST_BYTES_MAX).await {
            Ok(body) => body,
            Err(CollectError::Body(status)) => return answer(status),
            Err(CollectError::TooLong) => {
                let fault = crate::fault::Common::Limit { limit: "messageBytes", max: 1024 * 1024, unit: "bytes" };
                return answer(crate::status(&fault));
            }
        };
        let deadline = head.extensions.get::<Outgoing>().and_then(|outgoing| outgoing.deadline);
        let mut pause = options.pause;
        for attempt in 1..options.tries_max {
            let request = Request::from_parts(head.clone(), body.again());
            let answered = tokio::time::timeout(options.try_timeout, next.handle(request)).await;
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let worth_it = left.is_none_or(|left| left > pause);
            match answered {
                Ok(response) if code_of(&response) != tonic::Code::Unavailable || !worth_it => return response,
                Ok(response) if !self.spend() => return response,
                Ok(_) => tracing::debug!(attempt, "peer unavailable; trying again"),
                Err(_) if !self.spend() => break,
                Err(_) => tracing::debug!(attempt, "no answer in time; trying again"),
            }
            tokio::time::sleep(crate::jitter(&self.ids, pause)).await;
            pause *= 2;
        }
        next.handle(Request::from_parts(head, body.into_body())).await
    }
}

impl Step for Retry {
    async fn run(&self, mut request: Request, next: &impl Handle) -> Response {
        let idempotent = request.extensions_mut().remove::<Idempotent>().is_some();
        match &self.options {
            Some(options) if idempotent && !request.body().is_end_stream() => self.tries(options, request, next).await,
            _ => next.handle(request).await,
        }
    }
}

#[cfg(test)]
mod tests;
