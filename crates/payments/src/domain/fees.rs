//! What channels charge, in the ledger: the transfers of a day come to what the day's bill says.
//!
//! A fee is never edited. When a day is matched again with another sum, a further transfer moves the difference.

use std::collections::BTreeSet;

use contracts::ids::RunId;
use contracts::money::{Currency, Money};
use jiff::civil::Date;

use super::ledger::{Account, Merchant, Subject, Transfer, TransferId};

/// The currency of channels' bills: they are in yuan.
pub const CURRENCY: Currency = Currency::CNY;

/// A merchant account's day, whoever asks.
pub fn run_id(merchant: &Merchant, day: Date) -> RunId {
    let digest = rpc::digest::sha256(format!("run/{}/{}/{day}", merchant.channel, merchant.number).as_bytes());
    let (bits, _) = digest.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
    RunId::new(u128::from_be_bytes(*bits))
}

/// What a day's transfers come to, in fen; None where they are not those of that day's fees, or leave their range.
pub fn booked<'a>(
    run: RunId,
    merchant: &Merchant,
    transfers: impl ExactSizeIterator<Item = &'a Transfer>,
) -> Option<i64> {
    let expected: BTreeSet<_> = (1..=transfers.len()).map(|number| TransferId::fee(run, number)).collect();
    let (fees, channel) = (Account::Fees(merchant.clone()), Account::Receivable(merchant.clone()));
    let mut found = BTreeSet::new();
    let mut sum = 0_i64;
    for transfer in transfers {
        let minor = transfer.amount.amount_minor();
        let sides = (&transfer.debit, &transfer.credit);
        sum = if sides == (&fees, &channel) {
            sum.checked_add(minor)?
        } else if sides == (&channel, &fees) {
            sum.checked_sub(minor)?
        } else {
            return None;
        };
        if transfer.subject != Subject::Run(run) || transfer.amount.currency() != CURRENCY {
            return None;
        }
        found.insert(transfer.id.clone());
    }
    (found == expected).then_some(sum)
}

/// Why a day's fee cannot be booked: the ledger has what this program does not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transfers of a day's fees make no sense")]
pub struct BadFees;

/// The transfer after which a day's transfers come to what the bill says; None where they do.
///
/// A fee is what the channel keeps of what it owes us: less is to come from the channel, and that much was spent. Below zero the channel
/// gave back more than it charged.
pub fn due(
    run: RunId,
    merchant: &Merchant,
    transfers: &[Transfer],
    charged_minor: i64,
) -> Result<Option<Transfer>, BadFees> {
    let sum = booked(run, merchant, transfers.iter()).ok_or(BadFees)?;
    let more = charged_minor.checked_sub(sum).ok_or(BadFees)?;
    if more == 0 {
        return Ok(None);
    }
    let (fees, channel) = (Account::Fees(merchant.clone()), Account::Receivable(merchant.clone()));
    let (debit, credit) = if more > 0 { (fees, channel) } else { (channel, fees) };
    let amount = more.checked_abs().and_then(|minor| Money::new(minor, CURRENCY).ok()).ok_or(BadFees)?;
    let number = transfers.len().checked_add(1).ok_or(BadFees)?;
    Ok(Some(Transfer { id: TransferId::fee(run, number), subject: run.into(), debit, credit, amount }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Date = jiff::civil::date(2026, 11, 22);

    fn merchant() -> Merchant {
        Merchant { channel: "wechatpay".into(), number: "1900000001".into() }
    }

    #[test]
    fn a_day_is_booked_once_and_corrected_by_the_difference() {
        let run = run_id(&merchant(), DAY);
        let mut transfers = Vec::new();
        let mut sides = Vec::new();
        for charged in [120, 120, 90, 90, -10, 0, 7] {
            if let Some(transfer) = due(run, &merchant(), &transfers, charged).expect("is due") {
                sides.push((transfer.debit.to_string(), transfer.amount.amount_minor()));
                transfers.push(transfer);
            }
            assert_eq!(booked(run, &merchant(), transfers.iter()), Some(charged));
            assert_eq!(due(run, &merchant(), &transfers, charged), Ok(None), "{charged} twice");
        }
        let (fees, channel) = ("fees/wechatpay/1900000001", "channel/wechatpay/1900000001");
        let expected = [(fees, 120), (channel, 30), (channel, 100), (fees, 10), (fees, 7)];
        assert_eq!(sides, expected.map(|(account, minor)| (account.to_owned(), minor)));
    }

    #[test]
    fn what_is_not_of_the_day_is_no_fee_of_it() {
        let run = run_id(&merchant(), DAY);
        let other = run_id(&merchant(), DAY.tomorrow().expect("a day"));
        assert_ne!(run, other);
        let good = due(run, &merchant(), &[], 120).expect("is due").expect("something");
        for bad in [
            Transfer { subject: other.into(), ..good.clone() },
            Transfer { id: TransferId::fee(run, 2), ..good.clone() },
            Transfer { debit: Account::Treasury("traffic-430100".into()), ..good.clone() },
            Transfer { debit: good.credit.clone(), ..good.clone() },
        ] {
            assert_eq!(booked(run, &merchant(), [&bad].into_iter()), None, "{bad:?}");
            assert_eq!(due(run, &merchant(), &[bad], 1), Err(BadFees));
        }
        assert_eq!(booked(run, &merchant(), [&good, &good].into_iter()), None, "one twice");
        assert_eq!(due(run, &merchant(), &[], i64::MAX), Err(BadFees), "more than an amount may be");
    }
}
