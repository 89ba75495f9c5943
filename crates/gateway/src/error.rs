//! What the gateway refuses itself. Every refusal is decided before a byte goes upstream: its effect is NONE.

use std::time::Duration;

use rpc::{Details, Effect, Fault, Kind, ReasonSpec, ReasonTable, Retry, Violation};

use crate::peek::PeekError;

/// Errors of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such method on the public listener.
    #[error("no such method on this listener")]
    MethodUnknown,
    /// In the contract, not served yet.
    #[error("the method is in the contract and not served yet")]
    NotServed,
    /// A header that cannot be read.
    #[error("the request breaks the contract")]
    Invalid(Violation),
    /// The envelope cannot be read.
    #[error("the envelope cannot be read: {0}")]
    Envelope(PeekError),
    /// No credential, or one that does not verify.
    #[error("the credential does not verify")]
    Unauthenticated {
        /// The first check that failed.
        check: &'static str,
    },
    /// The credential is not of the kind that the method needs.
    #[error("this credential may not call this method")]
    CallerNotAllowed {
        /// Kind of caller.
        caller: &'static str,
    },
    /// The region is not in the tree.
    #[error("the region is not in the tree")]
    RegionUnknown,
    /// The item is not listed for the region and entry point.
    #[error("the item is not listed for this region and entry point")]
    ItemNotListed,
    /// Listed, and no adapter is connected.
    #[error("the item is listed here and no adapter is connected yet")]
    NoAdapter,
    /// Listed, and not at this depth.
    #[error("the item is not offered at this depth here")]
    DepthNotOffered {
        /// The depth that is offered.
        depth: &'static str,
    },
    /// The citizen's level is below the item's.
    #[error("the citizen's assurance level is below the item's")]
    LevelTooLow {
        /// The item's least level.
        level_min: &'static str,
    },
    /// A consent is missing.
    #[error("a consent that the item needs is missing")]
    ConsentMissing {
        /// What to ask the citizen for.
        purpose: String,
    },
    /// The token was not issued for the profile.
    #[error("the token was not issued for the item's profile")]
    AudienceMissing {
        /// The audience to name in the token exchange.
        profile: String,
    },
    /// The quota is used up.
    #[error("the quota of this entry point for this item is used up")]
    QuotaExceeded {
        /// The entry point.
        entry_point: String,
        /// When there is room again.
        after: Duration,
    },
    /// No snapshot or keys yet.
    #[error("the gateway has no routes or keys yet")]
    NotReady,
    /// The profile's share of this gateway is in use.
    #[error("the department already serves as many calls as it may")]
    ProfileBusy,
    /// A limit was passed.
    #[error("the request passes a limit")]
    Limit {
        /// Name of the limit.
        limit: &'static str,
        /// Its value.
        max: u64,
        /// Its unit.
        unit: &'static str,
    },
    /// The deadline passed while the request was still coming in.
    #[error("the deadline passed before the request was complete")]
    Deadline,
}

/// The reasons of the domain.
pub const REASONS: ReasonTable = ReasonTable {
    domain: "gateway.lastmile",
    proto_enum: "lastmile.gateway.v1.ErrorReason",
    reasons: &[
        ReasonSpec::new("METHOD_UNKNOWN", Kind::Unsupported),
        ReasonSpec::new("ENVELOPE_INVALID", Kind::InvalidInput).with(&["check"]),
        ReasonSpec::new("LEVEL_TOO_LOW", Kind::Forbidden).with(&["levelMin"]),
        ReasonSpec::new("CONSENT_MISSING", Kind::Forbidden).with(&["purpose"]),
        ReasonSpec::new("AUDIENCE_MISSING", Kind::Forbidden).with(&["profile"]),
        ReasonSpec::new("QUOTA_EXCEEDED", Kind::Exhausted),
        ReasonSpec::new("NOT_READY", Kind::Unavailable),
        ReasonSpec::new("PROFILE_BUSY", Kind::Exhausted),
    ],
};

/// The catalogue's domain: the gateway refuses in its words what the catalogue does not offer.
const CATALOG: &str = "catalog.lastmile";

