//! What the catalogue refuses.

use rpc::{Details, Effect, Fault, Kind, ReasonSpec, ReasonTable, Violation};

/// Errors of the catalogue. None of them ever has an effect.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request breaks the contract.
    #[error("the request breaks the contract")]
    Invalid(Vec<Violation>),
    /// Neither the region nor one above it lists the item for the entry point.
    #[error("the item is not listed for this region and entry point")]
    ItemNotListed,
    /// The region is not in the tree.
    #[error("the region is not in the tree")]
    RegionUnknown,
}

/// The reasons of the domain.
pub const REASONS: ReasonTable = ReasonTable {
    domain: "catalog.lastmile",
    proto_enum: "lastmile.catalog.v1.ErrorReason",
    reasons: &[
        ReasonSpec::new("ITEM_NOT_LISTED", Kind::NotFound),
        ReasonSpec::new("NO_ADAPTER", Kind::RuleBroken),
        ReasonSpec::new("REGION_UNKNOWN", Kind::NotFound),
        ReasonSpec::new("DEPTH_NOT_OFFERED", Kind::RuleBroken).with(&["depth"]),
    ],
};

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) => Kind::InvalidInput,
            Self::ItemNotListed | Self::RegionUnknown => Kind::NotFound,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::ItemNotListed => "ITEM_NOT_LISTED",
            Self::RegionUnknown => "REGION_UNKNOWN",
        }
    }

    fn domain(&self) -> &'static str {
        match self {
            Self::Invalid(_) => rpc::COMMON.domain,
            Self::ItemNotListed | Self::RegionUnknown => REASONS.domain,
        }
    }

    fn effect(&self) -> Effect {
        match self {
            Self::Invalid(_) | Self::ItemNotListed | Self::RegionUnknown => Effect::None,
        }
    }

    fn details(&self) -> Details {
        match self {
            Self::Invalid(violations) => Details { violations: violations.clone(), ..Details::default() },
            Self::ItemNotListed => Details { resource: Some(("item", String::new())), ..Details::default() },
            Self::RegionUnknown => Details { resource: Some(("region", String::new())), ..Details::default() },
        }
    }
}
