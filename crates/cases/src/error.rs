//! What cases refuses, and what can fail underneath it.

use std::time::Duration;

use rpc::{Details, Effect, Fault, Kind, Origin, ReasonSpec, ReasonTable, RemoteFault, Retry, Violation};

use crate::domain::{Refused, Step};
use crate::repo::Code as _;
use crate::seal::SealError;

const DOMAIN: &str = "cases.lastmile";

/// The reasons of the domain.
pub const REASONS: ReasonTable = ReasonTable {
    domain: DOMAIN,
    proto_enum: "lastmile.cases.v1.ErrorReason",
    reasons: &[
        ReasonSpec::new("CASE_NOT_FOUND", Kind::NotFound),
        ReasonSpec::new("BILL_IN_PROGRESS", Kind::RuleBroken),
        ReasonSpec::new("CASE_NOT_CANCELLABLE", Kind::RuleBroken),
        ReasonSpec::new("TASK_NOT_FOUND", Kind::NotFound),
        ReasonSpec::new("TASK_NOT_OPEN", Kind::RuleBroken),
        ReasonSpec::new("SAME_CLERK", Kind::RuleBroken),
        ReasonSpec::new("DECISION_NOT_ALLOWED", Kind::RuleBroken).with(&["step"]),
        ReasonSpec::new("NOT_PAYABLE", Kind::RuleBroken),
        ReasonSpec::new("GRANT_REFUSED", Kind::Forbidden).with(&["profile"]),
    ],
};

