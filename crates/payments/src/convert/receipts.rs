//! Receipts.

use contracts::money::Money;
use contracts::payments::v1 as pb;
use jiff::civil::Date;
use rpc::time;

use super::Check;
use crate::domain::order::Order;
use crate::domain::receipt::{CHECK_DIGITS, CODE_DIGITS, NUMBER_DIGITS, Receipt, Standing, is_digits};
use crate::error::Error;

/// What VerifyReceipt asks.
#[derive(Clone, Debug)]
pub(crate) struct VerifyAsk {
    pub(crate) code: String,
    pub(crate) number: i64,
    pub(crate) check_code: String,
    pub(crate) amount: Money,
    pub(crate) day: Date,
}

/// Reads VerifyReceipt.
pub(crate) fn verify(request: pb::VerifyReceiptRequest) -> Result<VerifyAsk, Error> {
    let mut check = Check::default();
    check.demand("code", is_digits(&request.code, CODE_DIGITS), "must be 8 digits");
    let number = Some(&request.number).filter(|number| is_digits(number, NUMBER_DIGITS));
    let number = number.and_then(|number| number.parse().ok());
    check.demand("number", number.is_some(), "must be 10 digits");
    check.demand("check_code", is_digits(&request.check_code, CHECK_DIGITS), "must be 6 digits");
    let amount = check.amount(request.amount.as_ref());
    let day: Option<Date> = request.issue_day.parse().ok().filter(|day: &Date| day.to_string() == request.issue_day);
    check.demand("issue_day", day.is_some(), "must be a day as 2026-11-22");
    let (code, check_code) = (request.code, request.check_code);
    let ask = number.zip(amount).zip(day);
    check.done(ask.map(|((number, amount), day)| VerifyAsk { code, number, check_code, amount, day }))
}

/// Writes the receipt of an order, now that `settled` of it is the payee's; `address` is the content of its QR code.
pub(crate) fn receipt(order: &Order, receipt: &Receipt, settled: i64, address: String) -> pb::Receipt {
    pb::Receipt {
        code: receipt.due.code.clone(),
        number: receipt.printed_number(),
        check_code: receipt.check_code.clone(),
        amount: Some(receipt.due.amount.into()),
        payee_id: receipt.due.payee_id.clone(),
        issue_time: Some(time::to_proto(receipt.due.at)),
        issue_day: receipt.due.day().to_string(),
        payment_code: order.terms.payment_code.clone().unwrap_or_default(),
        department_serial: order.proof_serial.clone().unwrap_or_default(),
        verify_url: address,
        state: standing(receipt.standing(settled)).into(),
    }
}

/// Writes what is told of a receipt that is ours.
pub(crate) fn verified(order: &Order, receipt: &Receipt) -> Result<pb::VerifyReceiptResponse, Error> {
    Ok(pb::VerifyReceiptResponse {
        state: standing(receipt.standing(order.tally.posted)).into(),
        payee_id: receipt.due.payee_id.clone(),
        settled: Some(super::settled(order)?),
    })
}

fn standing(standing: Standing) -> pb::ReceiptState {
    match standing {
        Standing::Valid => pb::ReceiptState::Valid,
        Standing::PartlyRefunded => pb::ReceiptState::PartlyRefunded,
        Standing::Cancelled => pb::ReceiptState::Cancelled,
    }
}
