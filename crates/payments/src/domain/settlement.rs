//! What a payee is paid over: a batch of what went to it, less what it gave back, that is fixed for ever once it is cut.

use std::fmt;
use std::str::FromStr;

use contracts::ids::{OrderId, SettlementId};
use contracts::money::{Currency, Money};
use jiff::civil::Date;
use runtime::Timestamp;

use super::ledger::{Account, Entry, Subject, Transfer, TransferId};
use super::order::BadWord;

/// Where a settlement stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Its lines are being gathered.
    Cutting,
    /// Its lines and totals are fixed.
    Cut,
    /// Its file is signed; the money is to be paid over.
    Signed,
    /// Two persons have confirmed that it was.
    PaidOver,
    /// Its file is signed and nothing is to be paid over: the next settlement takes over what it comes to.
    Carried,
}

impl State {
    const WORDS: [(Self, &'static str); 5] = [
        (Self::Cutting, "cutting"),
        (Self::Cut, "cut"),
        (Self::Signed, "signed"),
        (Self::PaidOver, "paid_over"),
        (Self::Carried, "carried"),
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(state, _)| state == self).map_or("", |(_, word)| word);
        f.write_str(word)
    }
}

impl FromStr for State {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        Self::WORDS.iter().find(|(_, word)| *word == text).map(|(state, _)| *state).ok_or(BadWord)
    }
}

/// What a line is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Money that went to the payee.
    Posting,
    /// Money that the payee gave back after settlement.
    Refund,
}

impl What {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Posting => "posting",
            Self::Refund => "refund",
        }
    }
}

impl FromStr for What {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, BadWord> {
        [Self::Posting, Self::Refund].into_iter().find(|what| what.as_str() == text).ok_or(BadWord)
    }
}

/// One line. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The transfer that it tells of.
    pub transfer: TransferId,
    /// What it is of.
    pub what: What,
    /// The order.
    pub order: OrderId,
    /// When it was posted, or when the channel's word on the refund was booked.
    pub at: Timestamp,
    /// How much, minor units; above zero.
    pub amount: i64,
    /// The channel.
    pub channel: String,
    /// Its number of the merchant.
    pub merchant: String,
    /// The channel's number of the payment.
    pub transaction: String,
    /// The department's serial number of the proof.
    pub proof_serial: String,
    /// The payment code (缴款码) of the order; empty where it has none.
    pub payment_code: String,
}

/// The sums of the lines. Minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Lines.
    pub count: i64,
    /// What went to the payee.
    pub gross: i64,
    /// What it gave back.
    pub refunds: i64,
}

/// A settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Follows from payee and number.
    pub id: SettlementId,
    /// Who is paid over.
    pub payee: String,
    /// Among the payee's, from 1 without gaps.
    pub number: i64,
    /// The day that ended with the cut, or on which it was cut, Beijing's time.
    pub day: Date,
    /// Of the payee and the day, from 1.
    pub seq: i64,
    /// The currency of the payee's account.
    pub currency: Currency,
    /// Nothing older can be without a settlement.
    pub from: Timestamp,
    /// What happened before is in it, or in an earlier one.
    pub cut_at: Timestamp,
    /// Where it stands.
    pub state: State,
    /// Of its lines; fixed when it is cut.
    pub totals: Totals,
    /// What the one before came to and this one takes over; 0 or less.
    pub carried: i64,
    /// The one before, where something was taken over.
    pub carried_from: Option<SettlementId>,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: Option<String>,
    /// A compact JWS over name and digest.
    pub signature: Option<String>,
    /// The JWK that verifies it.
    pub key: Option<String>,
    /// How the money was paid over.
    pub reference: String,
    /// Who said so first.
    pub first_by: String,
    /// Who agreed.
    pub second_by: String,
    /// When that was.
    pub paid_over_at: Option<Timestamp>,
}

