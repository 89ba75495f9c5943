//! The names under which closed sets stand in the store. A name that was ever written never changes its meaning.

use crate::domain::{Action, Decision, Ending, Idempotency, Kind, State, Step};

/// A value of a closed set, as it is stored.
pub(crate) trait Code: Copy + Sized + 'static {
    /// Every value with its name.
    const NAMES: &'static [(Self, &'static str)];

    /// The name of this value.
    fn code(self) -> &'static str;

    /// The value of a name.
    fn of(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
    }
}

macro_rules! codes {
    ($($set:ident { $($value:ident = $name:literal),+ $(,)? })+) => {$(
        impl Code for $set {
            const NAMES: &'static [(Self, &'static str)] = &[$((Self::$value, $name)),+];

            fn code(self) -> &'static str {
                match self {
                    $(Self::$value => $name),+
                }
            }
        }
    )+};
}

/// How the citizen pays, as `lastmile.payments.v1.TradeType` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TradeType {
    /// Inside the super app.
    Jsapi,
    /// A QR code.
    Native,
    /// In a native app.
    App,
    /// In a phone's browser.
    H5,
    /// In a desktop browser.
    Web,
}

codes! {
    Kind { Pay = "PAY", LateMoney = "LATE_MONEY" }
    State {
        Accepted = "ACCEPTED",
        Confirming = "CONFIRMING",
        WaitingPayment = "WAITING_PAYMENT",
        Paid = "PAID",
        Sent = "SENT",
        Done = "DONE",
        Rejected = "REJECTED",
        Expired = "EXPIRED",
        Cancelled = "CANCELLED",
        Refunding = "REFUNDING",
        Refunded = "REFUNDED",
        Unknown = "UNKNOWN",
        NeedsClerk = "NEEDS_CLERK",
    }
    Step {
        Lock = "LOCK",
        Order = "ORDER",
        Payment = "PAYMENT",
        Close = "CLOSE",
        Settle = "SETTLE",
        Post = "POST",
        Refund = "REFUND",
        Release = "RELEASE",
    }
    Action {
        Lock = "LOCK",
        CreateOrder = "CREATE_ORDER",
        FindOrder = "FIND_ORDER",
        RefreshOrder = "REFRESH_ORDER",
        CloseOrder = "CLOSE_ORDER",
        Release = "RELEASE",
        Settle = "SETTLE",
        InquireSettle = "INQUIRE_SETTLE",
        Post = "POST",
        Refund = "REFUND",
        FindRefund = "FIND_REFUND",
    }
    Ending { Rejected = "REJECTED", Expired = "EXPIRED", Cancelled = "CANCELLED" }
    Idempotency { Key = "KEY", ByBill = "BY_BILL", None = "NONE" }
    Decision { DepartmentDidIt = "DEPARTMENT_DID_IT", SendAgain = "SEND_AGAIN", Refund = "REFUND" }
    TradeType { Jsapi = "JSAPI", Native = "NATIVE", App = "APP", H5 = "H5", Web = "WEB" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trips<T: Code + PartialEq + std::fmt::Debug>() {
        for (value, name) in T::NAMES {
            assert_eq!((T::of(name), value.code()), (Some(*value), *name));
        }
        assert_eq!(T::of("?"), None);
    }

    #[test]
    fn every_name_reads_back() {
        round_trips::<Kind>();
        round_trips::<State>();
        round_trips::<Step>();
        round_trips::<Action>();
        round_trips::<Ending>();
        round_trips::<Idempotency>();
        round_trips::<Decision>();
        round_trips::<TradeType>();
        assert_eq!(State::NAMES.len(), State::ALL.len());
        assert_eq!(Step::NAMES.len(), Step::ALL.len());
        assert_eq!(Action::NAMES.len(), Action::ALL.len());
    }
}
