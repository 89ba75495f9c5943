//! The reasons of a domain as data: what the golden table is made of.

use super::{Effect, Kind, Retry};

/// One reason of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasonSpec {
    /// The value of the domain's `ErrorReason` enum without `ERROR_REASON_`.
    pub reason: &'static str,
    /// Its kind, and so its gRPC code.
    pub kind: Kind,
    /// The effect that it always has; `None` where it depends on the moment.
    pub effect: Option<Effect>,
    /// The metadata keys beside `effect` and `origin`, sorted. A fault carries all of them or, where marked `?`, may leave one out.
    pub metadata: &'static [&'static str],
    /// Never again, although others of its kind may be asked again.
    never_again: bool,
}

impl ReasonSpec {
    /// A reason that never changes anything and carries no metadata of its own.
    pub const fn new(reason: &'static str, kind: Kind) -> Self {
        Self { reason, kind, effect: Some(Effect::None), metadata: &[], never_again: false }
    }

    /// The same with metadata keys. A key that ends in `?` may be left out.
    #[must_use]
    pub const fn with(self, metadata: &'static [&'static str]) -> Self {
        Self { metadata, ..self }
    }

    /// The same where asking again would bring the same answer, whatever its kind says.
    #[must_use]
    pub const fn never_again(self) -> Self {
        Self { never_again: true, ..self }
    }

    /// What a caller may do again. The delay is the kind's; a fault names its own.
    pub fn retry(&self) -> Retry {
        if self.never_again { Retry::Never } else { self.kind.retry() }
    }

    /// The same where something may have changed: always (`Possible`).
    #[must_use]
    pub const fn possible(self) -> Self {
        Self { effect: Some(Effect::Possible), ..self }
    }

    /// The same where the effect depends on the moment at which it failed.
    #[must_use]
    pub const fn either_effect(self) -> Self {
        Self { effect: None, ..self }
    }
}

/// All reasons of a domain. Each service exports its own as `REASONS`; a test collects them, compares them with the proto enum and
/// with `docs/errors/TABLE.md`.
#[derive(Clone, Copy, Debug)]
pub struct ReasonTable {
    /// The domain, for example "payments.lastmile".
    pub domain: &'static str,
    /// Full name of the proto enum, for example "lastmile.payments.v1.ErrorReason".
    pub proto_enum: &'static str,
    /// The reasons, in the enum's order.
    pub reasons: &'static [ReasonSpec],
}

impl ReasonTable {
    /// Finds a reason.
    pub fn get(&self, reason: &str) -> Option<&'static ReasonSpec> {
        self.reasons.iter().find(|spec| spec.reason == reason)
    }

    /// Checks that a fault keeps to its row: domain, kind, effect, what may be done again, and metadata keys. For the tests of the crates that raise it.
    ///
    /// Errors: a sentence that says what differs.
    pub fn check(&self, fault: &dyn super::Fault) -> Result<(), String> {
        let reason = fault.reason();
        let Some(spec) = self.get(reason) else { return Err(format!("{reason}: not in the table of {}", self.domain)) };
        if fault.domain() != self.domain {
            return Err(format!("{reason}: domain {}, the table is {}", fault.domain(), self.domain));
        }
        if fault.kind() != spec.kind {
            return Err(format!("{reason}: kind {:?}, the table says {:?}", fault.kind(), spec.kind));
        }
        if spec.effect.is_some_and(|effect| effect != fault.effect()) {
            return Err(format!("{reason}: effect {}, the table says otherwise", fault.effect()));
        }
        if std::mem::discriminant(&spec.retry()) != std::mem::discriminant(&fault.retry()) {
            return Err(format!("{reason}: again {:?}, the table says {:?}", fault.retry(), spec.retry()));
        }
        let given: Vec<_> = fault.metadata().into_iter().map(|(key, _)| key).collect();
        for key in &given {
            if !spec.metadata.iter().any(|known| known.trim_end_matches('?') == *key) {
                return Err(format!("{reason}: metadata {key} is not in the table"));
            }
        }
        for key in spec.metadata {
            if !key.ends_with('?') && !given.contains(key) {
                return Err(format!("{reason}: metadata {key} is missing"));
            }
        }
        Ok(())
    }
}

/// The domain of reasons that any service gives.
pub const fn common_domain() -> &'static str {
    "common.lastmile"
}

/// The reasons that any service gives.
pub const COMMON: ReasonTable = ReasonTable {
    domain: common_domain(),
    proto_enum: "lastmile.common.v1.ErrorReason",
    reasons: &[
        ReasonSpec::new("INVALID_REQUEST", Kind::InvalidInput),
        ReasonSpec::new("UNAUTHENTICATED", Kind::Unauthenticated).with(&["check?"]),
        ReasonSpec::new("CALLER_NOT_ALLOWED", Kind::Forbidden).with(&["caller?", "method?"]),
        ReasonSpec::new("NOT_SERVED", Kind::Unsupported).with(&["method?"]),
        ReasonSpec::new("LIMIT_EXCEEDED", Kind::InvalidInput).with(&["limit", "max", "unit"]),
        ReasonSpec::new("DEADLINE_EXCEEDED", Kind::Deadline).either_effect(),
        ReasonSpec::new("OVERLOADED", Kind::Exhausted),
        ReasonSpec::new("PEER_UNAVAILABLE", Kind::Unavailable).with(&["peer"]).either_effect(),
        ReasonSpec::new("INTERNAL", Kind::Internal).possible(),
        ReasonSpec::new("REQUEST_ID_REUSED", Kind::RuleBroken),
        ReasonSpec::new("STORE_UNAVAILABLE", Kind::Unavailable).either_effect(),
    ],
};
