//! What the ledger must hold for an order, said a second time: not step by step as it was booked, but from how things stand.

use contracts::money::Money;

use super::ledger::{Account, Standing, Transfer, TransferId};
use super::order::{Order, State};
use super::refund::{Refund, State as RefundState};

/// The transfers that an order and its refunds must have, and no others.
pub fn expected(order: &Order, refunds: &[Refund]) -> Vec<(Transfer, Standing)> {
    let of = |id, debit, credit, minor| {
        let amount = Money::new(minor, order.terms.amount.currency()).ok().filter(|_| minor > 0)?;
        Some((Transfer { id, order: order.terms.id, debit, credit, amount }, Standing::Posted))
    };
    let receivable = Account::Receivable(order.terms.merchant.clone());
    let payee = Account::Payee(order.terms.payee_id.clone());
    let capture = of(TransferId::capture(order.terms.id), receivable, order.suspense(), order.tally.captured);
    let given_back = refunds.iter().filter(|refund| refund.is_after_settlement && refund.state != RefundState::Failed);
    let went = given_back.fold(order.tally.posted, |sum, refund| sum.saturating_add(refund.amount.amount_minor()));
    let post = of(TransferId::post(order.terms.id), order.suspense(), payee, went);
    let mut transfers: Vec<_> = capture.into_iter().chain(post).collect();
    for refund in refunds {
        let standing = match refund.state {
            RefundState::Requested | RefundState::Processing => Standing::Pending,
            RefundState::Succeeded => Standing::Posted,
            RefundState::Failed => Standing::Voided,
        };
        transfers.push((refund.reservation(order), standing));
        if standing == Standing::Posted {
            transfers.push((refund.payout(order), Standing::Posted));
        }
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
    let is_open = |state| matches!(state, RefundState::Requested | RefundState::Processing);
    let has_money = tally.captured > 0;
    let is_state_right = match order.state {
        State::Creating | State::Waiting | State::Refused => !has_money,
        State::Closed => has_money == order.is_late && tally.refunding == 0,
        State::Paid => has_money && tally.refunding == 0 && tally.refunded < tally.captured && !order.is_posted(),
        State::Posted => has_money && tally.refunding == 0 && order.is_posted() && tally.posted > 0,
        State::Refunding => tally.refunding > 0,
        State::Refunded => has_money && tally.refunded == tally.captured,
    };
    let checks = [
        ("more leaves than came in", tally.free().is_some()),
        ("sum of open refunds", sum(&is_open) == Some(tally.refunding)),
        ("sum of refunds", sum(&|state| state == RefundState::Succeeded) == Some(tally.refunded)),
        ("another amount was captured", !has_money || tally.captured == order.terms.amount.amount_minor()),
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
