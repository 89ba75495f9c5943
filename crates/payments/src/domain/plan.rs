//! What to do next at the channel, and when to look again.

use std::time::Duration;

use runtime::Timestamp;

use super::order::{Order, State};
use super::refund::{Refund, State as RefundState};

/// The next step of an open order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderStep {
    /// Send the creation, or send it again unchanged.
    Create,
    /// Ask how it stands.
    Query,
    /// Close it at the channel, then ask how it stands.
    Close,
    /// Close it here: the channel cannot have it, now or later.
    Forget,
    /// Nothing is open.
    Rest,
}

/// The next step of an open refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefundStep {
    /// Send it for the first time.
    Send,
    /// Ask how it stands; send it again unchanged when the channel does not know it.
    Query,
    /// Its time ended and the channel never heard of it: give the money free.
    Expire,
    /// Nothing is open.
    Rest,
}

/// Times that the plan goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The first look at an open order or refund after it was sent.
    pub first: Duration,
    /// The longest pause between two looks.
    pub longest: Duration,
    /// How long after an order's end the channel may still be taking in what was sent before it.
    pub quiet: Duration,
}

/// From when on a channel knows an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// As soon as its creation was answered.
    OnceCreated,
    /// Only when the payer opens it: before that it can be opened with the pay sheet until its end, and cannot be closed.
    OnceOpened,
}

/// Chooses the next step of an order.
///
/// A creation that may be on its way is never just forgotten: before the order's end it is sent again, so that the channel certainly
/// has it and can confirm that it is closed; after the end the channel takes no such creation any more, and once the quiet time is
/// over too, its "not known" is final.
pub fn order_step(order: &Order, now: Timestamp) -> OrderStep {
    let is_over = now >= order.terms.expire_at;
    match order.state {
        State::Creating if !order.is_sent && (order.is_closing || is_over) => OrderStep::Forget,
        State::Creating if is_over => OrderStep::Query,
        State::Creating => OrderStep::Create,
        State::Waiting if order.is_closing || is_over => OrderStep::Close,
        State::Waiting => OrderStep::Query,
        State::Paid | State::Posted | State::Closed | State::Refunding | State::Refunded | State::Refused => {
            OrderStep::Rest
        }
    }
}

/// Whether the channel's "not known" about an order is final.
///
/// Never before the order's end and the quiet time after it. A channel that knows an order only once it was opened says so of one that
/// the citizen still has the pay sheet of: it can be opened until the end, which the sheet tells the channel too, and whatever was opened
/// in the last moment is known by the end of the quiet time. A channel that knows every order it has created contradicts itself when it
/// does not know one that waits: that closes nothing.
pub fn is_gone(order: &Order, known: Known, now: Timestamp, pace: Pace) -> bool {
    let may_be_unknown = match order.state {
        State::Creating => true,
        State::Waiting => known == Known::OnceOpened,
        State::Paid | State::Posted | State::Closed | State::Refunding | State::Refunded | State::Refused => false,
    };
    may_be_unknown && now >= closed_by(order, pace)
}

/// By when an order that nobody pays is closed at the latest, whatever the channel knows of it.
pub fn closed_by(order: &Order, pace: Pace) -> Timestamp {
    order.terms.expire_at.plus(pace.quiet)
}

/// Chooses the next step of a refund.
///
/// A refund that may be at the channel never expires: only the channel's own answer ends it.
pub fn refund_step(refund: &Refund, now: Timestamp) -> RefundStep {
    match refund.state {
        RefundState::Requested if !refund.is_sent && now >= refund.send_by => RefundStep::Expire,
        RefundState::Requested if !refund.is_sent => RefundStep::Send,
        RefundState::Requested | RefundState::Processing => RefundStep::Query,
        RefundState::Succeeded | RefundState::Failed => RefundStep::Rest,
    }
}

/// The pause before look number `attempt` (from 0): doubled each time from `first`, at most `longest`.
pub fn pause(attempt: u32, pace: Pace) -> Duration {
    let factor = 1_u32.checked_shl(attempt.min(20)).unwrap_or(u32::MAX);
    pace.first.saturating_mul(factor).min(pace.longest)
}

/// When to look at an open order again: after the pause, but no later than its end, so that the end is acted upon at once.
pub fn next_look(order: &Order, attempt: u32, now: Timestamp, pace: Pace) -> Timestamp {
    let next = now.plus(pause(attempt, pace));
    if now < order.terms.expire_at { next.min(order.terms.expire_at) } else { next }
}
