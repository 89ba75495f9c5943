//! What an adapter refuses itself, before or after the department spoke.

use std::time::Duration;

use rpc::{Details, Effect, Fault, Kind, Origin, ReasonSpec, ReasonTable, Retry, Violation};
use runtime::Timestamp;

/// Errors of an adapter. What the department refuses is an outcome, not one of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request breaks the contract.
    #[error("the request breaks the contract")]
    Invalid(Vec<Violation>),
    /// The profile does not offer this item, or not this operation of it.
    #[error("this profile does not offer the item at this depth")]
    ItemNotOffered,
    /// The input breaks the item's schema.
    #[error("the input breaks the item's schema")]
    InputInvalid(Vec<Violation>),
    /// The assertion does not hold; the name of the check says why.
    #[error("the assertion does not hold")]
    AssertionInvalid(&'static str),
    /// A subject-bound field is not the citizen's own.
    #[error("a field of the input is not the citizen's own")]
    SubjectMismatch(String),
    /// The department is closed now.
    #[error("the department is closed")]
    Closed {
        /// When it opens, where that is known.
        opens_at: Option<Timestamp>,
    },
    /// The department was not reached, or did not do what was asked for a reason of its own.
    #[error("the department cannot be reached")]
    Unreachable(Effect),
    /// The department did not answer in time.
    #[error("the department did not answer in time")]
    Timeout,
    /// The department's reply cannot be read.
    #[error("the department's reply cannot be read")]
    Unreadable(#[source] Place),
    /// A value cannot be written as the department takes it.
    #[error("a value cannot be written in the department's form")]
    Unmappable(#[source] Place),
    /// The back end's own limit is used up, or the department said so.
    #[error("the department takes no more calls now")]
    Busy(Duration),
    /// The profile's template fails, or the department does not understand it.
    #[error("the profile does not work")]
    Broken(#[source] Place),
    /// The time of the call was over before anything was sent.
    #[error("the deadline passed before anything was sent")]
    DeadlinePassed,
}

/// Where in a profile's exchange something is wrong: for integrators, never with a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{profile}: field `{field}`, offset {offset}: {what}")]
pub struct Place {
    /// The profile.
    pub profile: String,
    /// The exchange, then the field of the department, or of the output.
    pub field: String,
    /// Byte offset in the department's bytes, or in the request.
    pub offset: usize,
    /// What is wrong there.
    pub what: String,
}

/// The reasons of the domain.
pub const REASONS: ReasonTable = ReasonTable {
    domain: "department.lastmile",
    proto_enum: "lastmile.department.v1.ErrorReason",
    reasons: &[
        ReasonSpec::new("ITEM_NOT_OFFERED", Kind::RuleBroken),
        ReasonSpec::new("INPUT_INVALID", Kind::InvalidInput),
        ReasonSpec::new("ASSERTION_INVALID", Kind::Forbidden).with(&["check"]),
        ReasonSpec::new("SUBJECT_MISMATCH", Kind::Forbidden).with(&["field"]),
        ReasonSpec::new("DEPARTMENT_CLOSED", Kind::Unavailable).with(&["opensAt?"]),
        ReasonSpec::new("DEPARTMENT_UNREACHABLE", Kind::Unavailable).either_effect(),
        ReasonSpec::new("DEPARTMENT_TIMEOUT", Kind::Deadline).possible(),
        ReasonSpec::new("REPLY_UNREADABLE", Kind::Unavailable)
            .with(&["field", "offsetBytes", "profile", "what"])
            .possible()
            .never_again(),
        ReasonSpec::new("VALUE_UNMAPPABLE", Kind::InvalidInput).with(&["field", "offsetBytes", "profile", "what"]),
        ReasonSpec::new("DEPARTMENT_BUSY", Kind::Exhausted),
        ReasonSpec::new("PROFILE_BROKEN", Kind::Internal).with(&["field", "offsetBytes", "profile", "what"]),
    ],
};

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) | Self::InputInvalid(_) | Self::Unmappable(_) => Kind::InvalidInput,
            Self::ItemNotOffered => Kind::RuleBroken,
            Self::AssertionInvalid(_) | Self::SubjectMismatch(_) => Kind::Forbidden,
            Self::Closed { .. } | Self::Unreachable(_) | Self::Unreadable(_) => Kind::Unavailable,
            Self::Timeout | Self::DeadlinePassed => Kind::Deadline,
            Self::Busy(_) => Kind::Exhausted,
            Self::Broken(_) => Kind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::ItemNotOffered => "ITEM_NOT_OFFERED",
            Self::InputInvalid(_) => "INPUT_INVALID",
            Self::AssertionInvalid(_) => "ASSERTION_INVALID",
            Self::SubjectMismatch(_) => "SUBJECT_MISMATCH",
            Self::Closed { .. } => "DEPARTMENT_CLOSED",
            Self::Unreachable(_) => "DEPARTMENT_UNREACHABLE",
            Self::Timeout => "DEPARTMENT_TIMEOUT",
            Self::Unreadable(_) => "REPLY_UNREADABLE",
            Self::Unmappable(_) => "VALUE_UNMAPPABLE",
            Self::Busy(_) => "DEPARTMENT_BUSY",
            Self::Broken(_) => "PROFILE_BROKEN",
            Self::DeadlinePassed => "DEADLINE_EXCEEDED",
        }
    }

    fn domain(&self) -> &'static str {
        match self {
            Self::Invalid(_) | Self::DeadlinePassed => rpc::COMMON.domain,
            Self::ItemNotOffered
            | Self::InputInvalid(_)
            | Self::AssertionInvalid(_)
            | Self::SubjectMismatch(_)
            | Self::Closed { .. }
            | Self::Unreachable(_)
            | Self::Timeout
            | Self::Unreadable(_)
            | Self::Unmappable(_)
            | Self::Busy(_)
            | Self::Broken(_) => REASONS.domain,
        }
    }

    fn effect(&self) -> Effect {
        match self {
            Self::Unreachable(effect) => *effect,
            Self::Timeout | Self::Unreadable(_) => Effect::Possible,
            Self::Invalid(_)
            | Self::ItemNotOffered
            | Self::InputInvalid(_)
            | Self::AssertionInvalid(_)
            | Self::SubjectMismatch(_)
            | Self::Closed { .. }
            | Self::Unmappable(_)
            | Self::Busy(_)
            | Self::Broken(_)
            | Self::DeadlinePassed => Effect::None,
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::AssertionInvalid(check) => vec![("check", (*check).to_owned())],
            Self::SubjectMismatch(field) => vec![("field", field.clone())],
            Self::Closed { opens_at } => {
                let opens_at = opens_at.and_then(crate::kind::rfc3339);
                opens_at.map(|at| ("opensAt", at)).into_iter().collect()
            }
            Self::Unreadable(place) | Self::Unmappable(place) | Self::Broken(place) => place.metadata(),
            Self::Invalid(_)
            | Self::ItemNotOffered
            | Self::InputInvalid(_)
            | Self::Unreachable(_)
            | Self::Timeout
            | Self::Busy(_)
            | Self::DeadlinePassed => Vec::new(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Busy(after) => Retry::After(*after),
            // The same bytes would come back.
            Self::Unreadable(_) => Retry::Never,
            Self::Invalid(_)
            | Self::ItemNotOffered
            | Self::InputInvalid(_)
            | Self::AssertionInvalid(_)
            | Self::SubjectMismatch(_)
            | Self::Closed { .. }
            | Self::Unreachable(_)
            | Self::Timeout
            | Self::Unmappable(_)
            | Self::Broken(_)
            | Self::DeadlinePassed => self.kind().retry(),
        }
    }

    fn origin(&self) -> Origin {
        match self {
            Self::Closed { .. } | Self::Unreachable(_) | Self::Timeout | Self::Unreadable(_) | Self::Busy(_) => {
                Origin::Department
            }
            Self::Broken(_) | Self::DeadlinePassed => Origin::Lastmile,
            Self::Invalid(_)
            | Self::ItemNotOffered
            | Self::InputInvalid(_)
            | Self::AssertionInvalid(_)
            | Self::SubjectMismatch(_)
            | Self::Unmappable(_) => Origin::Caller,
        }
    }

    fn details(&self) -> Details {
        let violations = match self {
            Self::Invalid(violations) | Self::InputInvalid(violations) => violations.clone(),
            Self::Unmappable(place) => vec![Violation::new("input", place.what.clone())],
            Self::ItemNotOffered
            | Self::AssertionInvalid(_)
            | Self::SubjectMismatch(_)
            | Self::Closed { .. }
            | Self::Unreachable(_)
            | Self::Timeout
            | Self::Unreadable(_)
            | Self::Busy(_)
            | Self::Broken(_)
            | Self::DeadlinePassed => Vec::new(),
        };
        let is_item = matches!(self, Self::ItemNotOffered).then_some("item");
        let is_department = matches!(self, Self::Busy(_)).then_some("department");
        let subject = is_item.or(is_department).map(str::to_owned);
        Details { violations, subject, ..Details::default() }
    }
}

