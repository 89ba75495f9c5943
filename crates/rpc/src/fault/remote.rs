//! Status to fault: what a caller may conclude.

use std::collections::BTreeMap;
use std::time::Duration;

use tonic_types::StatusExt;

use super::{Effect, Kind, Origin, Retry, Violation, common_domain};

/// A fault that a peer (or the wire to it) answered with.
///
/// Shape: match on [`RemoteFault::is`] with (domain, reason). Without a proven NONE its effect is POSSIBLE: a status that lastmile
/// did not make says nothing about what happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {}: {}", .0.domain, .0.reason, .0.message)]
// Boxed: it travels in the error of many a result.
pub struct RemoteFault(Box<Read>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Read {
    kind: Kind,
    code: tonic::Code,
    domain: String,
    reason: String,
    message: String,
    metadata: BTreeMap<String, String>,
    retry: Retry,
    origin: Origin,
    effect: Effect,
    request_id: String,
    violations: Vec<Violation>,
}

impl RemoteFault {
    /// Tells whether this is `reason` of `domain`.
    pub fn is(&self, domain: &str, reason: &str) -> bool {
        self.0.domain == domain && self.0.reason == reason
    }

    /// Tells whether this is a reason of the common domain.
    pub fn is_common(&self, reason: &str) -> bool {
        self.is(common_domain(), reason)
    }

    /// What sort of fault it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The gRPC code as it came.
    pub fn code(&self) -> tonic::Code {
        self.0.code
    }

    /// The domain; empty when the status was not made by lastmile.
    pub fn domain(&self) -> &str {
        &self.0.domain
    }

    /// The reason; empty when the status was not made by lastmile.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The peer's text. For logs; never matched on.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// One value of the metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.0.metadata.get(key).map(String::as_str)
    }

    /// The keys of the metadata, sorted.
    pub fn metadata_keys(&self) -> impl Iterator<Item = &str> {
        self.0.metadata.keys().map(String::as_str)
    }

    /// What may be done again.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// Whose doing it is.
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// Whether the peer may have acted.
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// The request id under which the peer logged it; may be empty.
    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// The fields that the peer complained of.
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// The fault of a peer that could not be reached, made here. For callers that find out before a wire does.
    pub fn unreachable(peer: &str, effect: Effect, retry_after: Duration) -> Self {
        let fault = super::Common::Peer { peer: peer.to_owned(), effect, retry_after, source: None };
        Self::from(&super::refusal(&fault, ""))
    }
}

impl From<&tonic::Status> for RemoteFault {
    fn from(status: &tonic::Status) -> Self {
        let details = status.get_error_details();
        let kind = Kind::of_code(status.code());
        let (domain, reason, metadata) = match details.error_info() {
            Some(info) => (info.domain.clone(), info.reason.clone(), info.metadata.clone().into_iter().collect()),
            None => (String::new(), String::new(), BTreeMap::new()),
        };
        let retry = match details.retry_info().and_then(|info| info.retry_delay) {
            Some(delay) => Retry::After(delay),
            None if kind == Kind::Conflict => Retry::Reread,
            None => Retry::Never,
        };
        let effect = match metadata.get("effect").map(String::as_str) {
            Some("NONE") => Effect::None,
            _ => Effect::Possible,
        };
        let origin = match metadata.get("origin").map(String::as_str) {
            Some("caller") => Origin::Caller,
            Some("department") => Origin::Department,
            _ => Origin::Lastmile,
        };
        let violations = details
            .bad_request()
            .map(|bad| bad.field_violations.iter().map(|v| Violation::new(&v.field, &v.description)).collect())
            .unwrap_or_default();
        Self(Box::new(Read {
            kind,
            code: status.code(),
            domain,
            reason,
            message: status.message().to_owned(),
            metadata,
            retry,
            origin,
            effect,
            request_id: details.request_info().map(|info| info.request_id.clone()).unwrap_or_default(),
            violations,
        }))
    }
}

impl From<tonic::Status> for RemoteFault {
    fn from(status: tonic::Status) -> Self {
        Self::from(&status)
    }
}
