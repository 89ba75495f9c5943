//! A panic becomes INTERNAL.

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt;

use super::chain::{Handle, Request, Response, Step};
use crate::fault::{Common, status};
use crate::frames::answer;

pub(super) struct CatchPanic;

impl Step for CatchPanic {
    async fn run(&self, request: Request, next: &impl Handle) -> Response {
        match AssertUnwindSafe(next.handle(request)).catch_unwind().await {
            Ok(response) => response,
            // A simulated crash is no panic: it has to end the host's task.
            Err(payload) if runtime::crash::is_crash(payload.as_ref()) => resume_unwind(payload),
            Err(payload) => {
                let text = payload.downcast_ref::<&str>().copied().unwrap_or("not a plain text");
                tracing::error!(panic = text, "a handler panicked");
                answer(status(&Common::Internal))
            }
        }
    }
}
