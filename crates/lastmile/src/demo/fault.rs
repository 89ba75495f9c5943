//! What can go wrong in the demonstration, and how it must end all the same.

use clap::ValueEnum;
use serde_json::{Value, json};

use super::City;
use super::outside::Staged;

/// A fault of the world outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// The fine changes after the citizen read it: rejected, nothing is paid
    AmountChanged,
    /// The citizen contests the record after reading it: rejected, nothing is paid
    RecordDisputed,
    /// The citizen changes their mind: cancelled, once the channel says that the order is closed
    NotPaid,
    /// The record is contested after the payment, and the police refuse it: the money goes back
    RefusedAfterPayment,
    /// The police take the payment and never answer: found out by inquiry, done
    DepartmentSilent,
    /// The connection breaks before the police get the payment: inquiry, the quiet period, sent again, done
    PaymentLost,
    /// The police take the payment and the answer is cut inside a character: inquiry, done
    ReplyGarbled,
    /// The police are closed when the payment comes: sent later, done
    DepartmentClosed,
    /// The police take the payment and clear the points later: done only then
    PointsLater,
    /// The channel never calls back: the payment is found by asking, done
    CallbackLost,
    /// The channel calls back twice: counted once, done
    CallbackDoubled,
    /// Somebody forges a callback with another amount: refused, the true one counts, done
    CallbackForged,
    /// The channel takes three seconds to make the order: done
    ChannelSlow,
    /// The channel makes the order and never answers: asked for under its number, done
    ChannelSilent,
}

/// What the citizen does when the order waits for payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Citizen {
    Pays,
    Cancels,
}

/// How a case must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The department did it; the points are cleared.
    Done,
    /// The money is back; the points stand.
    Refunded,
    /// Refused before payment, with this code; nothing was paid.
    Rejected(&'static [&'static str]),
    /// Cancelled; nothing was paid.
    Cancelled,
}

impl Fault {
    /// What is staged in the sandbox before anything begins.
    pub(crate) fn staged(self, city: &City) -> Option<Staged> {
        let at = |system, operation, fault, times| Staged { system, operation, fault, times, delay: None };
        match self {
            Self::AmountChanged | Self::RecordDisputed | Self::NotPaid | Self::RefusedAfterPayment => None,
            Self::DepartmentSilent => Some(at(city.system, "pay", "drop_after", 1)),
            Self::PaymentLost => Some(at(city.system, "pay", "drop_before", 1)),
            Self::ReplyGarbled => Some(at(city.system, "pay", "garble_cut", 1)),
            Self::DepartmentClosed => Some(at(city.system, "pay", "closed", 2)),
            Self::PointsLater => None,
            Self::CallbackLost => Some(at("wechatpay", "notify", "lost", 100)),
            Self::CallbackDoubled => Some(at("wechatpay", "notify", "doubled", 1)),
            Self::CallbackForged => Some(at("wechatpay", "notify", "forged", 1)),
            Self::ChannelSlow => Some(Staged { delay: Some("3s"), ..at("wechatpay", "order", "slow", 1) }),
            Self::ChannelSilent => Some(at("wechatpay", "order", "drop_after", 1)),
        }
    }

    /// What an officer does after the citizen read the record, before the case is opened.
    pub(crate) fn after_reading(self) -> Option<Value> {
        match self {
            Self::AmountChanged => Some(json!({ "action": "set_fine", "fine_minor": 99_900 })),
            Self::RecordDisputed => Some(json!({ "action": "dispute" })),
            _ => None,
        }
    }

    /// What an officer does while the case waits for payment.
    pub(crate) fn while_waiting(self) -> Option<Value> {
        (self == Self::RefusedAfterPayment).then(|| json!({ "action": "dispute" }))
    }

    /// The magic citizens who have this fault built in, as the first three digits of their number.
    pub(crate) fn magic(self) -> Option<u32> {
        (self == Self::PointsLater).then_some(8)
    }

    pub(crate) fn citizen(self) -> Citizen {
        if self == Self::NotPaid { Citizen::Cancels } else { Citizen::Pays }
    }

    pub(crate) fn end(self) -> End {
        match self {
            Self::AmountChanged => End::Rejected(&["RECORD_CHANGED", "AMOUNT_CHANGED"]),
            Self::RecordDisputed => End::Rejected(&["RECORD_CHANGED", "RECORD_DISPUTED"]),
            Self::NotPaid => End::Cancelled,
            Self::RefusedAfterPayment => End::Refunded,
            Self::DepartmentSilent
            | Self::PaymentLost
            | Self::ReplyGarbled
            | Self::DepartmentClosed
            | Self::PointsLater
            | Self::CallbackLost
            | Self::CallbackDoubled
            | Self::CallbackForged
            | Self::ChannelSlow
            | Self::ChannelSilent => End::Done,
        }
    }

    /// The name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The sentence of `--help`.
    pub(crate) fn story(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_story_and_something_that_happens() {
        for fault in Fault::value_variants() {
            assert!(fault.story().contains(':'), "{} does not say how it ends", fault.name());
            let happens = fault.staged(&super::super::CHANGSHA).is_some()
                || fault.after_reading().is_some()
                || fault.while_waiting().is_some()
                || fault.magic().is_some()
                || fault.citizen() == Citizen::Cancels;
            assert!(happens, "{} stages nothing", fault.name());
        }
    }
}
