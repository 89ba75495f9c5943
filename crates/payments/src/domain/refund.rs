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

use super::insurance::Legs;
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
    /// How that is split over the legs of a mixed order.
    pub legs: Option<Legs>,
    /// When the insurance centre gave its part back.
    pub insurance_returned_at: Option<Timestamp>,
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
    /// When the money went back; of a refund that failed, when its cash leg did.
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
    /// Of a mixed order, the cash leg went back, and the channel refuses to hear of the insurance's.
    Half {
        /// The channel's number of the refund.
        channel_refund: String,
        /// When the cash leg went back.
        at: Timestamp,
        /// The channel's code or word for its refusal.
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

    /// As it stands at its end. That the channel has it is proven where it gave a number.
    fn ended(&self, state: State, number: Option<&String>, at: Option<Timestamp>, code: Option<&String>) -> Self {
        Self {
            state,
            is_sent: self.is_sent || number.is_some(),
            channel_refund: number.or(self.channel_refund.as_ref()).cloned(),
            success_at: at,
            refusal: code.cloned(),
            ..self.clone()
        }
    }

    /// What goes back through the channel, and what at the insurance centre.
    fn sides(&self) -> (i64, i64) {
        let cash = self.legs.map_or(self.amount.amount_minor(), |legs| legs.cash);
        (cash, self.amount.amount_minor().saturating_sub(cash))
    }

    /// Whether it could end so: to fail after its cash leg went takes a leg behind it.
    pub(super) fn could_end_so(&self) -> bool {
        let (cash, insured) = self.sides();
        self.state != State::Failed || self.success_at.is_none() || (cash > 0 && insured > 0)
    }

    /// What has gone back.
    pub fn went(&self) -> i64 {
        match self.state {
            State::Succeeded => self.amount.amount_minor(),
            State::Failed if self.success_at.is_some() => self.sides().0,
            State::Requested | State::Processing | State::Failed => 0,
        }
    }

    /// What is given back by leg, as far as it did not fail.
    pub fn given(&self) -> Legs {
        let legs = self.legs.unwrap_or_default();
        match self.state {
            State::Requested | State::Processing | State::Succeeded => legs,
            State::Failed if self.success_at.is_some() => legs.cash_alone(),
            State::Failed => Legs::default(),
        }
    }

    fn transfer(&self, id: TransferId, debit: Account, credit: Account, minor: i64) -> Option<Transfer> {
        let amount = Money::new(minor, self.amount.currency()).ok().filter(|_| minor > 0)?;
        Some(Transfer { id, subject: self.order.into(), debit, credit, amount })
    }

    /// What it reserves through the channel.
    pub(super) fn reservation(&self, order: &Order) -> Option<Transfer> {
        let refunds = Account::Refunds(order.terms.merchant.clone());
        self.transfer(TransferId::refund(self.id), self.source(order), refunds, self.sides().0)
    }

    /// What it reserves of the insurance's money, which goes back at its centre.
    pub(super) fn insured_reservation(&self, order: &Order) -> Option<Transfer> {
        let insurance = Account::Insurance(order.terms.insured.as_ref()?.institution_no.clone());
        self.transfer(TransferId::insured_refund(self.id), self.source(order), insurance, self.sides().1)
    }

    pub(super) fn payout(&self, order: &Order) -> Option<Transfer> {
        let (refunds, channel) = (&order.terms.merchant, order.terms.merchant.clone());
        let refunds = Account::Refunds(refunds.clone());
        self.transfer(TransferId::payout(self.id), refunds, Account::Receivable(channel), self.sides().0)
    }

    /// Where the money is that goes back.
    fn source(&self, order: &Order) -> Account {
        if self.is_after_settlement { Account::Payee(order.terms.payee_id.clone()) } else { order.suspense() }
    }
}

