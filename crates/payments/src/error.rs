//! What payments refuses, named by what the caller can do about it.

use std::time::Duration;

use rpc::{Details, Effect, Fault, Kind, Origin, ReasonSpec, ReasonTable, Retry, Violation};

use crate::channel::ChannelError;
use crate::domain::breaks::Refused;
use crate::domain::insurance::Broken;
use crate::domain::order::Rule;
use crate::domain::settlement;

/// The domain of payments' own reasons.
pub const DOMAIN: &str = "payments.lastmile";

/// Every reason of this domain, for the golden table.
pub const REASONS: ReasonTable = ReasonTable {
    domain: DOMAIN,
    proto_enum: "lastmile.payments.v1.ErrorReason",
    reasons: &[
        ReasonSpec::new("ORDER_NOT_FOUND", Kind::NotFound),
        ReasonSpec::new("REFUND_NOT_FOUND", Kind::NotFound),
        ReasonSpec::new("PAYEE_UNKNOWN", Kind::RuleBroken),
        ReasonSpec::new("MERCHANT_UNKNOWN", Kind::RuleBroken),
        ReasonSpec::new("CHANNEL_NOT_OFFERED", Kind::RuleBroken),
        ReasonSpec::new("CHANNEL_UNAVAILABLE", Kind::Unavailable).either_effect(),
        ReasonSpec::new("CHANNEL_REFUSED", Kind::RuleBroken).with(&["channelCode"]),
        ReasonSpec::new("ORDER_NOT_PAID", Kind::RuleBroken),
        ReasonSpec::new("ORDER_REFUNDING", Kind::RuleBroken),
        ReasonSpec::new("REFUND_EXCEEDS_CAPTURE", Kind::RuleBroken).with(&["capturedMinor", "refundedMinor"]),
        ReasonSpec::new("ORDER_POSTED", Kind::RuleBroken),
        ReasonSpec::new("ACCOUNT_NOT_FOUND", Kind::NotFound),
        ReasonSpec::new("ORDER_NOT_POSTED", Kind::RuleBroken),
        ReasonSpec::new("BREAK_NOT_FOUND", Kind::NotFound),
        ReasonSpec::new("BREAK_NOT_OPEN", Kind::RuleBroken),
        ReasonSpec::new("SAME_PERSON", Kind::RuleBroken),
        ReasonSpec::new("PARTS_APART", Kind::RuleBroken),
        ReasonSpec::new("INSURANCE_SPLIT_WRONG", Kind::RuleBroken).with(&["broken"]),
        ReasonSpec::new("REFUND_EXCEEDS_LEG", Kind::RuleBroken).with(&["askedMinor", "leg", "restMinor"]),
        ReasonSpec::new("SETTLEMENT_NOT_FOUND", Kind::NotFound),
        ReasonSpec::new("SETTLEMENT_NOT_SIGNED", Kind::RuleBroken),
        ReasonSpec::new("RECEIPT_NOT_FOUND", Kind::NotFound),
        ReasonSpec::new("RECEIPT_RESTS", Kind::Exhausted),
    ],
};

