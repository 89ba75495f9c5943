//! What goes wrong, said so that the other side knows whose turn it is.
//!
//! A service's error enum implements [`Fault`]; [`status`] is the only place in lastmile where an error becomes a gRPC status, and
//! [`RemoteFault`] the only reading of one. A caller matches on (domain, reason), never on text. Every fault says its effect: a
//! caller that sees no proven `NONE` must take the call's outcome as unknown.
//!
//! Source: ADR-0003, `docs/errors/TABLE.md`; AIP-193.

mod remote;
mod render;
mod table;

pub use remote::RemoteFault;
pub use render::{not_served, status};
pub use table::{COMMON, ReasonSpec, ReasonTable, common_domain};

pub(crate) use render::{Common, refusal};

use std::fmt;
use std::time::Duration;

/// What sort of fault it is; each has one gRPC code, one HTTP status and one set of details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The request breaks the contract. Details: BadRequest with every violation.
    InvalidInput,
    /// No credential, or one that does not verify.
    Unauthenticated,
    /// The caller may not; decided before it is known whether the thing exists.
    Forbidden,
    /// There is no such thing for this caller. Details: ResourceInfo.
    NotFound,
    /// It is there already. Details: ResourceInfo.
    AlreadyExists,
    /// A rule of the domain forbids it in the present state. Details: PreconditionFailure.
    RuleBroken,
    /// Another writer was first: read again, then retry. Details: ResourceInfo.
    Conflict,
    /// A limit is used up. Details: QuotaFailure, RetryInfo.
    Exhausted,
    /// A dependency is down, or this server is draining. Details: RetryInfo.
    Unavailable,
    /// The deadline passed.
    Deadline,
    /// The contract has it and this server does not serve it.
    Unsupported,
    /// A bug. Fixed text; the chain is logged once under the request id.
    Internal,
}

impl Kind {
    /// Every kind, in the order of the table.
    pub const ALL: [Self; 12] = [
        Self::InvalidInput,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::AlreadyExists,
        Self::RuleBroken,
        Self::Conflict,
        Self::Exhausted,
        Self::Unavailable,
        Self::Deadline,
        Self::Unsupported,
        Self::Internal,
    ];

    /// The gRPC code of this kind.
    pub fn code(self) -> tonic::Code {
        match self {
            Self::InvalidInput => tonic::Code::InvalidArgument,
            Self::Unauthenticated => tonic::Code::Unauthenticated,
            Self::Forbidden => tonic::Code::PermissionDenied,
            Self::NotFound => tonic::Code::NotFound,
            Self::AlreadyExists => tonic::Code::AlreadyExists,
            Self::RuleBroken => tonic::Code::FailedPrecondition,
            Self::Conflict => tonic::Code::Aborted,
            Self::Exhausted => tonic::Code::ResourceExhausted,
            Self::Unavailable => tonic::Code::Unavailable,
            Self::Deadline => tonic::Code::DeadlineExceeded,
            Self::Unsupported => tonic::Code::Unimplemented,
            Self::Internal => tonic::Code::Internal,
        }
    }

