//! What the ledger must hold for an order, said a second time: not step by step as it was booked, but from how things stand.

use contracts::money::Money;

use super::insurance::Legs;
use super::ledger::{Account, Standing, Transfer, TransferId};
use super::order::{Order, State};
use super::refund::{Refund, State as RefundState};

/// The transfers that an order and its refunds must have, and no others.
pub fn expected(order: &Order, refunds: &[Refund]) -> Vec<(Transfer, Standing)> {
    let of = |id, debit, credit, minor| {
        let amount = Money::new(minor, order.terms.amount.currency()).ok().filter(|_| minor > 0)?;
        Some((Transfer { id, subject: order.terms.id.into(), debit, credit, amount }, Standing::Posted))
    };
    let payee = Account::Payee(order.terms.payee_id.clone());
    let captures = order.captures(order.tally.captured);
    let given_back = refunds.iter().filter(|refund| refund.is_after_settlement).map(|refund| match refund.state {
        RefundState::Requested | RefundState::Processing => refund.amount.amount_minor(),
        RefundState::Succeeded | RefundState::Failed => refund.went(),
    });
    let went = given_back.fold(order.tally.posted, i64::saturating_add);
    let post = of(TransferId::post(order.terms.id), order.suspense(), payee, went);
    let captures = captures.into_iter().map(|transfer| (transfer, Standing::Posted));
    let mut transfers: Vec<_> = captures.chain(post).collect();
    for refund in refunds {
        let (cash, insured) = match refund.state {
            RefundState::Requested | RefundState::Processing => (Standing::Pending, Standing::Pending),
            RefundState::Succeeded => (Standing::Posted, Standing::Posted),
            // Its cash leg went back.
            RefundState::Failed if refund.success_at.is_some() => (Standing::Posted, Standing::Voided),
            RefundState::Failed => (Standing::Voided, Standing::Voided),
        };
        transfers.extend(refund.reservation(order).map(|transfer| (transfer, cash)));
        transfers.extend(refund.insured_reservation(order).map(|transfer| (transfer, insured)));
        let payout = refund.payout(order).filter(|_| cash == Standing::Posted);
        transfers.extend(payout.map(|transfer| (transfer, Standing::Posted)));
    }
    transfers
}

/// What does not fit together in an order and its refunds; empty when all does.
pub fn contradictions(order: &Order, refunds: &[Refund]) -> Vec<&'static str> {
    let tally = order.tally;
    let sum = |of: &dyn Fn(RefundState) -> bool| {
        refunds
            .iter()
            .filter(|refund| of(refund.state))
            .try_fold(0_i64, |sum, refund| sum.checked_add(refund.amount.amount_minor()))
    };
    let went = refunds.iter().try_fold(0_i64, |sum, refund| sum.checked_add(refund.went()));
    let given = refunds.iter().try_fold(Legs::default(), |sum, refund| sum.plus(refund.given()));
    let has_given = order.given.each().into_iter().zip(order.came().each()).all(|(given, came)| given.1 <= came.1);
    let is_split = |refund: &Refund| match refund.legs {
        None => order.terms.insured.is_none(),
        Some(legs) => order.terms.insured.is_some() && legs.sum() == Some(refund.amount.amount_minor()),
    };
    let is_open = |state| matches!(state, RefundState::Requested | RefundState::Processing);
    let has_money = tally.captured > 0;
    let is_state_right = match order.state {
        State::Creating | State::Waiting | State::Refused => !has_money,
        State::Closed => has_money == (order.is_late || order.is_half()) && tally.refunding == 0,
        State::Paid | State::Posted if order.is_half() => false,
        State::Paid => has_money && tally.refunding == 0 && tally.refunded < tally.captured && !order.is_posted(),
        State::Posted => has_money && tally.refunding == 0 && order.is_posted() && tally.posted > 0,
        State::Refunding => tally.refunding > 0,
        State::Refunded => has_money && tally.refunded == tally.captured,
    };
    let checks = [
        ("more leaves than came in", tally.free().is_some()),
        ("sum of open refunds", sum(&is_open) == Some(tally.refunding)),
        ("sum of refunds", went == Some(tally.refunded)),
        (
            "another amount was captured",
            !has_money || Some(tally.captured) == order.due() || order.is_half() && tally.captured == order.in_cash(),
        ),
        ("refunds by leg", given == Some(order.given)),
        ("more went back on a leg than came in", has_given),
        ("a refund is not split as its order is", refunds.iter().all(is_split)),
        ("a refund failed and went back", refunds.iter().all(Refund::could_end_so)),
        ("captured without the channel's number", has_money == order.channel_transaction.is_some()),
        ("captured without a time", has_money == order.paid_at.is_some()),
        ("posted without a proof", tally.posted == 0 || order.is_posted()),
        (
            "given back by a payee that never had it",
            order.is_posted() || refunds.iter().all(|it| !it.is_after_settlement),
        ),
        ("the payer is still kept", order.state == State::Creating || order.payer_sealed.is_none()),
        ("the state does not fit the sums", is_state_right),
    ];
    checks.into_iter().filter(|(_, holds)| !holds).map(|(what, _)| what).collect()
}
