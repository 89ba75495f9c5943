//! A refund: captured money on its way back.
//!
//! Accepting one reserves its amount, out of the order's suspense account or, after settlement, out of what is the payee's, so that no
//! interleaving of refunds and postings can give more back than came in. The channel's verdict posts or voids the reservation; one that
//! has not reached the channel by its end is voided.

use std::fmt;
use std::str::FromStr;

use contracts::ids::{OrderId, RefundId};
use contracts::money::Money;
use runtime::Timestamp;

use super::ledger::{Account, Entry, Transfer, TransferId, Verdict};
use super::order::{BadWord, Change, Happening, Order, Rule, State as OrderState, Tally};

/// Where a refund stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Accepted here, not known to be at the channel.
    Requested,
    /// At the channel, not decided.
    Processing,
    /// The money went back.
    Succeeded,
    /// The channel refused or closed it.
    Failed,
}

const STATES: [(State, &str); 4] = [
    (State::Requested, "requested"),
    (State::Processing, "processing"),
    (State::Succeeded, "succeeded"),
    (State::Failed, "failed"),
];

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = STATES.iter().find(|(state, _)| state == self).map(|(_, word)| *word);
        f.write_str(word.unwrap_or_default())
    }
}

impl FromStr for State {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        STATES.iter().find(|(_, word)| *word == text).map(|(state, _)| *state).ok_or(BadWord)
    }
}

/// A refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// Id.
    pub id: RefundId,
    /// The order it returns money of.
    pub order: OrderId,
    /// Who asked for it: the scope of `request_id`.
    pub caller: String,
    /// The key it was made under.
    pub request_id: String,
    /// What goes back.
    pub amount: Money,
    /// Why, for the channel and the citizen.
    pub reason: String,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Until when it can be sent for the first time.
    pub send_by: Timestamp,
    /// The money was the payee's already, who gives it back.
    pub is_after_settlement: bool,
    /// Counts the changes.
    pub version: i64,
    /// Where it stands.
    pub state: State,
    /// The channel may have heard of it.
    pub is_sent: bool,
    /// The channel's number of it.
    pub channel_refund: Option<String>,
    /// When the money went back.
    pub success_at: Option<Timestamp>,
    /// The channel's code or word for its refusal.
    pub refusal: Option<String>,
}

/// How the channel decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The money went back.
    Succeeded {
        /// The channel's number of the refund.
        channel_refund: String,
        /// When.
        at: Timestamp,
    },
    /// It will not.
    Failed {
        /// The channel's code or word.
        code: String,
    },
}

/// What a step of a refund does: to it, and to its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The refund as it will stand, version not yet counted up.
    pub refund: Refund,
    /// The order's side; None where it stays as it is.
    pub change: Option<Change>,
}

impl Refund {
    /// Whether the channel still has to be asked about it.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Requested | State::Processing)
    }

    /// The number that the channel knows it by.
    pub fn channel_refund_no(&self) -> String {
        format!("{:032x}", self.id.bits())
    }

    /// Notes that the channel may hear of it from now on.
    pub fn sending(&self) -> Option<Self> {
        (self.state == State::Requested && !self.is_sent).then(|| Self { is_sent: true, ..self.clone() })
    }

    /// Notes that the only attempt so far did not reach the channel.
    pub fn unsent(&self) -> Option<Self> {
        (self.state == State::Requested && self.is_sent).then(|| Self { is_sent: false, ..self.clone() })
    }

    /// The channel has it and has not decided.
    pub fn processing(&self, channel_refund: Option<String>) -> Option<Self> {
        (self.state == State::Requested).then(|| Self { state: State::Processing, channel_refund, ..self.clone() })
    }

    pub(super) fn reservation(&self, order: &Order) -> Transfer {
        Transfer {
            id: TransferId::refund(self.id),
            order: self.order,
            debit: if self.is_after_settlement {
                Account::Payee(order.terms.payee_id.clone())
            } else {
                order.suspense()
            },
            credit: Account::Refunds(order.terms.merchant.clone()),
            amount: self.amount,
        }
    }

    pub(super) fn payout(&self, order: &Order) -> Transfer {
        Transfer {
            id: TransferId::payout(self.id),
            order: self.order,
            debit: Account::Refunds(order.terms.merchant.clone()),
            credit: Account::Receivable(order.terms.merchant.clone()),
            amount: self.amount,
        }
    }
}