impl Place {
    fn metadata(&self) -> Vec<(&'static str, String)> {
        vec![
            ("profile", self.profile.clone()),
            ("field", self.field.clone()),
            ("offsetBytes", self.offset.to_string()),
            ("what", self.what.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_keeps_to_its_row() {
        let place = || Place { profile: "p".into(), field: "f".into(), offset: 3, what: "w".into() };
        let errors = [
            Error::ItemNotOffered,
            Error::InputInvalid(vec![Violation::new("input.plate", "too long")]),
            Error::AssertionInvalid("exp"),
            Error::SubjectMismatch("plate".into()),
            Error::Closed { opens_at: None },
            Error::Closed { opens_at: Some(Timestamp::from_micros(0)) },
            Error::Unreachable(Effect::None),
            Error::Unreachable(Effect::Possible),
            Error::Timeout,
            Error::Unreadable(place()),
            Error::Unmappable(place()),
            Error::Busy(Duration::from_secs(1)),
            Error::Broken(place()),
        ];
        for error in &errors {
            REASONS.check(error).unwrap_or_else(|what| panic!("{what}"));
        }
        for spec in REASONS.reasons {
            assert!(errors.iter().any(|error| error.reason() == spec.reason), "{} is never raised", spec.reason);
        }
        for error in [Error::Invalid(Vec::new()), Error::DeadlinePassed] {
            rpc::COMMON.check(&error).unwrap_or_else(|what| panic!("{what}"));
        }
    }
}