impl Refusal {
    /// Domain, reason and kind in one place.
    fn identity(&self) -> (&'static str, &'static str, Kind) {
        let own = REASONS.domain;
        let common = rpc::COMMON.domain;
        match self {
            Self::MethodUnknown => (own, "METHOD_UNKNOWN", Kind::Unsupported),
            Self::NotServed => (common, "NOT_SERVED", Kind::Unsupported),
            Self::Invalid(_) => (common, "INVALID_REQUEST", Kind::InvalidInput),
            Self::Envelope(_) => (own, "ENVELOPE_INVALID", Kind::InvalidInput),
            Self::Unauthenticated { .. } => (common, "UNAUTHENTICATED", Kind::Unauthenticated),
            Self::CallerNotAllowed { .. } => (common, "CALLER_NOT_ALLOWED", Kind::Forbidden),
            Self::RegionUnknown => (CATALOG, "REGION_UNKNOWN", Kind::NotFound),
            Self::ItemNotListed => (CATALOG, "ITEM_NOT_LISTED", Kind::NotFound),
            Self::NoAdapter => (CATALOG, "NO_ADAPTER", Kind::RuleBroken),
            Self::DepthNotOffered { .. } => (CATALOG, "DEPTH_NOT_OFFERED", Kind::RuleBroken),
            Self::LevelTooLow { .. } => (own, "LEVEL_TOO_LOW", Kind::Forbidden),
            Self::ConsentMissing { .. } => (own, "CONSENT_MISSING", Kind::Forbidden),
            Self::AudienceMissing { .. } => (own, "AUDIENCE_MISSING", Kind::Forbidden),
            Self::QuotaExceeded { .. } => (own, "QUOTA_EXCEEDED", Kind::Exhausted),
            Self::NotReady => (own, "NOT_READY", Kind::Unavailable),
            Self::ProfileBusy => (own, "PROFILE_BUSY", Kind::Exhausted),
            Self::Limit { .. } => (common, "LIMIT_EXCEEDED", Kind::InvalidInput),
            Self::Deadline => (common, "DEADLINE_EXCEEDED", Kind::Deadline),
        }
    }
}

impl Fault for Refusal {
    fn kind(&self) -> Kind {
        self.identity().2
    }

    fn reason(&self) -> &'static str {
        self.identity().1
    }

    fn domain(&self) -> &'static str {
        self.identity().0
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Envelope(check) => vec![("check", check.to_string())],
            Self::Unauthenticated { check } => vec![("check", (*check).to_owned())],
            Self::CallerNotAllowed { caller } => vec![("caller", (*caller).to_owned())],
            Self::DepthNotOffered { depth } => vec![("depth", (*depth).to_owned())],
            Self::LevelTooLow { level_min } => vec![("levelMin", (*level_min).to_owned())],
            Self::ConsentMissing { purpose } => vec![("purpose", purpose.clone())],
            Self::AudienceMissing { profile } => vec![("profile", profile.clone())],
            Self::Limit { limit, max, unit } => {
                vec![("limit", (*limit).to_owned()), ("max", max.to_string()), ("unit", (*unit).to_owned())]
            }
            Self::MethodUnknown
            | Self::NotServed
            | Self::Invalid(_)
            | Self::RegionUnknown
            | Self::ItemNotListed
            | Self::NoAdapter
            | Self::QuotaExceeded { .. }
            | Self::NotReady
            | Self::ProfileBusy
            | Self::Deadline => Vec::new(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::QuotaExceeded { after, .. } => Retry::After(*after),
            Self::ProfileBusy => Retry::After(Duration::from_millis(100)),
            _ => self.kind().retry(),
        }
    }

    fn details(&self) -> Details {
        let mut details = Details::default();
        match self {
            Self::QuotaExceeded { entry_point, .. } => details.subject = Some(format!("entry_point:{entry_point}")),
            Self::ItemNotListed => details.resource = Some(("item", String::new())),
            Self::RegionUnknown => details.resource = Some(("region", String::new())),
            Self::Invalid(violation) => details.violations = vec![violation.clone()],
            _ => {}
        }
        details
    }
}
