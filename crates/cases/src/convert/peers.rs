//! What other roles answer, read strictly: an answer that does not say everything it must is no answer.

use std::time::Duration;

use contracts::common::v1 as common;
use contracts::department::v1 as department;
use contracts::money::Money;
use contracts::payments::v1 as payments;
use rpc::form::{SERIAL_CHARS_MAX, is_line, is_number};
use rpc::{Effect, Kind, RemoteFault, Retry, time};

use crate::domain::{
    Answer, Idempotency, Locked, MoneyEvent, NotSent, OrderAnswer, OrderState, OrderView, Payment, Proof, RefundAnswer,
    RefundState, RefundView, Rejection, SettleRules, code,
};
use crate::repo::File;

const TEXT_CHARS_MAX: usize = 500;
const CODE_CHARS_MAX: usize = 64;
/// What an answer is called that lacks what its outcome promises.
const UNREADABLE: &str = "ANSWER_UNREADABLE";
const DEPARTMENT: &str = "department.lastmile";
const PAYMENTS: &str = "payments.lastmile";

/// Reads an outcome and what comes with it. `done` reads what DONE promises.
fn outcome<T>(outcome: i32, refusal: Option<&common::Rejection>, done: impl FnOnce() -> Option<T>) -> Answer<T> {
    match common::Outcome::try_from(outcome) {
        Ok(common::Outcome::Done) => done().map_or_else(unreadable, Answer::Done),
        Ok(common::Outcome::Rejected) => {
            refusal.map_or_else(unreadable, |refusal| Answer::Rejected(rejection(refusal)))
        }
        Ok(common::Outcome::Pending) => Answer::Pending,
        Ok(common::Outcome::Unknown) => Answer::Unknown("DEPARTMENT_UNKNOWN".to_owned()),
        Ok(common::Outcome::Unspecified) | Err(_) => unreadable(),
    }
}

fn unreadable<T>() -> Answer<T> {
    Answer::Unknown(UNREADABLE.to_owned())
}

fn rejection(refusal: &common::Rejection) -> Rejection {
    Rejection {
        code: code(&refusal.code),
        department_code: refusal.department_code.chars().take(CODE_CHARS_MAX).collect(),
        department_text: refusal.department_text.chars().take(TEXT_CHARS_MAX).collect(),
    }
}

/// Reads a LockBillResponse against what the citizen read.
pub(crate) fn locked(answer: &department::LockBillResponse, file: &File, rules: SettleRules) -> Answer<Locked> {
    outcome(answer.outcome, answer.rejection.as_ref(), || {
        let until = time::required(answer.held_until.as_ref()).ok()?;
        let bill = answer.bill.as_ref()?;
        let amount = Money::try_from(bill.amount.as_ref()?).ok()?;
        let payment_code = Some(bill.payment_code.clone()).filter(|code| !code.is_empty());
        payment_code.as_deref().is_none_or(is_number).then_some(())?;
        let same = bill.bill_no == file.about.bill_no
            && amount == file.case.amount
            && bill.record_digest == file.about.record_digest;
        Some(Locked { until, rules, payment_code, changed: !same })
    })
}

/// Reads a ReleaseBillResponse.
pub(crate) fn released(answer: &department::ReleaseBillResponse) -> Answer<()> {
    outcome(answer.outcome, answer.rejection.as_ref(), || Some(()))
}

/// Reads a SettleBillResponse or an InquireBillResponse.
pub(crate) fn settled(
    answer: i32,
    refusal: Option<&common::Rejection>,
    proof: Option<&department::Proof>,
) -> Answer<Proof> {
    outcome(answer, refusal, || {
        let proof = proof.filter(|proof| is_line(&proof.department_serial, SERIAL_CHARS_MAX))?;
        Some(Proof {
            serial: proof.department_serial.clone(),
            at: proof.department_time.as_ref().and_then(|at| time::from_proto(at).ok()),
            reply_digest: proof.reply_digest.clone(),
            profile: proof.profile.clone(),
            profile_version: proof.profile_version,
            jws: proof.jws.clone(),
        })
    })
}

