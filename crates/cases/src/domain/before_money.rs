//! The way to the citizen's payment, and the ways out of a case that nobody has paid.

use std::time::Duration;

use super::event::code;
use super::machine::Draft;
use super::{
    Action, Actor, Answer, Ending, Hold, Locked, NotSent, OrderAnswer, OrderRef, OrderState, OrderView, Refused,
    Rejection, State, Step,
};

/// LockBill answered.
pub(super) fn locked(draft: &mut Draft<'_>, answer: &Answer<Locked>) {
    match draft.case.step {
        Some(Step::Lock) => lock_step(draft, answer),
        // Cancelled while the call was under way: the release that follows gives back what it held.
        Some(Step::Release) => {
            if let Answer::Done(locked) = answer {
                draft.case.hold = Hold::Until(locked.until);
            }
        }
        _ => {}
    }
}

fn lock_step(draft: &mut Draft<'_>, answer: &Answer<Locked>) {
    match answer {
        Answer::Done(locked) => {
            draft.case.hold = Hold::Until(locked.until);
            draft.case.rules = Some(locked.rules);
            draft.case.payment_code.clone_from(&locked.payment_code);
            draft.case.pay_until = Some(locked.until.min(draft.now.plus(draft.policy.pay_within)));
            let unfit = match () {
                () if locked.changed => Some("RECORD_CHANGED"),
                () if locked.until.since(draft.now) < draft.policy.pay_min => Some("HOLD_TOO_SHORT"),
                () => None,
            };
            if let Some(reason) = unfit {
                draft.give_up(Ending::Rejected, Some(Rejection::ours(reason)));
                return release(draft, Actor::Department, reason);
            }
            draft.go(State::Confirming, Step::Order, Actor::Department, "BILL_HELD", "");
            draft.next_now(Action::CreateOrder);
            draft.end_by(draft.now.plus(draft.policy.order_within));
        }
        Answer::Rejected(rejection) => {
            draft.give_up(Ending::Rejected, Some(rejection.clone()));
            draft.end(Actor::Department, "DEPARTMENT_REJECTED");
        }
        Answer::Pending => draft.again(Action::Lock),
        Answer::Unknown(reason) => {
            draft.unknown(Step::Lock, Actor::Department, reason);
            draft.again(Action::Lock);
        }
        Answer::NotSent(NotSent { reason, is_final: true, .. }) => {
            draft.give_up(Ending::Rejected, Some(Rejection::ours(code(reason))));
            if draft.case.state == State::Unknown {
                release(draft, Actor::Department, "REFUSED_UNSENT");
            } else {
                draft.end(Actor::Department, "REFUSED_UNSENT");
            }
        }
        Answer::NotSent(NotSent { retry_after, .. }) => draft.again_after(Action::Lock, *retry_after),
    }
}

/// The department did not hold the bill in time.
pub(super) fn lock_timed_out(draft: &mut Draft<'_>) {
    draft.give_up(Ending::Rejected, Some(Rejection::ours("DEPARTMENT_NO_ANSWER")));
    release(draft, Actor::Cases, "CONFIRM_TIME_OVER");
}

/// A call about the order answered.
pub(super) fn ordered(draft: &mut Draft<'_>, answer: &OrderAnswer) {
    match (draft.case.step, answer) {
        (Some(Step::Order), _) => order_step(draft, answer),
        (Some(Step::Payment), _) => payment_step(draft, answer),
        (Some(Step::Close), _) => close_step(draft, answer),
        (Some(Step::Release), OrderAnswer::Order(order)) if order.state == OrderState::Paid => {
            draft.return_late_money(&order.id);
        }
        _ => {}
    }
}

fn order_step(draft: &mut Draft<'_>, answer: &OrderAnswer) {
    match answer {
        OrderAnswer::Order(order) => order_found(draft, order),
        OrderAnswer::NotFound if draft.case.ending.is_some() => release(draft, Actor::Payments, "ORDER_NOT_FOUND"),
        OrderAnswer::NotFound => {
            draft.go(State::Confirming, Step::Order, Actor::Payments, "ORDER_NOT_FOUND", "");
            draft.next_now(Action::CreateOrder);
        }
        OrderAnswer::Refused(reason) => {
            draft.give_up(Ending::Rejected, Some(Rejection::ours(code(reason))));
            release(draft, Actor::Payments, "ORDER_REFUSED");
        }
        OrderAnswer::Unknown(reason) => {
            draft.unknown(Step::Order, Actor::Payments, reason);
            draft.again(Action::FindOrder);
        }
        OrderAnswer::NotSent(NotSent { retry_after, .. }) => {
            let action = draft.case.next.map_or(Action::FindOrder, |next| next.action);
            draft.again_after(action, *retry_after);
        }
    }
}

