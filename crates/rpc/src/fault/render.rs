//! Fault to status: the one place.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use prost::Message;
use prost_types::Any;
use tonic_types::pb;

use super::{Details, Effect, Fault, Kind, Origin, Retry, Violation, common_domain};

/// What a caller reads of a bug.
const INTERNAL_TEXT: &str = "internal error; the request id finds it in the log";
/// Most violations that one answer carries.
const VIOLATIONS_MAX: usize = 64;

/// Turns a fault into the status that leaves the server, and logs it at the level of its kind.
///
/// Shape: always ErrorInfo (reason, domain, metadata with `effect` and `origin`) and RequestInfo, then what the kind asks for. The
/// request id comes from the call that is being served. A fault of kind Internal shows a fixed text and logs its whole chain.
pub fn status(fault: &(impl Fault + ?Sized)) -> tonic::Status {
    let request_id = crate::call::request_id().unwrap_or_default();
    log(fault, &request_id);
    build(fault, request_id)
}

/// Renders without logging, for refusals that the stack itself counts.
pub(crate) fn refusal(fault: &Common, request_id: &str) -> tonic::Status {
    tracing::debug!(reason = fault.reason(), request_id, "refused");
    build(fault, request_id.to_owned())
}

fn build(fault: &(impl Fault + ?Sized), request_id: String) -> tonic::Status {
    let kind = fault.kind();
    let text = if kind == Kind::Internal { INTERNAL_TEXT.to_owned() } else { fault.to_string() };
    let mut metadata: BTreeMap<String, String> =
        fault.metadata().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    metadata.insert("effect".into(), fault.effect().as_str().into());
    metadata.insert("origin".into(), fault.origin().as_str().into());
    let info = ErrorInfo { reason: fault.reason().to_owned(), domain: fault.domain().to_owned(), metadata };
    let request = pb::RequestInfo { request_id, serving_data: String::new() };
    let mut details = vec![any("ErrorInfo", &info), any("RequestInfo", &request)];
    details.extend(kind_details(fault, &text));
    if let Retry::After(delay) = fault.retry() {
        let retry_delay = prost_types::Duration::try_from(delay).ok();
        details.push(any("RetryInfo", &pb::RetryInfo { retry_delay }));
    }
    with_details(kind.code(), text, details)
}

#[expect(clippy::disallowed_methods, reason = "the one place where a status is made")]
fn with_details(code: tonic::Code, text: String, details: Vec<Any>) -> tonic::Status {
    let envelope = pb::Status { code: code.into(), message: text.clone(), details };
    tonic::Status::with_details(code, text, envelope.encode_to_vec().into())
}

/// google.rpc.ErrorInfo with its map in order: the same fault has the same bytes, also under the simulator.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/google.rpc.{name}"), value: message.encode_to_vec() }
}