/// Why a settlement cannot be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its file is not signed, nothing is to be paid over, or it was.
    #[error("the settlement is not one that waits to be paid over")]
    NotSigned,
    /// The same person said so first.
    #[error("the same person cannot agree with his own word")]
    SamePerson,
    /// A bug.
    #[error("the sums of the settlement make no sense")]
    Sums,
}

/// What a new settlement follows on.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// How many there are of the same day.
    pub of_day: i64,
    /// The day.
    pub day: Date,
    /// When it is cut.
    pub cut_at: Timestamp,
    /// The currency of the account.
    pub currency: Currency,
}

/// A transaction that was begun before a cut may be committed behind it, and is looked for in the next settlement so far back. None lives
/// a day; `audit` tells if one did.
pub const LATE: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);

impl Settlement {
    /// Begins the one after `last`; None while that one is still being cut.
    ///
    /// `id` makes the id of payee and number.
    pub fn after(last: Option<&Self>, payee: &str, place: Place, id: impl Fn(i64) -> SettlementId) -> Option<Self> {
        if last.is_some_and(|last| last.state == State::Cutting) {
            return None;
        }
        let number = last.map_or(0, |last| last.number).checked_add(1)?;
        let net = match last {
            Some(last) => last.net()?,
            None => 1,
        };
        let is_carried = net <= 0;
        Some(Self {
            id: id(number),
            payee: payee.to_owned(),
            number,
            day: place.day,
            seq: place.of_day.checked_add(1)?,
            currency: place.currency,
            from: last.map_or(Timestamp::default(), |last| last.cut_at.minus(LATE)),
            cut_at: place.cut_at,
            state: State::Cutting,
            totals: Totals::default(),
            carried: net.min(0),
            carried_from: last.filter(|_| is_carried).map(|last| last.id),
            sha256: None,
            signature: None,
            key: None,
            reference: String::new(),
            first_by: String::new(),
            second_by: String::new(),
            paid_over_at: None,
        })
    }

    /// What it comes to; None where the sums leave their range.
    pub fn net(&self) -> Option<i64> {
        self.totals.gross.checked_sub(self.totals.refunds)?.checked_add(self.carried)
    }

    /// The name of its file: `BUSINESS_REGION_yyyyMMdd_SEQ.jsonl`. A payee's id that ends in a region gives both.
    pub fn file_name(&self) -> String {
        let (business, region) = match self.payee.rsplit_once('-') {
            Some((business, region)) if region.len() == 6 && region.bytes().all(|byte| byte.is_ascii_digit()) => {
                (business, region)
            }
            _ => (self.payee.as_str(), "all"),
        };
        format!("{business}_{region}_{}_{:03}.jsonl", self.day.strftime("%Y%m%d"), self.seq)
    }

    /// Its file is made and signed.
    #[must_use]
    pub fn signed(&self, sha256: String, signature: String, key: String) -> Option<Self> {
        let state = if self.net()? > 0 { State::Signed } else { State::Carried };
        let signed = Self { state, sha256: Some(sha256), signature: Some(signature), key: Some(key), ..self.clone() };
        (self.state == State::Cut).then_some(signed)
    }

    /// A person says that the money was paid over; the second one's word makes it so, and books it.
    ///
    /// Errors: [`Refused`].
    pub fn confirmed(&self, reference: &str, person: &str, now: Timestamp) -> Result<(Self, Option<Entry>), Refused> {
        if self.state != State::Signed {
            return Err(Refused::NotSigned);
        }
        if self.first_by.is_empty() || self.reference != reference {
            // Another word than the first person's begins anew.
            let first = Self { reference: reference.to_owned(), first_by: person.to_owned(), ..self.clone() };
            return Ok((first, None));
        }
        if self.first_by == person {
            return Err(Refused::SamePerson);
        }
        let next =
            Self { state: State::PaidOver, second_by: person.to_owned(), paid_over_at: Some(now), ..self.clone() };
        let entry = Entry::Post(next.transfer().ok_or(Refused::Sums)?);
        Ok((next, Some(entry)))
    }

