//! A full server says so at once.

use std::time::Duration;

use tokio::sync::Semaphore;

use super::chain::{Handle, Request, Response, Step};
use crate::call;
use crate::fault::{Common, refusal};
use crate::frames::answer;

/// When a refused caller should come back.
const RETRY_AFTER: Duration = Duration::from_millis(100);

pub(super) struct Shed {
    places: Semaphore,
}

impl Shed {
    pub(super) fn new(calls_max: usize) -> Self {
        Self { places: Semaphore::new(calls_max.min(Semaphore::MAX_PERMITS)) }
    }
}

impl Step for Shed {
    async fn run(&self, request: Request, next: &impl Handle) -> Response {
        match self.places.try_acquire() {
            // Held until the head of the answer: a watching stream takes no place.
            Ok(_place) => next.handle(request).await,
            Err(_) => {
                let fault = Common::Overloaded { retry_after: RETRY_AFTER };
                answer(refusal(&fault, &call::request_id().unwrap_or_default()))
            }
        }
    }
}