/// Errors of cases, named by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request breaks the contract.
    #[error("the request breaks the contract")]
    Invalid(Vec<Violation>),
    /// No token, or one that does not verify; the check that failed.
    #[error("no credential that verifies")]
    Unauthenticated(&'static str),
    /// Another kind of token than the method wants, or an assurance level below the item's.
    #[error("the caller may not call this method")]
    NotAllowed,
    /// The request id was used before with another request.
    #[error("the request_id was used before with another request")]
    RequestIdReused,
    /// No such case for this citizen.
    #[error("no such case")]
    CaseNotFound,
    /// No such task in the clerk's scope.
    #[error("no such task")]
    TaskNotFound,
    /// Another open case pays the same bill.
    #[error("another open case pays the same bill")]
    BillInProgress,
    /// The item's route does not offer payment here.
    #[error("the item cannot be paid here")]
    NotPayable,
    /// The citizen's token does not cover the profile.
    #[error("the citizen's token does not cover the profile")]
    GrantRefused {
        /// The audience to ask for.
        profile: String,
    },
    /// What a person asked does not fit the case as it stands.
    #[error("{0}")]
    Refused(Refused, Option<Step>),
    /// Another role could not be asked; nothing was begun here.
    #[error("{peer} cannot be reached")]
    Peer {
        /// Its mesh key.
        peer: &'static str,
        /// What it, or the way to it, answered.
        #[source]
        source: Option<Box<RemoteFault>>,
    },
    /// The store.
    #[error("the store does not answer")]
    Store(#[source] store::Error),
    /// Another writer was first, more often than a call can wait for.
    #[error("the case is being moved by others")]
    Raced,
    /// A row holds what this version never wrote.
    #[error("column {0} holds no value of its kind")]
    Corrupt(&'static str),
    /// A stored column cannot be sealed or opened.
    #[error("a stored column cannot be opened")]
    Seal(#[from] SealError),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl Error {
    /// The unique index that refused a row, if that is what happened.
    pub(crate) fn conflict(&self) -> Option<&str> {
        match self {
            Self::Store(error) => error.conflict(),
            _ => None,
        }
    }

    /// Whether running the same transaction again on fresh rows may go through.
    pub(crate) fn is_raced(&self) -> bool {
        matches!(self, Self::Raced)
    }

    /// Whether the store was away or busy, as against broken.
    fn is_transient(error: &store::Error) -> bool {
        error.is_transient() || matches!(error, store::Error::CommitUnknown { .. } | store::Error::LeaseLost)
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::InvalidInput,
            Self::Unauthenticated(_) => Kind::Unauthenticated,
            Self::NotAllowed | Self::GrantRefused { .. } => Kind::Forbidden,
            Self::CaseNotFound | Self::TaskNotFound => Kind::NotFound,
            Self::RequestIdReused | Self::BillInProgress | Self::NotPayable | Self::Refused(..) => Kind::RuleBroken,
            Self::Peer { .. } | Self::Raced => Kind::Unavailable,
            Self::Store(error) if Self::is_transient(error) => Kind::Unavailable,
            Self::Store(_) | Self::Corrupt(_) | Self::Seal(_) => Kind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::Unauthenticated(_) => "UNAUTHENTICATED",
            Self::NotAllowed => "CALLER_NOT_ALLOWED",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::CaseNotFound => "CASE_NOT_FOUND",
            Self::TaskNotFound => "TASK_NOT_FOUND",
            Self::BillInProgress => "BILL_IN_PROGRESS",
            Self::NotPayable => "NOT_PAYABLE",
            Self::GrantRefused { .. } => "GRANT_REFUSED",
            Self::Refused(Refused::NotCancellable, _) => "CASE_NOT_CANCELLABLE",
            Self::Refused(Refused::TaskNotOpen, _) => "TASK_NOT_OPEN",
            Self::Refused(Refused::SameClerk, _) => "SAME_CLERK",
            Self::Refused(Refused::DecisionNotAllowed, _) => "DECISION_NOT_ALLOWED",
            Self::Peer { .. } => "PEER_UNAVAILABLE",
            Self::Raced => "STORE_UNAVAILABLE",
            Self::Store(error) if Self::is_transient(error) => "STORE_UNAVAILABLE",
            Self::Store(_) | Self::Corrupt(_) | Self::Seal(_) => "INTERNAL",
        }
    }

    fn domain(&self) -> &'static str {
        match self {
            Self::CaseNotFound
            | Self::TaskNotFound
            | Self::BillInProgress
            | Self::NotPayable
            | Self::GrantRefused { .. }
            | Self::Refused(..) => DOMAIN,
            Self::Invalid(_)
            | Self::Unauthenticated(_)
            | Self::NotAllowed
            | Self::RequestIdReused
            | Self::Peer { .. }
            | Self::Store(_)
            | Self::Raced
            | Self::Corrupt(_)
            | Self::Seal(_) => rpc::COMMON.domain,
        }
    }

    fn effect(&self) -> Effect {
        match self {
            Self::Store(error) if Self::is_transient(error) && error.had_no_effect() => Effect::None,
            // Internal faults promise nothing, whatever they were about.
            Self::Store(_) | Self::Corrupt(_) | Self::Seal(_) => Effect::Possible,
            Self::Invalid(_)
            | Self::Unauthenticated(_)
            | Self::NotAllowed
            | Self::RequestIdReused
            | Self::CaseNotFound
            | Self::TaskNotFound
            | Self::BillInProgress
            | Self::NotPayable
            | Self::GrantRefused { .. }
            | Self::Refused(..)
            | Self::Peer { .. }
            | Self::Raced => Effect::None,
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Unauthenticated(check) => vec![("check", (*check).to_owned())],
            Self::GrantRefused { profile } => vec![("profile", profile.clone())],
            Self::Refused(Refused::DecisionNotAllowed, step) => {
                vec![("step", step.map(|step| step.code().to_owned()).unwrap_or_default())]
            }
            Self::Peer { peer, .. } => vec![("peer", (*peer).to_owned())],
            Self::Invalid(_)
            | Self::NotAllowed
            | Self::RequestIdReused
            | Self::CaseNotFound
            | Self::TaskNotFound
            | Self::BillInProgress
            | Self::NotPayable
            | Self::Refused(..)
            | Self::Store(_)
            | Self::Raced
            | Self::Corrupt(_)
            | Self::Seal(_) => Vec::new(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Raced => Retry::After(Duration::from_millis(100)),
            other => other.kind().retry(),
        }
    }

    fn origin(&self) -> Origin {
        match self {
            Self::Unauthenticated(_) | Self::NotAllowed | Self::GrantRefused { .. } => Origin::Caller,
            other => other.kind().origin(),
        }
    }

    fn details(&self) -> Details {
        match self {
            Self::Invalid(violations) => Details { violations: violations.clone(), ..Details::default() },
            Self::CaseNotFound => Details { resource: Some(("case", String::new())), ..Details::default() },
            Self::TaskNotFound => Details { resource: Some(("task", String::new())), ..Details::default() },
            Self::BillInProgress => Details { subject: Some("bill".to_owned()), ..Details::default() },
            Self::NotPayable => Details { subject: Some("route".to_owned()), ..Details::default() },
            Self::Refused(..) => Details { subject: Some("case".to_owned()), ..Details::default() },
            Self::RequestIdReused => Details { subject: Some("request_id".to_owned()), ..Details::default() },
            Self::Unauthenticated(_)
            | Self::NotAllowed
            | Self::GrantRefused { .. }
            | Self::Peer { .. }
            | Self::Store(_)
            | Self::Raced
            | Self::Corrupt(_)
            | Self::Seal(_) => Details::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_keeps_to_its_row_of_the_table() {
        let ours = [
            Error::CaseNotFound,
            Error::BillInProgress,
            Error::Refused(Refused::NotCancellable, None),
            Error::TaskNotFound,
            Error::Refused(Refused::TaskNotOpen, None),
            Error::Refused(Refused::SameClerk, None),
            Error::Refused(Refused::DecisionNotAllowed, Some(Step::Settle)),
            Error::NotPayable,
            Error::GrantRefused { profile: "traffic/430100".to_owned() },
        ];
        let reasons: Vec<_> = ours.iter().map(Fault::reason).collect();
        let table: Vec<_> = REASONS.reasons.iter().map(|spec| spec.reason).collect();
        assert_eq!(reasons, table, "every reason is raised by one error, in the enum's order");
        for error in &ours {
            assert_eq!(REASONS.check(error), Ok(()));
        }
        let common = [
            Error::Invalid(Vec::new()),
            Error::Unauthenticated("exp"),
            Error::NotAllowed,
            Error::RequestIdReused,
            Error::Peer { peer: "identity", source: None },
            Error::Raced,
            Error::Store(store::Error::CommitUnknown { source: None }),
            Error::Store(store::Error::Failed),
            Error::Corrupt("state"),
            Error::Seal(SealError::Opening),
        ];
        for error in &common {
            assert_eq!(rpc::COMMON.check(error), Ok(()), "{error}");
        }
        assert_eq!(Error::Store(store::Error::CommitUnknown { source: None }).effect(), Effect::Possible);
    }
}