/// Reads how a profile settles. Whatever is not said is read as the strictest.
pub(crate) fn rules(answer: &department::DescribeResponse, item: &str) -> Option<SettleRules> {
    let ability = answer.items.iter().find(|ability| ability.item == item)?;
    let idempotency = match ability.idempotency.as_str() {
        "key" => Idempotency::Key,
        "by_bill" => Idempotency::ByBill,
        _ => Idempotency::None,
    };
    let quiet = u64::try_from(ability.settle_quiet_period_ms).unwrap_or(0);
    Some(SettleRules { idempotency, quiet_period: Duration::from_millis(quiet) })
}

/// Reads a fault of a call to a department.
pub(crate) fn department_fault<T>(fault: &RemoteFault) -> Answer<T> {
    match fault.effect() {
        Effect::None => Answer::NotSent(not_sent(fault)),
        Effect::Possible => Answer::Unknown(reason(fault)),
    }
}

fn not_sent(fault: &RemoteFault) -> NotSent {
    let is_final = match fault.kind() {
        Kind::InvalidInput | Kind::NotFound | Kind::AlreadyExists | Kind::RuleBroken | Kind::Unsupported => true,
        // A key that has not come round yet mends itself; a citizen who is not the owner does not.
        Kind::Forbidden => fault.is(DEPARTMENT, "SUBJECT_MISMATCH"),
        Kind::Unauthenticated
        | Kind::Conflict
        | Kind::Exhausted
        | Kind::Unavailable
        | Kind::Deadline
        | Kind::Internal => false,
    };
    let retry_after = match fault.retry() {
        Retry::After(wait) => Some(wait),
        Retry::Never | Retry::Reread => None,
    };
    NotSent { reason: reason(fault), is_final, retry_after }
}

fn reason(fault: &RemoteFault) -> String {
    if fault.reason().is_empty() { "STATUS_WITHOUT_REASON".to_owned() } else { fault.reason().to_owned() }
}

/// Reads an order against the case that it is for.
pub(crate) fn order(order: Option<&payments::Order>, file: &File) -> OrderAnswer {
    let unreadable = || OrderAnswer::Unknown(UNREADABLE.to_owned());
    let Some(order) = order.filter(|order| !order.order_id.is_empty()) else { return unreadable() };
    let state = match payments::OrderState::try_from(order.state) {
        Ok(payments::OrderState::Creating) => OrderState::Creating,
        Ok(payments::OrderState::Waiting) => OrderState::Waiting,
        Ok(payments::OrderState::Paid) => OrderState::Paid,
        Ok(payments::OrderState::Posted) => OrderState::Posted,
        Ok(payments::OrderState::Closed) => OrderState::Closed,
        Ok(payments::OrderState::Refunding) => OrderState::Refunding,
        Ok(payments::OrderState::Refunded) => OrderState::Refunded,
        Ok(payments::OrderState::Refused) => OrderState::Refused,
        Ok(payments::OrderState::Unspecified) | Err(_) => return unreadable(),
    };
    let amount = order.amount.as_ref().map(Money::try_from);
    if amount != Some(Ok(file.case.amount)) || order.case_id != file.case.id.to_string() {
        return OrderAnswer::Refused("ORDER_MISMATCH".to_owned());
    }
    let Ok(expires) = time::required(order.expire_time.as_ref()) else { return unreadable() };
    let paid = order.paid_time.as_ref().and_then(|at| time::from_proto(at).ok());
    let payment = paid
        .filter(|_| !order.channel_transaction.is_empty())
        .map(|at| Payment { at, transaction: order.channel_transaction.clone() });
    let lingers = order.pay_sheet.as_ref().is_some_and(|sheet| sheet.works_until_end);
    let late = order.late_money;
    OrderAnswer::Order(OrderView { id: order.order_id.clone(), state, expires, payment, late, lingers })
}

