//! What must become of the citizen's money: the department's proof and the ledger, or the way back.

use super::event::code;
use super::machine::Draft;
use super::{
    Action, Actor, Answer, Kind, NotSent, OrderAnswer, OrderState, Proof, RefundAnswer, RefundState, Rejection, State,
    Step,
};

/// The order was read for the settlement, which names the channel's own transaction.
pub(super) fn payment_read(draft: &mut Draft<'_>, answer: &OrderAnswer) {
    if draft.case.step != Some(Step::Settle) || draft.case.payment.is_some() {
        return;
    }
    match answer {
        OrderAnswer::Order(order) if order.state == OrderState::Paid => match &order.payment {
            Some(payment) => {
                draft.case.payment = Some(payment.clone());
                draft.next_now(Action::Settle);
            }
            None => draft.again(Action::Settle),
        },
        OrderAnswer::Order(_) | OrderAnswer::NotFound => {
            draft.ask_clerk("ORDER_STATE_UNEXPECTED");
            draft.again(Action::Settle);
        }
        OrderAnswer::Refused(_) | OrderAnswer::Unknown(_) => draft.again(Action::Settle),
        OrderAnswer::NotSent(NotSent { retry_after, .. }) => draft.again_after(Action::Settle, *retry_after),
    }
}

/// Notes a settlement before it leaves. From here on only its answer or an inquiry can say that it did not happen, so what a crash
/// leaves behind is the inquiry.
pub(super) fn begin_settle(draft: &mut Draft<'_>) {
    if draft.case.payment.is_none() {
        return;
    }
    if draft.case.sent_at.is_some() || (draft.settles_once() && draft.case.sends > 0) {
        // Never reached while the rest of the machine is right; and if it is not, no second settlement leaves.
        return draft.next_now(Action::InquireSettle);
    }
    let tries = draft.case.tries;
    draft.case.sends = draft.case.sends.saturating_add(1);
    draft.case.sent_at = Some(draft.now);
    draft.next(Action::InquireSettle, draft.now.plus(draft.policy.settle_call));
    draft.case.tries = tries;
    draft.end_by(draft.now.plus(draft.policy.settle_within));
}

/// SettleBill answered.
pub(super) fn settled(draft: &mut Draft<'_>, answer: &Answer<Proof>) {
    match answer {
        Answer::Done(proof) => done(draft, proof),
        _ if draft.case.step != Some(Step::Settle) || draft.case.sent_at.is_none() => {}
        // After more than one settlement a refusal may be the echo of our own success: the inquiry knows.
        Answer::Rejected(_) if draft.case.sends > 1 => {
            draft.unknown(Step::Settle, Actor::Department, "REJECTED_AFTER_RESEND");
            draft.next_now(Action::InquireSettle);
        }
        Answer::Rejected(rejection) => {
            draft.refund(Actor::Department, "DEPARTMENT_REJECTED", Some(rejection.clone()), "");
        }
        Answer::Pending => pending(draft),
        Answer::Unknown(reason) => {
            draft.unknown(Step::Settle, Actor::Department, reason);
            draft.again(Action::InquireSettle);
        }
        Answer::NotSent(not_sent) => unsent(draft, not_sent),
    }
}

/// The settlement certainly never left: it does not count, and may be tried again by any department's rules.
fn unsent(draft: &mut Draft<'_>, not_sent: &NotSent) {
    let tries = draft.case.tries.saturating_add(1);
    draft.case.sends = draft.case.sends.saturating_sub(1);
    draft.case.sent_at = None;
    let reason = code(&not_sent.reason);
    if not_sent.is_final {
        draft.case.refusals = draft.case.refusals.saturating_add(1);
        if draft.case.refusals >= draft.policy.refusals_max {
            return draft.refund(Actor::Cases, "NEVER_SENT", Some(Rejection::ours(reason)), "");
        }
    }
    if draft.case.state != State::NeedsClerk {
        draft.go(State::Paid, Step::Settle, Actor::Department, "NOT_SENT", &reason);
    }
    draft.again_as(Action::Settle, tries, not_sent.retry_after);
    draft.end_by(draft.case.deliver_by.unwrap_or(draft.now));
}

/// InquireBill answered.
pub(super) fn inquired(draft: &mut Draft<'_>, answer: &Answer<Proof>) {
    let Some(sent_at) = draft.case.sent_at.filter(|_| draft.case.step == Some(Step::Settle)) else {
        if let Answer::Done(proof) = answer {
            done(draft, proof);
        }
        return;
    };
    match answer {
        Answer::Done(proof) => done(draft, proof),
        Answer::Rejected(rejection) if rejection.code == "NEVER_HAPPENED" => {
            // The adapter keeps the quiet period; money rests on it, so it is checked here too.
            let quiet = draft.case.rules.map(|rules| rules.quiet_period).unwrap_or_default();
            match quiet.checked_sub(draft.now.since(sent_at)).filter(|left| !left.is_zero()) {
                Some(left) => draft.again_after(Action::InquireSettle, Some(left)),
                None => never_happened(draft, rejection),
            }
        }
        Answer::Rejected(rejection) => {
            draft.refund(Actor::Department, "DEPARTMENT_REJECTED", Some(rejection.clone()), "");
        }
        Answer::Pending => pending(draft),
        Answer::Unknown(reason) => {
            draft.unknown(Step::Settle, Actor::Department, reason);
            draft.again(Action::InquireSettle);
        }
        Answer::NotSent(NotSent { retry_after, .. }) => draft.again_after(Action::InquireSettle, *retry_after),
    }
}

