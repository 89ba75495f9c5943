//! The ways of a payment, and with what it is paid.

/// What every payment is about, fen.
pub(super) const AMOUNT: i64 = 20_000;

/// How a payment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// Paid, and given to the payee.
    Posted,
    /// The same, and then a part of it goes back, and another.
    PartsReturned,
    /// Paid, and all of it goes back, in one or in two parts.
    Returned(i64),
    /// Closed before it is paid.
    Closed,
    /// Closed, and the money comes after it.
    Late,
    /// Closed while it is being paid: one of the two comes first.
    Raced,
    /// Nobody pays, and its time runs out.
    Expired,
    /// Asked once: who gets no answer asks in the end what became of it.
    HungUp,
}

/// A way of a payment: what goes wrong for the channel's next call of an operation, and its end.
pub(super) type Way = (Option<(&'static str, &'static str)>, Ends);

pub(super) const WAYS: [Way; 20] = [
    (None, Ends::Posted),
    (None, Ends::Posted),
    (Some(("notify", "lost")), Ends::Posted),
    (None, Ends::Closed),
    (None, Ends::Returned(AMOUNT)),
    (None, Ends::PartsReturned),
    (Some(("notify", "doubled")), Ends::Posted),
    (None, Ends::HungUp),
    (Some(("order", "drop_after")), Ends::Posted),
    (Some(("refund", "drop_after")), Ends::Returned(AMOUNT)),
    (None, Ends::Raced),
    (Some(("notify", "late")), Ends::Posted),
    (None, Ends::Late),
    (Some(("notify", "forged")), Ends::Returned(AMOUNT / 2)),
    (Some(("close", "drop_after")), Ends::Closed),
    (None, Ends::Expired),
    (Some(("query", "drop_before")), Ends::Posted),
    (Some(("refund", "drop_before")), Ends::PartsReturned),
    (Some(("order", "drop_before")), Ends::Posted),
    (None, Ends::Posted),
];

/// With what the citizen pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum By {
    /// WeChat Pay, one order.
    WechatPay,
    /// WeChat Pay, one payment for the orders of two departments.
    Together,
    /// Alipay, asked by its gateway, with public keys.
    Alipay,
    /// Alipay, asked by REST, with certificates.
    AlipayRest,
}

pub(super) const BY: [By; 4] = [By::WechatPay, By::Together, By::Alipay, By::AlipayRest];

impl By {
    /// What a payment is paid with: over so many rounds of the ways as there are of these, each way is gone with each of them.
    pub(super) fn of(number: u32) -> Self {
        let (number, ways) = (number as usize, WAYS.len());
        BY.get((number + number / ways) % BY.len()).copied().unwrap_or(Self::WechatPay)
    }

    /// Its name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::WechatPay => "wechatpay",
            Self::Together => "wechatpay_combined",
            Self::Alipay => "alipay_v2",
            Self::AlipayRest => "alipay_v3",
        }
    }

    /// The channel.
    pub(super) fn channel(self) -> &'static str {
        match self {
            Self::WechatPay | Self::Together => "wechatpay",
            Self::Alipay | Self::AlipayRest => "alipay",
        }
    }

    /// The super app that has such a merchant account.
    pub(super) fn entry_point(self) -> &'static str {
        match self {
            Self::WechatPay | Self::Together => "wechat",
            Self::Alipay => "alipay",
            Self::AlipayRest => BY_REST,
        }
    }
}

/// The entry point of the account that is asked by REST.
pub(super) const BY_REST: &str = "alipay-rest";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_way_is_gone_with_everything_that_pays() {
        let met: BTreeSet<_> = (0..80).map(|number| (number as usize % WAYS.len(), By::of(number))).collect();
        assert_eq!(met.len(), WAYS.len() * BY.len());
    }
}