/// Where the order stands for this case. Money that came after it was closed belongs to another case, and it stays closed.
fn seen(draft: &mut Draft<'_>, order: &OrderView) -> OrderState {
    if order.late {
        draft.return_late_money(&order.id);
    }
    match order.state {
        OrderState::Paid | OrderState::Refunding | OrderState::Refunded if draft.case.late_money => OrderState::Closed,
        state => state,
    }
}

fn order_found(draft: &mut Draft<'_>, order: &OrderView) {
    draft.case.order = Some(OrderRef { id: order.id.clone(), expires: order.expires });
    match seen(draft, order) {
        OrderState::Creating | OrderState::Waiting if draft.case.ending.is_some() => {
            close(draft, Actor::Cases, "ORDER_GIVEN_UP");
        }
        OrderState::Creating => draft.again(Action::FindOrder),
        OrderState::Waiting => {
            draft.go(State::WaitingPayment, Step::Payment, Actor::Payments, "ORDER_CREATED", "");
            draft.again(Action::RefreshOrder);
            draft.end_by(order.expires);
        }
        OrderState::Paid => draft.paid(order.payment.clone()),
        OrderState::Closed | OrderState::Refused => {
            draft.give_up(Ending::Rejected, Some(Rejection::ours("ORDER_REFUSED")));
            release(draft, Actor::Payments, "ORDER_REFUSED");
        }
        OrderState::Posted | OrderState::Refunding | OrderState::Refunded => unexpected(draft, Action::FindOrder),
    }
}

/// There is no order in time. It may exist all the same, so it is looked for once more, and closed if it does.
pub(super) fn order_timed_out(draft: &mut Draft<'_>) {
    if draft.case.ending.is_some() {
        return draft.ask_clerk("ORDER_UNCONFIRMED");
    }
    draft.give_up(Ending::Rejected, Some(Rejection::ours("PAYMENTS_NO_ANSWER")));
    give_up_order(draft, Actor::Cases, "ORDER_TIME_OVER");
}

fn payment_step(draft: &mut Draft<'_>, answer: &OrderAnswer) {
    match answer {
        OrderAnswer::Order(order) => match seen(draft, order) {
            OrderState::Paid => draft.paid(order.payment.clone()),
            OrderState::Closed | OrderState::Refused => {
                draft.give_up(Ending::Expired, None);
                release(draft, Actor::Payments, "ORDER_CLOSED");
            }
            OrderState::Creating | OrderState::Waiting => draft.again(Action::RefreshOrder),
            OrderState::Posted | OrderState::Refunding | OrderState::Refunded => {
                unexpected(draft, Action::RefreshOrder);
            }
        },
        // Asking has no effect, so no answer leaves nothing in doubt.
        OrderAnswer::NotFound | OrderAnswer::Refused(_) | OrderAnswer::Unknown(_) => draft.again(Action::RefreshOrder),
        OrderAnswer::NotSent(NotSent { retry_after, .. }) => draft.again_after(Action::RefreshOrder, *retry_after),
    }
}

/// The citizen's time to pay is over.
pub(super) fn expire(draft: &mut Draft<'_>) {
    draft.give_up(Ending::Expired, None);
    close(draft, Actor::Cases, "PAYMENT_TIME_OVER");
}