fn pending(draft: &mut Draft<'_>) {
    if draft.case.state != State::NeedsClerk {
        draft.go(State::Sent, Step::Settle, Actor::Department, "DEPARTMENT_PENDING", "");
    }
    draft.again(Action::InquireSettle);
}

fn never_happened(draft: &mut Draft<'_>, rejection: &Rejection) {
    let late = draft.case.deliver_by.is_none_or(|by| by <= draft.now) || draft.case.state == State::NeedsClerk;
    if draft.settles_once() || late || draft.case.sends >= draft.policy.sends_max {
        return draft.refund(Actor::Department, "NEVER_HAPPENED", Some(rejection.clone()), "");
    }
    draft.case.sent_at = None;
    draft.go(State::Paid, Step::Settle, Actor::Department, "NEVER_HAPPENED", "");
    draft.next_now(Action::Settle);
    draft.end_by(draft.case.deliver_by.unwrap_or(draft.now));
}

/// The department did it. That is a fact whenever it is heard; only money that is on its way back already is not stopped by it.
fn done(draft: &mut Draft<'_>, proof: &Proof) {
    if draft.case.kind == Kind::LateMoney || !draft.case.is_paid() {
        return;
    }
    match draft.case.step {
        Some(Step::Settle) => {}
        Some(Step::Refund)
            if draft.case.tries == 0 && draft.case.refund.id.is_none() && draft.case.refund.round == 0 =>
        {
            draft.case.rejection = None;
        }
        Some(Step::Refund) => {
            return draft.remark(Actor::Department, "DONE_AFTER_REFUND", "", &proof.serial);
        }
        _ => return,
    }
    draft.case.proof = Some(proof.clone());
    draft.case.sent_at = None;
    draft.go_with(State::Sent, Step::Post, Actor::Department, "DEPARTMENT_DONE", "", &proof.serial);
    draft.next_now(Action::Post);
    draft.end_by(draft.now.plus(draft.policy.post_within));
}

/// The settlement was not resolved, or not even delivered, in time.
pub(super) fn settle_timed_out(draft: &mut Draft<'_>) {
    if draft.case.sent_at.is_some() {
        draft.ask_clerk("SETTLE_UNRESOLVED");
    } else {
        draft.refund(Actor::Cases, "NEVER_SENT", Some(Rejection::ours("DEPARTMENT_UNREACHABLE")), "");
    }
}

/// PostOrder answered.
pub(super) fn posted(draft: &mut Draft<'_>, answer: &OrderAnswer) {
    if draft.case.step != Some(Step::Post) {
        return;
    }
    match answer {
        OrderAnswer::Order(order) if order.state == OrderState::Posted => {
            let serial = draft.case.proof.as_ref().map(|proof| proof.serial.clone()).unwrap_or_default();
            draft.finish(State::Done, Actor::Payments, "POSTED", "", &serial);
        }
        OrderAnswer::Order(order) if order.state == OrderState::Paid => draft.again(Action::Post),
        OrderAnswer::Order(_) | OrderAnswer::NotFound => {
            draft.ask_clerk("ORDER_STATE_UNEXPECTED");
            draft.again(Action::Post);
        }
        OrderAnswer::Refused(reason) => {
            draft.ask_clerk(reason);
            draft.again(Action::Post);
        }
        OrderAnswer::Unknown(reason) => {
            draft.unknown(Step::Post, Actor::Payments, reason);
            draft.again(Action::Post);
        }
        OrderAnswer::NotSent(NotSent { retry_after, .. }) => draft.again_after(Action::Post, *retry_after),
    }
}

/// Refund or GetRefund answered.
pub(super) fn refunded(draft: &mut Draft<'_>, answer: &RefundAnswer) {
    if draft.case.step != Some(Step::Refund) {
        return;
    }
    match answer {
        RefundAnswer::Refund(refund) => {
            draft.case.refund.id = Some(refund.id.clone());
            match refund.state {
                RefundState::Succeeded => {
                    draft.finish(State::Refunded, Actor::Payments, "REFUND_SUCCEEDED", "", &refund.id);
                }
                RefundState::Processing => {
                    if draft.case.state != State::NeedsClerk {
                        draft.go(State::Refunding, Step::Refund, Actor::Payments, "REFUND_PROCESSING", "");
                    }
                    draft.again(Action::FindRefund);
                }
                RefundState::Failed => {
                    draft.case.refund.failed = true;
                    draft.ask_clerk("REFUND_FAILED");
                    draft.again(Action::FindRefund);
                }
            }
        }
        RefundAnswer::NotFound if draft.case.refund.id.is_some() => draft.again(Action::FindRefund),
        RefundAnswer::NotFound if draft.case.state == State::NeedsClerk => draft.again(Action::Refund),
        RefundAnswer::NotFound => {
            draft.go(State::Refunding, Step::Refund, Actor::Payments, "REFUND_NOT_FOUND", "");
            draft.next_now(Action::Refund);
        }
        RefundAnswer::Refused(reason) => {
            draft.ask_clerk(reason);
            draft.again(Action::FindRefund);
        }
        RefundAnswer::Unknown(reason) => {
            draft.unknown(Step::Refund, Actor::Payments, reason);
            draft.again(Action::FindRefund);
        }
        RefundAnswer::NotSent(NotSent { retry_after, .. }) => {
            let action = draft.case.next.map_or(Action::FindRefund, |next| next.action);
            draft.again_after(action, *retry_after);
        }
    }
}