    /// The HTTP status of this kind, where the endpoint speaks plain HTTP.
    pub fn http_status(self) -> http::StatusCode {
        match self {
            Self::InvalidInput | Self::RuleBroken => http::StatusCode::BAD_REQUEST,
            Self::Unauthenticated => http::StatusCode::UNAUTHORIZED,
            Self::Forbidden => http::StatusCode::FORBIDDEN,
            Self::NotFound => http::StatusCode::NOT_FOUND,
            Self::AlreadyExists | Self::Conflict => http::StatusCode::CONFLICT,
            Self::Exhausted => http::StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => http::StatusCode::SERVICE_UNAVAILABLE,
            Self::Deadline => http::StatusCode::GATEWAY_TIMEOUT,
            Self::Unsupported => http::StatusCode::NOT_IMPLEMENTED,
            Self::Internal => http::StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The kind that a gRPC code reads back as. Codes that lastmile never sends are Internal.
    pub fn of_code(code: tonic::Code) -> Self {
        match code {
            tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Self::InvalidInput,
            tonic::Code::Unauthenticated => Self::Unauthenticated,
            tonic::Code::PermissionDenied => Self::Forbidden,
            tonic::Code::NotFound => Self::NotFound,
            tonic::Code::AlreadyExists => Self::AlreadyExists,
            tonic::Code::FailedPrecondition => Self::RuleBroken,
            tonic::Code::Aborted => Self::Conflict,
            tonic::Code::ResourceExhausted => Self::Exhausted,
            tonic::Code::Unavailable | tonic::Code::Cancelled => Self::Unavailable,
            tonic::Code::DeadlineExceeded => Self::Deadline,
            tonic::Code::Unimplemented => Self::Unsupported,
            tonic::Code::Ok | tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::DataLoss => Self::Internal,
        }
    }

    /// What a caller may do again when the fault itself says nothing else.
    pub fn retry(self) -> Retry {
        match self {
            Self::Conflict => Retry::Reread,
            Self::Exhausted | Self::Unavailable => Retry::After(RETRY_DELAY),
            Self::InvalidInput
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::NotFound
            | Self::AlreadyExists
            | Self::RuleBroken
            | Self::Deadline
            | Self::Unsupported
            | Self::Internal => Retry::Never,
        }
    }

    /// Whose doing it is when the fault itself says nothing else.
    pub fn origin(self) -> Origin {
        match self {
            Self::InvalidInput
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::NotFound
            | Self::AlreadyExists
            | Self::RuleBroken
            | Self::Conflict => Origin::Caller,
            Self::Exhausted | Self::Unavailable | Self::Deadline | Self::Unsupported | Self::Internal => {
                Origin::Lastmile
            }
        }
    }
}

/// How long a caller waits before it tries again, where nothing better is known.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Whether the call may have changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Proven: nothing was changed and nothing was sent on.
    None,
    /// Not proven. The caller treats the outcome as UNKNOWN and inquires.
    Possible,
}

impl Effect {
    /// As it is written in ErrorInfo metadata `effect`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Possible => "POSSIBLE",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whose doing a fault is: "the department said no" is not "the department is down".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The caller can mend it.
    Caller,
    /// lastmile or its stores.
    Lastmile,
    /// The department, or a payment channel: whatever stands behind us.
    Department,
}

impl Origin {
    /// As it is written in ErrorInfo metadata `origin`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Lastmile => "lastmile",
            Self::Department => "department",
        }
    }
}

/// What the caller may do again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same call will end the same way.
    Never,
    /// Read the state again, then decide.
    Reread,
    /// The same call may succeed after this long.
    After(Duration),
}

/// One field that breaks the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field from the request's root, snake_case, for example `amount.currency` or `tasks[2].id`.
    pub field: String,
    /// What is wrong with it, in a sentence that does not repeat the value.
    pub description: String,
}

impl Violation {
    /// Names a field and what is wrong with it. The description must not repeat the value: it may be personal.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

/// The details that only some kinds carry. What stays empty is filled from the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// For InvalidInput: every violation, not only the first.
    pub violations: Vec<Violation>,
    /// For NotFound, AlreadyExists and Conflict: (type, name), for example ("case", "case_01…"). Never an identifier of a person.
    pub resource: Option<(&'static str, String)>,
    /// For RuleBroken and Exhausted: the subject of the rule or quota, for example "order" or "entry_point:wechat".
    pub subject: Option<String>,
}

/// An error that can leave its service.
///
/// Every method is a total match over the error's variants, without a wildcard. `Display` is the public text: lower case, no
/// trailing period, never its source, never a personal value. Kind Internal is shown as a fixed text instead.
pub trait Fault: std::error::Error {
    /// What sort of fault it is.
    fn kind(&self) -> Kind;

    /// The reason of the domain's `ErrorReason` enum without its prefix, for example "ORDER_NOT_FOUND".
    fn reason(&self) -> &'static str;

    /// The domain, for example "payments.lastmile".
    fn domain(&self) -> &'static str;

    /// Whether something may have changed. No default: each error has to say it.
    fn effect(&self) -> Effect;

    /// What a program needs to react: lowerCamel keys with units in the name. Exactly the keys that the reason's table row lists.
    fn metadata(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// What the caller may do again.
    fn retry(&self) -> Retry {
        self.kind().retry()
    }

    /// Whose doing it is.
    fn origin(&self) -> Origin {
        self.kind().origin()
    }

    /// What the kind's own details carry.
    fn details(&self) -> Details {
        Details::default()
    }
}
