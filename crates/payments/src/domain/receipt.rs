//! Receipts: what the citizen holds of a payment that reached its payee.
//!
//! A receipt is issued with the posting of its order and never changes. How it stands follows from the order's sums.

use contracts::ids::OrderId;
use contracts::money::Money;
use jiff::civil::Date;
use runtime::Timestamp;

use super::order::Order;
use crate::beijing;

/// Digits of the code that are set for a payee: supervising region, class and kind, two each. The year follows.
pub const PREFIX_DIGITS: usize = 6;
/// Digits of a code.
pub const CODE_DIGITS: usize = 8;
/// Digits of a number.
pub const NUMBER_DIGITS: usize = 10;
/// Digits of a check code.
pub const CHECK_DIGITS: usize = 6;

/// A receipt that is due: all of it but what its numbering brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The order that was posted.
    pub order: OrderId,
    /// Code.
    pub code: String,
    /// Who received the money.
    pub payee_id: String,
    /// What went to the payee.
    pub amount: Money,
    /// When.
    pub at: Timestamp,
}

/// A receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What it says.
    pub due: Due,
    /// Its number under its code, from 1.
    pub number: i64,
    /// Which key made the check code.
    pub key_id: String,
    /// What cannot be guessed of it.
    pub check_code: String,
}

/// How a receipt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All that it is about is the payee's.
    Valid,
    /// Some of it went back, or is going back.
    PartlyRefunded,
    /// All of it did.
    Cancelled,
}

impl Due {
    /// What a step on an order makes due: a receipt where it was posted and its payee has receipts.
    pub fn of(before: &Order, after: &Order, now: Timestamp) -> Option<Self> {
        let prefix = after.terms.receipt_prefix.as_deref().filter(|_| after.is_posted() && !before.is_posted())?;
        Some(Self {
            order: after.terms.id,
            code: code(prefix, now),
            payee_id: after.terms.payee_id.clone(),
            amount: Money::new(after.tally.posted, after.terms.amount.currency()).ok()?,
            at: now,
        })
    }

    /// The day that is printed on it.
    pub fn day(&self) -> Date {
        day(self.at)
    }
}

impl Receipt {
    /// The number as it is printed.
    pub fn printed_number(&self) -> String {
        printed(self.number)
    }

    /// How it stands, now that `settled` of it is the payee's.
    pub fn standing(&self, settled: i64) -> Standing {
        match settled {
            rest if rest >= self.due.amount.amount_minor() => Standing::Valid,
            rest if rest > 0 => Standing::PartlyRefunded,
            _ => Standing::Cancelled,
        }
    }

    /// What is wrong with the receipt of an order of which `posted` was given to the payee.
    pub fn contradiction(order: &Order, posted: Option<Money>, receipt: Option<&Self>) -> Option<&'static str> {
        let prefix = order.terms.receipt_prefix.as_deref().filter(|_| order.is_posted());
        let (prefix, receipt) = match (prefix, receipt) {
            (None, None) => return None,
            (None, Some(_)) => return Some("has a receipt that its state does not call for"),
            (Some(_), None) => return Some("is posted and has no receipt"),
            (Some(prefix), Some(receipt)) => (prefix, receipt),
        };
        let due = &receipt.due;
        let fits =
            due.code == code(prefix, due.at) && due.payee_id == order.terms.payee_id && Some(due.amount) == posted;
        (!fits).then_some("has a receipt that says something else")
    }
}

/// The numbers of a code, as they are in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Code.
    pub code: String,
    /// How many receipts have it.
    pub receipts: i64,
    /// The lowest and the highest number.
    pub numbers: (i64, i64),
    /// The last number that was given out; None where none ever was.
    pub last: Option<i64>,
}

impl Series {
    /// What is wrong with it: numbers go from 1 to the last one, without gaps. None is there twice: the store's index sees to that.
    pub fn contradiction(&self) -> Option<&'static str> {
        let sound = self.numbers == (1, self.receipts) && self.last == Some(self.receipts);
        (!sound).then_some("the numbers have gaps, or are not those that were given out")
    }
}

/// Whether a text is the beginning of a code.
pub fn is_prefix(text: &str) -> bool {
    is_digits(text, PREFIX_DIGITS)
}

/// Whether a text is so many digits.
pub fn is_digits(text: &str, count: usize) -> bool {
    text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A number as it is printed.
pub fn printed(number: i64) -> String {
    format!("{number:0NUMBER_DIGITS$}")
}

/// The code of receipts that are issued now.
fn code(prefix: &str, at: Timestamp) -> String {
    format!("{prefix}{:02}", day(at).year().rem_euclid(100))
}

fn day(at: Timestamp) -> Date {
    beijing::civil(at).date()
}

#[cfg(test)]
mod tests;