/// Reads a fault of a call about an order.
pub(crate) fn order_fault(fault: &RemoteFault) -> OrderAnswer {
    match (fault.effect(), refuses(fault)) {
        _ if fault.is(PAYMENTS, "ORDER_NOT_FOUND") => OrderAnswer::NotFound,
        (Effect::None, true) => OrderAnswer::Refused(reason(fault)),
        (Effect::None, false) => OrderAnswer::NotSent(not_sent(fault)),
        (Effect::Possible, _) => OrderAnswer::Unknown(reason(fault)),
    }
}

/// Reads a refund.
pub(crate) fn refund(refund: Option<&payments::RefundRecord>) -> RefundAnswer {
    let unreadable = || RefundAnswer::Unknown(UNREADABLE.to_owned());
    let Some(refund) = refund.filter(|refund| !refund.refund_id.is_empty()) else { return unreadable() };
    let state = match payments::RefundState::try_from(refund.state) {
        Ok(payments::RefundState::Requested | payments::RefundState::Processing) => RefundState::Processing,
        Ok(payments::RefundState::Succeeded) => RefundState::Succeeded,
        Ok(payments::RefundState::Failed) => RefundState::Failed,
        Ok(payments::RefundState::Unspecified) | Err(_) => return unreadable(),
    };
    RefundAnswer::Refund(RefundView { id: refund.refund_id.clone(), state })
}

/// Reads a fault of a call about a refund.
pub(crate) fn refund_fault(fault: &RemoteFault) -> RefundAnswer {
    match (fault.effect(), refuses(fault)) {
        _ if fault.is(PAYMENTS, "REFUND_NOT_FOUND") => RefundAnswer::NotFound,
        (Effect::None, true) => RefundAnswer::Refused(reason(fault)),
        (Effect::None, false) => RefundAnswer::NotSent(not_sent(fault)),
        (Effect::Possible, _) => RefundAnswer::Unknown(reason(fault)),
    }
}

/// Whether payments will say the same again.
fn refuses(fault: &RemoteFault) -> bool {
    match fault.kind() {
        Kind::InvalidInput | Kind::NotFound | Kind::AlreadyExists | Kind::RuleBroken | Kind::Unsupported => true,
        Kind::Unauthenticated
        | Kind::Forbidden
        | Kind::Conflict
        | Kind::Exhausted
        | Kind::Unavailable
        | Kind::Deadline
        | Kind::Internal => false,
    }
}

/// Reads what an event of payments means to its case.
pub(crate) fn money_event(kind: i32) -> MoneyEvent {
    match payments::EventKind::try_from(kind) {
        Ok(payments::EventKind::OrderPaid) => MoneyEvent::Paid,
        Ok(payments::EventKind::LateMoney) => MoneyEvent::Late,
        // A kind that this version does not know is a reason to look, not to guess.
        Ok(
            payments::EventKind::OrderClosed
            | payments::EventKind::OrderPosted
            | payments::EventKind::RefundSucceeded
            | payments::EventKind::RefundFailed
            | payments::EventKind::Unspecified,
        )
        | Err(_) => MoneyEvent::Moved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_department_says_is_held_to_the_contract() {
        let proof = |serial: &str| department::Proof { department_serial: serial.to_owned(), ..Default::default() };
        let settled_as = |serial: &str| settled(common::Outcome::Done.into(), None, Some(&proof(serial)));
        assert!(matches!(settled_as(&"号".repeat(200)), Answer::Done(_)));
        for bad in ["", "a\nb", &"x".repeat(201)] {
            assert_eq!(settled_as(bad), Answer::Unknown(UNREADABLE.to_owned()), "{bad:?}");
        }
        let refusal = common::Rejection {
            code: "no code".to_owned(),
            department_code: "9".repeat(65),
            department_text: "字".repeat(501),
        };
        let Answer::Rejected(told) = settled(common::Outcome::Rejected.into(), Some(&refusal), None) else {
            panic!("a refusal")
        };
        let lengths = (told.department_code.len(), told.department_text.chars().count());
        assert_eq!((told.code.as_str(), lengths), ("UNNAMED", (64, 500)));
    }
}
