//! The ways of a payment.

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