/// Why a call brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request breaks the contract.
    #[error("the request breaks the contract")]
    Invalid(Vec<Violation>),
    /// There is no such thing.
    #[error("no such {}", what.word())]
    NotFound {
        /// What was looked for.
        what: Thing,
        /// Under which name; never an identifier of a person.
        name: String,
    },
    /// The payee is not on the list.
    #[error("the payee is not on payments' list")]
    PayeeUnknown,
    /// No merchant account collects for (entry point, channel, payee).
    #[error("no merchant account for this entry point, channel and payee")]
    MerchantUnknown,
    /// The merchant accounts of the parts of a combined order are not of one app.
    #[error("the merchant accounts of the parts are not of one app")]
    PartsApart,
    /// Something is wrong with one part of a combined order.
    #[error("parts[{number}]: {error}")]
    Part {
        /// Which one, from 0.
        number: usize,
        /// What is wrong with it.
        error: Box<Error>,
    },
    /// The channel does not offer it.
    #[error("the channel does not offer it")]
    ChannelNotOffered,
    /// The split of a mixed order does not keep these identities.
    #[error("the split breaks {}", listed(.0))]
    SplitWrong(Vec<Broken>),
    /// The channel gave no usable answer.
    #[error("the channel gave no usable answer")]
    ChannelUnavailable {
        /// Whether it, or what was asked of us, may have had an effect.
        effect: Effect,
        /// What went wrong, where this call has met it itself.
        #[source]
        source: Option<ChannelError>,
    },
    /// The channel refused to create the order.
    #[error("the channel refused: {code}")]
    ChannelRefused {
        /// Its own code.
        code: String,
    },
    /// A rule of orders and refunds.
    #[error(transparent)]
    Rule(#[from] Rule),
    /// A rule of breaks.
    #[error(transparent)]
    Resolution(#[from] Refused),
    /// A rule of settlements.
    #[error(transparent)]
    Settlement(#[from] settlement::Refused),
    /// Too many wrong tries on a receipt's number.
    #[error("too many wrong tries on this receipt number")]
    ReceiptRests {
        /// When it can be asked again.
        after: Duration,
    },
    /// The key stands for another request.
    #[error("the request_id was used before with another request")]
    RequestIdReused,
    /// Other writers kept changing the same order.
    #[error("other calls kept changing the same order")]
    Raced,
    /// The store.
    #[error("the store did not do it")]
    Store {
        /// Whether something may have been kept.
        effect: Effect,
        /// What it said.
        #[source]
        source: store::Error,
    },
    /// The ledger refused what the rules allow: a bug.
    #[error("the ledger refuses an entry that the rules allow")]
    Ledger(#[source] crate::domain::ledger::LedgerError),
    /// A bug, or a broken installation.
    #[error("{0}")]
    Internal(&'static str),
}

/// What can be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// An order.
    Order,
    /// A refund.
    Refund,
    /// An account.
    Account,
    /// A break of reconciliation.
    Break,
    /// A settlement.
    Settlement,
    /// A receipt.
    Receipt,
}

impl Thing {
    fn word(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Refund => "refund",
            Self::Account => "account",
            Self::Break => "break",
            Self::Settlement => "settlement",
            Self::Receipt => "receipt",
        }
    }
}

impl Error {
    /// The same, where what was asked for may have happened already.
    #[must_use]
    pub(crate) fn possible(self) -> Self {
        match self {
            Self::Store { source, .. } => Self::Store { effect: Effect::Possible, source },
            Self::Raced => Self::ChannelUnavailable { effect: Effect::Possible, source: None },
            Self::ChannelUnavailable { source, .. } => Self::ChannelUnavailable { effect: Effect::Possible, source },
            other => other,
        }
    }

    /// The same, said of one part of a combined order, from 0; what is wrong with all of it stays as it is.
    #[must_use]
    pub(crate) fn of_part(self, number: usize) -> Self {
        match self {
            Self::Invalid(violations) => {
                let of_part = |violation: Violation| match violation.field.as_str() {
                    "channel" | "trade_type" | "entry_point" | "payer_reference" | "expire_time" => violation,
                    field => Violation::new(format!("parts[{number}].{field}"), violation.description),
                };
                Self::Invalid(violations.into_iter().map(of_part).collect())
            }
            Self::PayeeUnknown | Self::MerchantUnknown | Self::PartsApart | Self::RequestIdReused | Self::Rule(_) => {
                Self::Part { number, error: Box::new(self) }
            }
            other => other,
        }
    }

    /// One field that breaks the contract.
    pub(crate) fn field(field: &str, description: &str) -> Self {
        Self::Invalid(vec![Violation::new(field, description)])
    }
}

impl From<store::Error> for Error {
    fn from(source: store::Error) -> Self {
        let effect = if source.had_no_effect() { Effect::None } else { Effect::Possible };
        Self::Store { effect, source }
    }
}

impl From<crate::repo::ledger::BookError> for Error {
    fn from(error: crate::repo::ledger::BookError) -> Self {
        match error {
            crate::repo::ledger::BookError::Ledger(error) => Self::Ledger(error),
            crate::repo::ledger::BookError::Store(error) => error.into(),
        }
    }
}

fn listed(broken: &[Broken]) -> String {
    broken.iter().map(Broken::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether a failing store is one that will come back, or a bug of ours.
fn is_outage(error: &store::Error) -> bool {
    error.is_transient() || !error.had_no_effect()
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Part { error, .. } => error.kind(),
            Self::Invalid(_) => Kind::InvalidInput,
            Self::NotFound { .. } => Kind::NotFound,
            Self::PayeeUnknown
            | Self::MerchantUnknown
            | Self::PartsApart
            | Self::ChannelNotOffered
            | Self::ChannelRefused { .. }
            | Self::SplitWrong(_)
            | Self::Resolution(_)
            | Self::Settlement(settlement::Refused::NotSigned | settlement::Refused::SamePerson)
            | Self::RequestIdReused => Kind::RuleBroken,
            Self::ReceiptRests { .. } => Kind::Exhausted,
            Self::ChannelUnavailable { .. } | Self::Raced => Kind::Unavailable,
            Self::Rule(Rule::Differs(_) | Rule::Sums)
            | Self::Settlement(settlement::Refused::Sums)
            | Self::Ledger(_)
            | Self::Internal(_) => Kind::Internal,
            Self::Rule(
                Rule::NotPaid
                | Rule::Refunding
                | Rule::Posted
                | Rule::NotPosted
                | Rule::ExceedsCapture { .. }
                | Rule::ExceedsLeg { .. },
            ) => Kind::RuleBroken,
            Self::Rule(Rule::Legs) => Kind::InvalidInput,
            Self::Store { source, .. } if is_outage(source) => Kind::Unavailable,
            Self::Store { .. } => Kind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Part { error, .. } => error.reason(),
            Self::PartsApart => "PARTS_APART",
            Self::SplitWrong(_) => "INSURANCE_SPLIT_WRONG",
            Self::Invalid(_) | Self::Rule(Rule::Legs) => "INVALID_REQUEST",
            Self::NotFound { what: Thing::Order, .. } => "ORDER_NOT_FOUND",
            Self::NotFound { what: Thing::Refund, .. } => "REFUND_NOT_FOUND",
            Self::NotFound { what: Thing::Account, .. } => "ACCOUNT_NOT_FOUND",
            Self::NotFound { what: Thing::Break, .. } => "BREAK_NOT_FOUND",
            Self::NotFound { what: Thing::Settlement, .. } => "SETTLEMENT_NOT_FOUND",
            Self::NotFound { what: Thing::Receipt, .. } => "RECEIPT_NOT_FOUND",
            Self::ReceiptRests { .. } => "RECEIPT_RESTS",
            Self::PayeeUnknown => "PAYEE_UNKNOWN",
            Self::MerchantUnknown => "MERCHANT_UNKNOWN",
            Self::ChannelNotOffered => "CHANNEL_NOT_OFFERED",
            Self::ChannelUnavailable { .. } => "CHANNEL_UNAVAILABLE",
            Self::ChannelRefused { .. } => "CHANNEL_REFUSED",
            Self::Rule(Rule::NotPaid) => "ORDER_NOT_PAID",
            Self::Rule(Rule::Refunding) => "ORDER_REFUNDING",
            Self::Rule(Rule::Posted) => "ORDER_POSTED",
            Self::Rule(Rule::NotPosted) => "ORDER_NOT_POSTED",
            Self::Rule(Rule::ExceedsCapture { .. }) => "REFUND_EXCEEDS_CAPTURE",
            Self::Rule(Rule::ExceedsLeg { .. }) => "REFUND_EXCEEDS_LEG",
            Self::Resolution(Refused::NotOpen) => "BREAK_NOT_OPEN",
            Self::Resolution(Refused::SamePerson) | Self::Settlement(settlement::Refused::SamePerson) => "SAME_PERSON",
            Self::Settlement(settlement::Refused::NotSigned) => "SETTLEMENT_NOT_SIGNED",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::Raced => "STORE_UNAVAILABLE",
            Self::Store { source, .. } if is_outage(source) => "STORE_UNAVAILABLE",
            Self::Rule(Rule::Differs(_) | Rule::Sums)
            | Self::Settlement(settlement::Refused::Sums)
            | Self::Store { .. }
            | Self::Ledger(_)
            | Self::Internal(_) => "INTERNAL",
        }
    }

    fn domain(&self) -> &'static str {
        match self {
            Self::Part { error, .. } => error.domain(),
            Self::Invalid(_)
            | Self::RequestIdReused
            | Self::Raced
            | Self::Store { .. }
            | Self::Rule(Rule::Differs(_) | Rule::Sums | Rule::Legs)
            | Self::Settlement(settlement::Refused::Sums)
            | Self::Ledger(_)
            | Self::Internal(_) => rpc::COMMON.domain,
            Self::NotFound { .. }
            | Self::PayeeUnknown
            | Self::MerchantUnknown
            | Self::PartsApart
            | Self::ChannelNotOffered
            | Self::ChannelUnavailable { .. }
            | Self::ChannelRefused { .. }
            | Self::SplitWrong(_)
            | Self::Resolution(_)
            | Self::Settlement(_)
            | Self::ReceiptRests { .. }
            | Self::Rule(_) => DOMAIN,
        }
    }

    fn effect(&self) -> Effect {
        match self {
            Self::Part { error, .. } => error.effect(),
            Self::Invalid(_)
            | Self::NotFound { .. }
            | Self::PayeeUnknown
            | Self::MerchantUnknown
            | Self::PartsApart
            | Self::ChannelNotOffered
            | Self::ChannelRefused { .. }
            | Self::ReceiptRests { .. }
            | Self::SplitWrong(_)
            | Self::Resolution(_)
            | Self::Settlement(settlement::Refused::NotSigned | settlement::Refused::SamePerson)
            | Self::RequestIdReused
            | Self::Raced
            | Self::Rule(
                Rule::NotPaid
                | Rule::Refunding
                | Rule::Posted
                | Rule::NotPosted
                | Rule::ExceedsCapture { .. }
                | Rule::ExceedsLeg { .. }
                | Rule::Legs,
            ) => Effect::None,
            Self::ChannelUnavailable { effect, .. } => *effect,
            Self::Store { effect, source } if is_outage(source) => *effect,
            // A bug proves nothing.
            Self::Store { .. }
            | Self::Rule(Rule::Differs(_) | Rule::Sums)
            | Self::Settlement(settlement::Refused::Sums)
            | Self::Ledger(_)
            | Self::Internal(_) => Effect::Possible,
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Part { error, .. } => error.metadata(),
            Self::ChannelRefused { code } => vec![("channelCode", code.clone())],
            Self::SplitWrong(broken) => vec![("broken", listed(broken))],
            Self::Rule(Rule::ExceedsLeg { leg, asked, rest }) => {
                vec![("leg", leg.to_string()), ("askedMinor", asked.to_string()), ("restMinor", rest.to_string())]
            }
            Self::Rule(Rule::ExceedsCapture { captured, refunded }) => {
                vec![("capturedMinor", captured.to_string()), ("refundedMinor", refunded.to_string())]
            }
            Self::Invalid(_)
            | Self::NotFound { .. }
            | Self::PayeeUnknown
            | Self::MerchantUnknown
            | Self::PartsApart
            | Self::ChannelNotOffered
            | Self::ChannelUnavailable { .. }
            | Self::ReceiptRests { .. }
            | Self::Rule(_)
            | Self::Resolution(_)
            | Self::Settlement(_)
            | Self::RequestIdReused
            | Self::Raced
            | Self::Store { .. }
            | Self::Ledger(_)
            | Self::Internal(_) => Vec::new(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::ReceiptRests { after } => Retry::After(*after),
            other => other.kind().retry(),
        }
    }

    fn origin(&self) -> Origin {
        match self {
            Self::ChannelUnavailable { .. } | Self::ChannelRefused { .. } => Origin::Department,
            other => other.kind().origin(),
        }
    }

    fn details(&self) -> Details {
        match self {
            Self::Invalid(violations) => Details { violations: violations.clone(), ..Details::default() },
            Self::NotFound { what, name } => {
                Details { resource: Some((what.word(), name.clone())), ..Details::default() }
            }
            Self::Part { number, error } => {
                let field = if matches!(**error, Self::RequestIdReused) { "request_id" } else { "payee_id" };
                Details { subject: Some(format!("parts[{number}].{field}")), ..error.details() }
            }
            Self::PayeeUnknown | Self::MerchantUnknown | Self::PartsApart => {
                Details { subject: Some("payee".to_owned()), ..Details::default() }
            }
            Self::ChannelNotOffered | Self::ChannelRefused { .. } => {
                Details { subject: Some("channel".to_owned()), ..Details::default() }
            }
            Self::SplitWrong(_) => Details { subject: Some("insurance.split".to_owned()), ..Details::default() },
            Self::Rule(Rule::Legs) => Self::field("legs", "must be set for a mixed order, and for it alone").details(),
            Self::Rule(_) => Details { subject: Some("order".to_owned()), ..Details::default() },
            Self::Settlement(_) => Details { subject: Some("settlement".to_owned()), ..Details::default() },
            Self::Resolution(_) => Details { subject: Some("break".to_owned()), ..Details::default() },
            Self::ReceiptRests { .. } => Details { subject: Some("receipt".to_owned()), ..Details::default() },
            Self::RequestIdReused => Details { subject: Some("request_id".to_owned()), ..Details::default() },
            Self::ChannelUnavailable { .. }
            | Self::Raced
            | Self::Store { .. }
            | Self::Ledger(_)
            | Self::Internal(_) => Details::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::insurance::{Identity, Leg};

    fn all() -> Vec<Error> {
        let outage = || store::Error::Unavailable { what: "a connection", source: None };
        vec![
            Error::field("amount", "is missing"),
            Error::NotFound { what: Thing::Order, name: "ord_0".into() },
            Error::NotFound { what: Thing::Refund, name: "rfd_0".into() },
            Error::NotFound { what: Thing::Account, name: "payee/x".into() },
            Error::NotFound { what: Thing::Break, name: "brk_0".into() },
            Error::NotFound { what: Thing::Settlement, name: "stl_0".into() },
            Error::Settlement(settlement::Refused::NotSigned),
            Error::Settlement(settlement::Refused::SamePerson),
            Error::Settlement(settlement::Refused::Sums),
            Error::NotFound { what: Thing::Receipt, name: "43010126/0000000001".into() },
            Error::ReceiptRests { after: Duration::from_secs(60) },
            Error::Resolution(Refused::NotOpen),
            Error::Resolution(Refused::SamePerson),
            Error::PayeeUnknown,
            Error::MerchantUnknown,
            Error::PartsApart.of_part(1),
            Error::SplitWrong(vec![Broken { identity: Identity::Cash, left: 2, right: 1 }]),
            Error::Rule(Rule::ExceedsLeg { leg: Leg::Personal, asked: 2, rest: 1 }),
            Error::Rule(Rule::Legs),
            Error::RequestIdReused.of_part(0),
            Error::ChannelNotOffered,
            Error::ChannelUnavailable { effect: Effect::Possible, source: None },
            Error::ChannelRefused { code: "PARAM_ERROR".into() },
            Error::Rule(Rule::NotPaid),
            Error::Rule(Rule::Refunding),
            Error::Rule(Rule::Posted),
            Error::Rule(Rule::NotPosted),
            Error::Rule(Rule::ExceedsCapture { captured: 2, refunded: 1 }),
            Error::Rule(Rule::Differs("amount")),
            Error::Rule(Rule::Sums),
            Error::RequestIdReused,
            Error::Raced,
            outage().into(),
            store::Error::CommitUnknown { source: None }.into(),
            store::Error::Failed.into(),
            Error::Ledger(crate::domain::ledger::LedgerError::Floor),
            Error::Internal("x"),
        ]
    }

    #[test]
    fn every_error_keeps_to_its_row_of_the_table() {
        for error in all() {
            let table = if error.domain() == DOMAIN { REASONS } else { rpc::COMMON };
            assert_eq!(table.check(&error), Ok(()));
        }
    }

    #[test]
    fn every_reason_of_the_contract_is_raised() {
        let raised: Vec<_> =
            all().iter().filter(|error| error.domain() == DOMAIN).map(|error| error.reason()).collect();
        for spec in REASONS.reasons {
            assert!(raised.contains(&spec.reason), "{}", spec.reason);
        }
        // Numbers may be left out.
        let named = (1..1_000)
            .filter_map(|number| contracts::payments::v1::ErrorReason::try_from(number).ok())
            .map(|reason| reason.as_str_name().trim_start_matches("ERROR_REASON_").to_owned());
        assert!(named.eq(REASONS.reasons.iter().map(|spec| spec.reason.to_owned())));
    }

    #[test]
    fn an_answer_to_a_commit_that_was_lost_is_no_proof_of_nothing() {
        assert_eq!(Error::from(store::Error::CommitUnknown { source: None }).effect(), Effect::Possible);
        assert_eq!(Error::from(store::Error::Contention { source: None }).effect(), Effect::None);
        assert_eq!(Error::from(store::Error::Contention { source: None }).possible().effect(), Effect::Possible);
        assert_eq!(Error::Raced.possible().effect(), Effect::Possible);
    }
}