/// Accepts a refund.
///
/// Errors: NotPaid; Posted when the money is the payee's and the refund is not one after settlement, NotPosted in the reverse case;
/// ExceedsCapture; Differs when the currency is another.
pub fn accept(order: &Order, refund: &Refund) -> Result<Change, Rule> {
    if refund.amount.currency() != order.terms.amount.currency() {
        return Err(Rule::Differs("currency"));
    }
    match order.state {
        OrderState::Paid | OrderState::Posted | OrderState::Refunding | OrderState::Refunded => {}
        OrderState::Closed if order.is_late => {}
        OrderState::Creating | OrderState::Waiting | OrderState::Closed | OrderState::Refused => {
            return Err(Rule::NotPaid);
        }
    }
    match (order.is_posted(), refund.is_after_settlement) {
        (true, false) => return Err(Rule::Posted),
        (false, true) => return Err(Rule::NotPosted),
        (true, true) | (false, false) => {}
    }
    let amount = refund.amount.amount_minor();
    let free = order.tally.free().ok_or(Rule::Sums)?;
    let most = if refund.is_after_settlement { order.tally.posted } else { free };
    if amount <= 0 || amount > most {
        return Err(Rule::ExceedsCapture { captured: order.tally.captured, refunded: order.tally.given_back() });
    }
    let posted = if refund.is_after_settlement { most.checked_sub(amount) } else { Some(order.tally.posted) };
    let posted = posted.ok_or(Rule::Sums)?;
    let refunding = order.tally.refunding.checked_add(amount).ok_or(Rule::Sums)?;
    let tally = Tally { refunding, posted, ..order.tally };
    let next = Order { state: order.resting(tally), tally, ..order.clone() };
    Ok(next.with(vec![Entry::Reserve(refund.reservation(order), refund.send_by)], vec![]))
}

/// Books the channel's verdict; None when it was booked before.
///
/// Errors: Differs when the channel first said one thing and then the other; Sums.
pub fn decide(order: &Order, refund: &Refund, decision: &Decision) -> Result<Option<Decided>, Rule> {
    match (refund.state, decision) {
        (State::Requested | State::Processing, _) => {}
        (State::Succeeded, Decision::Succeeded { .. }) | (State::Failed, Decision::Failed { .. }) => return Ok(None),
        (State::Succeeded | State::Failed, _) => return Err(Rule::Differs("refund status")),
    }
    let amount = refund.amount.amount_minor();
    let refunding = order.tally.refunding.checked_sub(amount).filter(|sum| *sum >= 0).ok_or(Rule::Sums)?;
    let mut tally = Tally { refunding, ..order.tally };
    let reservation = refund.reservation(order);
    let (refund, entries, happening) = match decision {
        Decision::Succeeded { channel_refund, at } => {
            tally.refunded = tally.refunded.checked_add(amount).ok_or(Rule::Sums)?;
            let entries = vec![Entry::Decide(reservation, Verdict::Posted), Entry::Post(refund.payout(order))];
            let refund = Refund {
                state: State::Succeeded,
                is_sent: true,
                channel_refund: Some(channel_refund.clone()),
                success_at: Some(*at),
                ..refund.clone()
            };
            (refund, entries, Happening::RefundSucceeded)
        }
        Decision::Failed { code } => {
            if refund.is_after_settlement {
                tally.posted = tally.posted.checked_add(amount).ok_or(Rule::Sums)?;
            }
            let refund = Refund { state: State::Failed, refusal: Some(code.clone()), ..refund.clone() };
            (refund, vec![Entry::Decide(reservation, Verdict::Voided)], Happening::RefundFailed)
        }
    };
    let next = Order { state: order.resting(tally), tally, ..order.clone() };
    Ok(Some(Decided { refund, change: Some(next.with(entries, vec![happening])) }))
}
