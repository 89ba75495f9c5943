//! The call that is being served: its id and its deadline, known to everything that runs on its behalf.
//!
//! The server stack opens the scope around the handler; the client stack reads it, so that a hop inherits the id and what is left of
//! the time without any service passing them along. Work that a handler hands to a background task has no such scope: it outlives
//! the call on purpose.

use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;

/// What is known of the call being served.
#[derive(Clone, Debug)]
pub struct Call {
    /// The request id, 1 to 64 characters of `[A-Za-z0-9_-]`.
    pub request_id: Arc<str>,
    /// When the caller stops waiting. `None` on streams, which have no such end.
    pub deadline: Option<Instant>,
}

tokio::task_local! {
    static CURRENT: Call;
}

/// Returns the call that the current task is serving.
pub fn current() -> Option<Call> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Returns the request id of the call that the current task is serving.
pub fn request_id() -> Option<String> {
    CURRENT.try_with(|call| call.request_id.to_string()).ok()
}

/// Returns when the caller of the current task stops waiting.
pub fn deadline() -> Option<Instant> {
    CURRENT.try_with(|call| call.deadline).ok().flatten()
}

/// Runs work on behalf of a call. The server stack does this around every handler; a worker that acts for a stored step does it
/// itself, so that its outgoing calls carry the step's id and deadline.
pub fn scope<F: Future>(call: Call, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(call, work)
}

/// Runs one step of work on behalf of a call: what a stream does between two of its frames.
pub(crate) fn scope_sync<T>(call: &Call, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(call.clone(), work)
}

/// The longest request id.
const REQUEST_ID_LENGTH_MAX: usize = 64;

/// Tells whether a text may be a request id: 1 to 64 characters of `[A-Za-z0-9_-]`.
pub fn is_request_id(text: &str) -> bool {
    (1..=REQUEST_ID_LENGTH_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Checks the `request_id` field of a mutating request.
///
/// Errors: a violation of the field `request_id`, without the value.
pub fn check_request_id(text: &str) -> Result<&str, crate::Violation> {
    if is_request_id(text) {
        return Ok(text);
    }
    Err(crate::Violation::new("request_id", "must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_keep_to_their_alphabet_and_length() {
        for good in ["a", "A-Z_09", &"x".repeat(64)] {
            assert!(is_request_id(good), "{good}");
        }
        for bad in ["", " ", "a b", "a\n", "é", "a.b", "a/b", &"x".repeat(65)] {
            assert!(!is_request_id(bad), "{bad:?}");
            assert!(check_request_id(bad).is_err());
        }
    }
}