    /// What is booked once it is paid over; None where nothing is to be paid over.
    pub fn transfer(&self) -> Option<Transfer> {
        let net = self.net().filter(|net| *net > 0)?;
        Some(Transfer {
            id: TransferId::pay_over(self.id),
            subject: Subject::Settlement(self.id),
            debit: Account::Payee(self.payee.clone()),
            credit: Account::Treasury(self.payee.clone()),
            amount: Money::new(net, self.currency).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(7);

    fn one(last: Option<&Settlement>, payee: &str) -> Option<Settlement> {
        let day = jiff::civil::date(2026, 11, 22);
        let place = Place { of_day: 0, day, cut_at: NOW, currency: Currency::CNY };
        Settlement::after(last, payee, place, |number| SettlementId::new(u128::from(number.unsigned_abs())))
    }

    fn cut(gross: i64, refunds: i64) -> Settlement {
        let totals = Totals { count: 1, gross, refunds };
        Settlement { state: State::Cut, totals, ..one(None, "traffic-430100").expect("is the first") }
    }

    fn signed(cut: &Settlement) -> Settlement {
        cut.signed("0".into(), "s".into(), "k".into()).expect("is cut")
    }

    #[test]
    fn what_comes_to_nothing_or_less_stands_in_the_next() {
        for (gross, refunds, carried, state) in
            [(5, 3, 0, State::Signed), (3, 3, 0, State::Carried), (3, 5, -2, State::Carried)]
        {
            let first = cut(gross, refunds);
            let next = one(Some(&first), "traffic-430100").expect("follows");
            let from = (state == State::Carried).then_some(first.id);
            assert_eq!((next.number, next.carried, next.carried_from), (2, carried, from));
            let first = signed(&first);
            assert_eq!((first.state, first.transfer().is_some()), (state, state == State::Signed));
        }
        let second = Settlement {
            state: State::Cut,
            totals: Totals { count: 1, gross: 1, refunds: 0 },
            ..one(Some(&cut(3, 5)), "traffic-430100").expect("follows")
        };
        assert_eq!(second.net(), Some(-1), "what is not made up for is carried on");
        assert_eq!(one(Some(&second), "traffic-430100").map(|third| third.carried), Some(-1));
        assert_eq!(one(one(None, "p").as_ref(), "p"), None, "the one before is still being cut");
    }

    #[test]
    fn paying_over_takes_two_persons_of_one_mind() {
        let waits = signed(&cut(5, 3));
        let (first, entry) = waits.confirmed("bank 1", "one", NOW).expect("is taken");
        assert_eq!((first.state, entry), (State::Signed, None));
        assert_eq!(first.confirmed("bank 1", "one", NOW), Err(Refused::SamePerson));
        let (anew, entry) = first.confirmed("bank 2", "two", NOW).expect("is taken");
        assert_eq!((anew.state, entry, anew.first_by.as_str()), (State::Signed, None, "two"));
        let (last, entry) = first.confirmed("bank 1", "two", NOW).expect("is agreed");
        assert_eq!((last.state, last.paid_over_at), (State::PaidOver, Some(NOW)));
        let Some(Entry::Post(transfer)) = entry else { panic!("nothing is booked") };
        assert_eq!(transfer.amount.amount_minor(), 2);
        assert_eq!(
            (transfer.debit.to_string(), transfer.credit.to_string()),
            ("payee/traffic-430100".into(), "treasury/traffic-430100".into())
        );
        assert_eq!(last.confirmed("bank 1", "three", NOW), Err(Refused::NotSigned));
        assert_eq!(cut(5, 3).confirmed("bank 1", "one", NOW), Err(Refused::NotSigned));
        assert_eq!(signed(&cut(3, 3)).confirmed("bank 1", "one", NOW), Err(Refused::NotSigned));
    }

    #[test]
    fn a_file_is_named_by_business_region_day_and_number() {
        assert_eq!(cut(1, 0).file_name(), "traffic_430100_20261122_001.jsonl");
        let other = one(None, "water").expect("is the first");
        assert_eq!(other.file_name(), "water_all_20261122_001.jsonl");
    }
}