fn close_step(draft: &mut Draft<'_>, answer: &OrderAnswer) {
    match answer {
        OrderAnswer::Order(order) => match seen(draft, order) {
            OrderState::Closed | OrderState::Refused => release(draft, Actor::Payments, "ORDER_CLOSED"),
            OrderState::Paid => draft.paid(order.payment.clone()),
            OrderState::Creating | OrderState::Waiting => {
                // A definite answer: the next request is a new one, or payments would repeat this answer for ever.
                draft.case.close_round = draft.case.close_round.saturating_add(1);
                if draft.case.state == State::Unknown {
                    draft.go(State::WaitingPayment, Step::Close, Actor::Payments, "NOT_CLOSED_YET", "");
                }
                if order.lingers {
                    // The channel cannot confirm before the order's end: until then there is nothing for a clerk to see to.
                    draft.end_by(order.expires.plus(draft.policy.close_within));
                }
                draft.again(Action::CloseOrder);
            }
            OrderState::Posted | OrderState::Refunding | OrderState::Refunded => unexpected(draft, Action::CloseOrder),
        },
        OrderAnswer::NotFound => {
            draft.ask_clerk("ORDER_MISSING");
            draft.again(Action::CloseOrder);
        }
        OrderAnswer::Refused(reason) => {
            draft.ask_clerk(reason);
            draft.again(Action::CloseOrder);
        }
        OrderAnswer::Unknown(reason) => {
            draft.unknown(Step::Close, Actor::Payments, reason);
            draft.again(Action::CloseOrder);
        }
        OrderAnswer::NotSent(NotSent { retry_after, .. }) => draft.again_after(Action::CloseOrder, *retry_after),
    }
}

/// ReleaseBill answered. A hold lapses by itself, so nothing hangs on it for long.
pub(super) fn released(draft: &mut Draft<'_>, answer: &Answer<()>) {
    if draft.case.step != Some(Step::Release) {
        return;
    }
    match answer {
        Answer::Done(()) | Answer::Rejected(_) => draft.end(Actor::Department, "BILL_RELEASED"),
        Answer::NotSent(NotSent { is_final: true, .. }) => draft.end(Actor::Department, "HOLD_LAPSES"),
        Answer::NotSent(NotSent { retry_after, .. }) => draft.again_after(Action::Release, *retry_after),
        Answer::Pending => draft.again(Action::Release),
        Answer::Unknown(reason) => {
            draft.unknown(Step::Release, Actor::Department, reason);
            draft.again(Action::Release);
        }
    }
}

/// The citizen cancels. A case that is on its way out already stays on it.
pub(super) fn cancel(draft: &mut Draft<'_>) -> Result<(), Refused> {
    if draft.case.is_paid() {
        return Err(Refused::NotCancellable);
    }
    if draft.case.ending.is_some() {
        return Ok(());
    }
    draft.give_up(Ending::Cancelled, None);
    match draft.case.step {
        Some(Step::Lock) => release(draft, Actor::Citizen, "CANCEL_ASKED"),
        _ => give_up_order(draft, Actor::Citizen, "CANCEL_ASKED"),
    }
    Ok(())
}

/// Closes the order where there is one; looks for it where nobody knows.
fn give_up_order(draft: &mut Draft<'_>, actor: Actor, reason: &'static str) {
    if draft.case.order.is_some() {
        return close(draft, actor, reason);
    }
    draft.remark(actor, reason, "", "");
    draft.next_now(Action::FindOrder);
    draft.end_by(draft.now.plus(draft.policy.close_within));
}

fn close(draft: &mut Draft<'_>, actor: Actor, reason: &'static str) {
    draft.go(State::WaitingPayment, Step::Close, actor, reason, "");
    draft.next_now(Action::CloseOrder);
    draft.end_by(draft.now.plus(draft.policy.close_within));
}

/// Gives the bill back, and ends. What was never asked for need not be given back.
fn release(draft: &mut Draft<'_>, actor: Actor, reason: &'static str) {
    let left = match draft.case.hold {
        Hold::None => Duration::ZERO,
        Hold::Possible => draft.policy.release_within,
        Hold::Until(until) => until.since(draft.now).min(draft.policy.release_within),
    };
    if left.is_zero() {
        return draft.end(actor, reason);
    }
    let state = if draft.case.order.is_some() { State::WaitingPayment } else { State::Confirming };
    draft.go(state, Step::Release, actor, reason, "");
    draft.next_now(Action::Release);
    draft.end_by(draft.now.plus(left));
}

/// Payments says something that no order of an unpaid case can be.
fn unexpected(draft: &mut Draft<'_>, action: Action) {
    draft.ask_clerk("ORDER_STATE_UNEXPECTED");
    draft.again(action);
}