/// What the table of kinds asks for beside ErrorInfo, RequestInfo and RetryInfo.
fn kind_details(fault: &(impl Fault + ?Sized), text: &str) -> Option<Any> {
    let Details { violations, resource, subject } = fault.details();
    let subject = subject.unwrap_or_else(|| fault.domain().to_owned());
    let description = text.to_owned();
    match fault.kind() {
        Kind::InvalidInput => {
            let field_violations = violations.into_iter().take(VIOLATIONS_MAX).map(field_violation).collect();
            Some(any("BadRequest", &pb::BadRequest { field_violations }))
        }
        Kind::NotFound | Kind::AlreadyExists | Kind::Conflict => {
            let (resource_type, resource_name) = resource.unwrap_or_default();
            let resource_type = resource_type.to_owned();
            Some(any(
                "ResourceInfo",
                &pb::ResourceInfo { resource_type, resource_name, owner: String::new(), description },
            ))
        }
        Kind::RuleBroken => {
            let violation =
                pb::precondition_failure::Violation { r#type: fault.reason().to_owned(), subject, description };
            Some(any("PreconditionFailure", &pb::PreconditionFailure { violations: vec![violation] }))
        }
        Kind::Exhausted => {
            let violation = pb::quota_failure::Violation { subject, description, ..Default::default() };
            Some(any("QuotaFailure", &pb::QuotaFailure { violations: vec![violation] }))
        }
        Kind::Unauthenticated
        | Kind::Forbidden
        | Kind::Unavailable
        | Kind::Deadline
        | Kind::Unsupported
        | Kind::Internal => None,
    }
}

fn field_violation(violation: Violation) -> pb::bad_request::FieldViolation {
    pb::bad_request::FieldViolation { field: violation.field, description: violation.description, ..Default::default() }
}

fn log(fault: &(impl Fault + ?Sized), request_id: &str) {
    let (reason, domain, effect) = (fault.reason(), fault.domain(), fault.effect().as_str());
    match fault.kind() {
        Kind::Internal => {
            let chain = chain(fault);
            tracing::error!(request_id, domain, reason, effect, chain, "internal error");
        }
        Kind::Unavailable | Kind::Deadline => {
            let chain = chain(fault);
            tracing::warn!(request_id, domain, reason, effect, chain, "call failed");
        }
        Kind::Unauthenticated | Kind::Forbidden | Kind::RuleBroken | Kind::Exhausted => {
            tracing::info!(request_id, domain, reason, effect, "call refused");
        }
        Kind::InvalidInput | Kind::NotFound | Kind::AlreadyExists | Kind::Conflict | Kind::Unsupported => {
            tracing::debug!(request_id, domain, reason, effect, "call refused");
        }
    }
}

/// The fault and everything beneath it, outermost first.
fn chain(fault: &(impl Fault + ?Sized)) -> String {
    let mut text = fault.to_string();
    let mut next: Option<&dyn Error> = fault.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// The answer of a method that is in the contract and not served yet. The stack refuses such calls before the handler
/// (see [`crate::NOT_SERVED`]); the generated trait still asks for a body, and this is all that stands in it.
///
/// Errors: always `Unsupported` NOT_SERVED.
pub fn not_served<T>() -> Result<T, tonic::Status> {
    Err(status(&Common::NotServed { method: None }))
}

/// The faults that the stacks, the wire and the accept loop give themselves.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Common {
    /// The request breaks the contract.
    #[error("the request breaks the contract")]
    Invalid { violations: Vec<Violation> },
    /// No credential, or one that does not verify.
    #[error("no credential that verifies")]
    Unauthenticated { check: Option<&'static str> },
    /// Not this caller.
    #[error("the caller may not call this method")]
    NotAllowed { caller: String, method: String },
    /// Not yet.
    #[error("the method is in the contract and not served yet")]
    NotServed { method: Option<String> },
    /// A feature of gRPC that no server of lastmile speaks.
    #[error("{what} is not spoken here")]
    NotSpoken { what: &'static str },
    /// Too much of something.
    #[error("{limit} passed: at most {max} {unit}")]
    Limit { limit: &'static str, max: u64, unit: &'static str },
    /// Too late.
    #[error("the deadline passed")]
    Deadline { effect: Effect },
    /// Too many at once.
    #[error("the server has as many calls as it takes")]
    Overloaded { retry_after: Duration },
    /// No way to the peer.
    #[error("{peer} cannot be reached")]
    Peer {
        peer: String,
        effect: Effect,
        retry_after: Duration,
        #[source]
        source: Option<std::sync::Arc<dyn Error + Send + Sync>>,
    },
    /// A bug.
    #[error("a call ended in a fault of the server")]
    Internal,
}

impl Fault for Common {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid { .. } | Self::Limit { .. } => Kind::InvalidInput,
            Self::Unauthenticated { .. } => Kind::Unauthenticated,
            Self::NotAllowed { .. } => Kind::Forbidden,
            Self::NotServed { .. } | Self::NotSpoken { .. } => Kind::Unsupported,
            Self::Deadline { .. } => Kind::Deadline,
            Self::Overloaded { .. } => Kind::Exhausted,
            Self::Peer { .. } => Kind::Unavailable,
            Self::Internal => Kind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "INVALID_REQUEST",
            Self::Unauthenticated { .. } => "UNAUTHENTICATED",
            Self::NotAllowed { .. } => "CALLER_NOT_ALLOWED",
            Self::NotServed { .. } | Self::NotSpoken { .. } => "NOT_SERVED",
            Self::Limit { .. } => "LIMIT_EXCEEDED",
            Self::Deadline { .. } => "DEADLINE_EXCEEDED",
            Self::Overloaded { .. } => "OVERLOADED",
            Self::Peer { .. } => "PEER_UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }

    fn domain(&self) -> &'static str {
        common_domain()
    }

    fn effect(&self) -> Effect {
        match self {
            Self::Invalid { .. }
            | Self::Unauthenticated { .. }
            | Self::NotAllowed { .. }
            | Self::NotServed { .. }
            | Self::NotSpoken { .. }
            | Self::Limit { .. }
            | Self::Overloaded { .. } => Effect::None,
            Self::Deadline { effect } | Self::Peer { effect, .. } => *effect,
            Self::Internal => Effect::Possible,
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Unauthenticated { check: Some(check) } => vec![("check", (*check).to_owned())],
            Self::NotAllowed { caller, method } => vec![("caller", caller.clone()), ("method", method.clone())],
            Self::NotServed { method: Some(method) } => vec![("method", method.clone())],
            Self::Limit { limit, max, unit } => {
                vec![("limit", (*limit).to_owned()), ("max", max.to_string()), ("unit", (*unit).to_owned())]
            }
            Self::Peer { peer, .. } => vec![("peer", peer.clone())],
            Self::Invalid { .. }
            | Self::Unauthenticated { check: None }
            | Self::NotServed { method: None }
            | Self::NotSpoken { .. }
            | Self::Deadline { .. }
            | Self::Overloaded { .. }
            | Self::Internal => Vec::new(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Overloaded { retry_after } | Self::Peer { retry_after, .. } => Retry::After(*retry_after),
            other => other.kind().retry(),
        }
    }

    fn origin(&self) -> Origin {
        match self {
            Self::NotSpoken { .. } => Origin::Caller,
            other => other.kind().origin(),
        }
    }

    fn details(&self) -> Details {
        match self {
            Self::Invalid { violations } => Details { violations: violations.clone(), ..Details::default() },
            _ => Details::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{COMMON, RemoteFault};

    fn all() -> Vec<Common> {
        vec![
            Common::Invalid { violations: vec![Violation::new("a.b", "is empty")] },
            Common::Unauthenticated { check: Some("exp") },
            Common::NotAllowed { caller: "cases".into(), method: "/x/Y".into() },
            Common::NotServed { method: Some("/x/Y".into()) },
            Common::NotSpoken { what: "compression" },
            Common::Limit { limit: "bodyBytes", max: 1, unit: "bytes" },
            Common::Deadline { effect: Effect::Possible },
            Common::Overloaded { retry_after: Duration::from_millis(100) },
            Common::Peer {
                peer: "cases".into(),
                effect: Effect::None,
                retry_after: Duration::from_millis(50),
                source: None,
            },
            Common::Internal,
        ]
    }

    #[test]
    fn every_common_fault_keeps_to_the_table_and_reads_back() {
        for fault in all() {
            assert_eq!(COMMON.check(&fault), Ok(()));
            let read = RemoteFault::from(&status(&fault));
            assert_eq!(read.kind(), fault.kind());
            assert_eq!((read.domain(), read.reason()), (fault.domain(), fault.reason()));
            assert_eq!(read.effect(), fault.effect());
            assert_eq!(read.origin(), fault.origin());
            assert_eq!(read.retry(), fault.retry(), "{}", fault.reason());
            for (key, value) in fault.metadata() {
                assert_eq!(read.metadata(key), Some(value.as_str()));
            }
        }
    }

    #[test]
    fn a_bug_says_nothing_of_itself() {
        #[derive(Debug, thiserror::Error)]
        #[error("secret detail 42")]
        struct Bug;
        impl Fault for Bug {
            fn kind(&self) -> Kind {
                Kind::Internal
            }
            fn reason(&self) -> &'static str {
                "INTERNAL"
            }
            fn domain(&self) -> &'static str {
                common_domain()
            }
            fn effect(&self) -> Effect {
                Effect::Possible
            }
        }
        let status = status(&Bug);
        assert_eq!(status.code(), tonic::Code::Internal);
        assert!(!format!("{status:?}").contains("secret detail"), "{status:?}");
    }
}