/// Accepts a refund.
///
/// Errors: NotPaid; Posted when the money is the payee's and the refund is not one after settlement, NotPosted in the reverse case;
/// ExceedsLeg; ExceedsCapture; Legs when it is not split as the order is; Differs when the currency is another.
pub fn accept(order: &Order, refund: &Refund) -> Result<Change, Rule> {
    if refund.amount.currency() != order.terms.amount.currency() {
        return Err(Rule::Differs("currency"));
    }
    match order.state {
        OrderState::Paid | OrderState::Posted | OrderState::Refunding | OrderState::Refunded => {}
        OrderState::Closed if order.is_late || order.is_half() => {}
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
    let given = match (&order.terms.insured, refund.legs) {
        (None, None) => order.given,
        (Some(_), Some(legs)) if legs.sum() == Some(amount) => order.came().give(order.given, legs)?,
        _ => return Err(Rule::Legs),
    };
    let free = order.tally.free().ok_or(Rule::Sums)?;
    let most = if refund.is_after_settlement { order.tally.posted } else { free };
    if amount <= 0 || amount > most {
        return Err(Rule::ExceedsCapture { captured: order.tally.captured, refunded: order.tally.given_back() });
    }
    let posted = if refund.is_after_settlement { most.checked_sub(amount) } else { Some(order.tally.posted) };
    let posted = posted.ok_or(Rule::Sums)?;
    let refunding = order.tally.refunding.checked_add(amount).ok_or(Rule::Sums)?;
    let tally = Tally { refunding, posted, ..order.tally };
    let next = Order { state: order.resting(tally), tally, given, ..order.clone() };
    let reserved = [refund.reservation(order), refund.insured_reservation(order)].into_iter().flatten();
    Ok(next.with(reserved.map(|transfer| Entry::Reserve(transfer, refund.send_by)).collect(), vec![]))
}

/// Books the channel's verdict; None when it was booked before.
///
/// Errors: Differs when the channel first said one thing and then the other; Sums.
pub fn decide(order: &Order, refund: &Refund, decision: &Decision) -> Result<Option<Decided>, Rule> {
    match (refund.state, decision) {
        (State::Requested | State::Processing, _) => {}
        (State::Succeeded, Decision::Succeeded { .. }) => return Ok(None),
        (State::Failed, Decision::Failed { .. }) if refund.success_at.is_none() => return Ok(None),
        (State::Failed, Decision::Half { .. }) if refund.success_at.is_some() => return Ok(None),
        (State::Succeeded | State::Failed, _) => return Err(Rule::Differs("refund status")),
    }
    let (amount, legs) = (refund.amount.amount_minor(), refund.legs.unwrap_or_default());
    let refunding = order.tally.refunding.checked_sub(amount).filter(|sum| *sum >= 0).ok_or(Rule::Sums)?;
    // What goes back through the channel, at the insurance centre, and not at all.
    let (cash, insured, next, failed) = match decision {
        Decision::Succeeded { channel_refund, at } => {
            let next = refund.ended(State::Succeeded, Some(channel_refund), Some(*at), None);
            (Verdict::Posted, Verdict::Posted, next, Legs::default())
        }
        Decision::Half { channel_refund, at, code } => {
            if legs.cash == 0 || legs.funds_alone() == Legs::default() {
                return Err(Rule::Differs("legs of the refund"));
            }
            let next = refund.ended(State::Failed, Some(channel_refund), Some(*at), Some(code));
            (Verdict::Posted, Verdict::Voided, next, legs.funds_alone())
        }
        Decision::Failed { code } => {
            let next = refund.ended(State::Failed, None, None, Some(code));
            (Verdict::Voided, Verdict::Voided, next, legs)
        }
    };
    let refunded = order.tally.refunded.checked_add(next.went()).ok_or(Rule::Sums)?;
    let mut tally = Tally { refunding, refunded, ..order.tally };
    if refund.is_after_settlement {
        let kept = amount.checked_sub(next.went()).ok_or(Rule::Sums)?;
        tally.posted = tally.posted.checked_add(kept).ok_or(Rule::Sums)?;
    }
    let given = order.given.take_back(failed)?;
    let reserved = [(refund.reservation(order), cash), (refund.insured_reservation(order), insured)];
    let decided = reserved.into_iter().filter_map(|(transfer, verdict)| Some(Entry::Decide(transfer?, verdict)));
    let payout = refund.payout(order).filter(|_| cash == Verdict::Posted).map(Entry::Post);
    let entries = decided.chain(payout).collect();
    let is_done = next.state == State::Succeeded;
    let happening = if is_done { Happening::RefundSucceeded } else { Happening::RefundFailed };
    let order = Order { state: order.resting(tally), tally, given, ..order.clone() };
    Ok(Some(Decided { refund: next, change: Some(order.with(entries, vec![happening])) }))
}
