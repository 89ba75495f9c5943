//! What callers write down.

use contracts::payments::v1 as pb;
use invariants::Deed;
use pb::OrderState;
use rpc::RemoteFault;
use rpc::fault::Kind;
use serde::{Deserialize, Serialize};

/// A line of what callers wrote down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) deed: String,
    pub(super) request_id: String,
    /// What the answer was about, and the digest of all of it; neither where there was no answer.
    pub(super) id: String,
    pub(super) digest: String,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Create,
    Close,
    Post,
    Refund,
}

impl Line {
    /// What the invariants call it; None of what they do not know.
    pub(super) fn deed(&self) -> Option<Deed> {
        match self.deed.as_str() {
            "Create" => Some(Deed::Order),
            "Refund" => Some(Deed::Refund),
            _ => None,
        }
    }
}

/// What an answer is about.
pub(super) trait About {
    /// One for each request id that the call was made under.
    fn about(&self) -> Vec<&str>;

    /// Whether there will be another answer under the same key.
    fn waits(&self) -> bool {
        false
    }
}

impl About for pb::Order {
    fn about(&self) -> Vec<&str> {
        vec![&self.order_id]
    }

    fn waits(&self) -> bool {
        self.state() == OrderState::Waiting
    }
}

impl About for pb::CombinedOrder {
    fn about(&self) -> Vec<&str> {
        self.parts.iter().map(|part| part.order_id.as_str()).collect()
    }
}

impl About for pb::RefundRecord {
    fn about(&self) -> Vec<&str> {
        vec![&self.refund_id]
    }
}

/// Whether a call was answered, yes or no.
pub(super) fn is_answer(fault: &RemoteFault) -> bool {
    let passing = [Kind::Unavailable, Kind::Deadline, Kind::Exhausted, Kind::Conflict, Kind::Internal];
    !passing.contains(&fault.kind())
}
