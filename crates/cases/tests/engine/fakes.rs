//! The roles that cases calls, as models that can be scripted.

pub(crate) mod catalog;
pub(crate) mod department;
pub(crate) mod identity;
pub(crate) mod payments;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rpc::{Effect, Fault, Kind};

/// What a fake does with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Play {
    /// Does it and answers.
    Answer,
    /// Does it; the answer is lost.
    LoseAnswer,
    /// Does nothing, and cannot prove it.
    LoseRequest,
    /// Does nothing, and proves it.
    Refuse,
    /// Does it and never answers.
    Hang,
    /// The department refuses with this code.
    Reject(&'static str),
    /// The department has it and decides later: by the third inquiry.
    Pending,
    /// The department did it, and its answer cannot be read.
    Garble,
    /// The order is still being created; at the channel, it is there soon.
    Creating,
    /// The order is payable for two seconds only.
    Short,
    /// The channel has not confirmed the closing yet.
    StillOpen,
    /// The channel fails the refund.
    RefundFails,
    /// The refund takes until it is asked about.
    RefundSlow,
}

/// What is planned for the next calls, by operation and by the amount of the case: every case of a test has an amount of its own.
#[derive(Default)]
pub(crate) struct Script(Mutex<BTreeMap<(&'static str, i64), VecDeque<Play>>>);

impl Script {
    pub(crate) fn plan(&self, operation: &'static str, amount: i64, plays: &[Play]) {
        locked(&self.0).entry((operation, amount)).or_default().extend(plays);
    }

    pub(crate) fn next(&self, operation: &'static str, amount: i64) -> Play {
        locked(&self.0).get_mut(&(operation, amount)).and_then(VecDeque::pop_front).unwrap_or(Play::Answer)
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A fault of a fake.
#[derive(Debug, thiserror::Error)]
#[error("staged")]
pub(crate) struct Trouble {
    pub kind: Kind,
    pub effect: Effect,
    pub domain: &'static str,
    pub reason: &'static str,
}

impl Trouble {
    /// The peer cannot be reached.
    pub(crate) fn away(effect: Effect) -> tonic::Status {
        Self::status(Kind::Unavailable, effect, "department.lastmile", "DEPARTMENT_UNREACHABLE")
    }

    pub(crate) fn status(kind: Kind, effect: Effect, domain: &'static str, reason: &'static str) -> tonic::Status {
        rpc::status(&Self { kind, effect, domain, reason })
    }
}

impl Fault for Trouble {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn reason(&self) -> &'static str {
        self.reason
    }

    fn domain(&self) -> &'static str {
        self.domain
    }

    fn effect(&self) -> Effect {
        self.effect
    }
}

/// Writes the methods of a trait that no test calls.
#[macro_export]
macro_rules! not_served {
    ($($package:ident: $($method:ident($request:ident) -> $response:ident),+ $(,)?);+ $(;)?) => {$($(
        fn $method<'s, 'f>(
            &'s self,
            _: tonic::Request<$package::$request>,
        ) -> std::pin::Pin<
            Box<dyn Future<Output = Result<tonic::Response<$package::$response>, tonic::Status>> + Send + 'f>,
        >
        where
            's: 'f,
            Self: 'f,
        {
            Box::pin(async { rpc::not_served() })
        }
    )+)+};
}
