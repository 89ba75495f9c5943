//! The double-entry ledger: accounts, immutable transfers, balances.
//!
//! A transfer is written once and never changed. One that waits for a decision (`pending`) reserves its amount; the decision is
//! a second immutable record that posts or voids it. A balance is nothing but the sum of the transfers of its account.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use contracts::ids::{OrderId, RefundId};
use contracts::money::{Currency, Money};

/// Balance rows that one busy account is spread over. Rows of one order always lie in the same shard.
pub const SHARDS: u8 = 8;

/// Bytes of one part of an account's name.
const PART_BYTES_MAX: usize = 64;

/// What money is booked on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// What a channel owes us, per merchant account: `channel/wechatpay/1900000001`.
    Receivable(Merchant),
    /// A citizen's money between payment and proof: `suspense/ord_…`.
    Suspense(OrderId),
    /// What is owed to a department: `payee/traffic-430100`.
    Payee(String),
    /// What is on its way back to citizens through a merchant account: `refunds/wechatpay/1900000001`.
    Refunds(Merchant),
    /// What was paid over to a department: `treasury/traffic-430100`.
    Treasury(String),
    /// What a channel charged: `fees/wechatpay/1900000001`.
    Fees(Merchant),
}

/// A merchant account at a channel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Merchant {
    /// The channel, such as `wechatpay`.
    pub channel: String,
    /// Its number of the merchant.
    pub number: String,
}

/// The text is no account's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an account")]
pub struct BadAccount;

impl Account {
    /// The shard of this account that bookings of `order` go to.
    pub fn shard(&self, order: OrderId) -> u8 {
        match self {
            Self::Suspense(_) => 0,
            _ => order.bits().to_be_bytes()[15] % SHARDS,
        }
    }

    /// Whether more can never leave the account than came in, pending transfers included.
    pub fn is_floored(&self) -> bool {
        matches!(self, Self::Suspense(_) | Self::Refunds(_))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receivable(Merchant { channel, number }) => write!(f, "channel/{channel}/{number}"),
            Self::Suspense(order) => write!(f, "suspense/{order}"),
            Self::Payee(payee) => write!(f, "payee/{payee}"),
            Self::Refunds(Merchant { channel, number }) => write!(f, "refunds/{channel}/{number}"),
            Self::Treasury(payee) => write!(f, "treasury/{payee}"),
            Self::Fees(Merchant { channel, number }) => write!(f, "fees/{channel}/{number}"),
        }
    }
}

impl FromStr for Account {
    type Err = BadAccount;

    fn from_str(text: &str) -> Result<Self, BadAccount> {
        let (kind, rest) = text.split_once('/').ok_or(BadAccount)?;
        let merchant = || {
            let (channel, number) = rest.split_once('/').ok_or(BadAccount)?;
            Ok(Merchant { channel: part(channel)?, number: part(number)? })
        };
        Ok(match kind {
            "channel" => Self::Receivable(merchant()?),
            "suspense" => Self::Suspense(rest.parse().map_err(|_| BadAccount)?),
            "payee" => Self::Payee(part(rest)?),
            "refunds" => Self::Refunds(merchant()?),
            "treasury" => Self::Treasury(part(rest)?),
            "fees" => Self::Fees(merchant()?),
            _ => return Err(BadAccount),
        })
    }
}

/// Whether a text can stand as one part of an account's name: letters, digits, `-`, `_` and `.`, at most 64 bytes.
pub fn is_part(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= PART_BYTES_MAX && text.bytes().all(allowed)
}

fn part(text: &str) -> Result<String, BadAccount> {
    is_part(text).then(|| text.to_owned()).ok_or(BadAccount)
}

/// A transfer's id: made from what it belongs to and the step that makes it, so that a step cannot book twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransferId(String);

impl TransferId {
    /// The capture of an order.
    pub fn capture(order: OrderId) -> Self {
        Self(format!("{order}/capture"))
    }

    /// The posting of an order to its payee.
    pub fn post(order: OrderId) -> Self {
        Self(format!("{order}/post"))
    }

    /// The reservation of a refund; pending until the channel has decided.
    pub fn refund(refund: RefundId) -> Self {
        Self(format!("{refund}/reserve"))
    }

    /// The money of a refund leaving through the channel.
    pub fn payout(refund: RefundId) -> Self {
        Self(format!("{refund}/payout"))
    }

    /// Takes over an id as it was stored.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Money that moves from the credited account's view to the debited one's. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Unique for ever.
    pub id: TransferId,
    /// The order it belongs to.
    pub order: OrderId,
    /// Account debited.
    pub debit: Account,
    /// Account credited.
    pub credit: Account,
    /// What moves; above zero.
    pub amount: Money,
}

/// One record of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A transfer that counts at once.
    Post(Transfer),
    /// A transfer that reserves its amount until it is decided.
    Reserve(Transfer),
    /// The decision on a reserved transfer.
    Decide(Transfer, Verdict),
}

/// How a reserved transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Posted,
    /// It never happened; the reservation is gone.
    Voided,
}

/// The sums of one account, or a change of them. Minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Debits that count.
    pub debit_posted: i64,
    /// Credits that count.
    pub credit_posted: i64,
    /// Debits reserved.
    pub debit_pending: i64,
    /// Credits reserved.
    pub credit_pending: i64,
}

impl Balance {
    /// Adds, or None where a sum leaves its range.
    pub fn plus(self, other: Self) -> Option<Self> {
        Some(Self {
            debit_posted: self.debit_posted.checked_add(other.debit_posted)?,
            credit_posted: self.credit_posted.checked_add(other.credit_posted)?,
            debit_pending: self.debit_pending.checked_add(other.debit_pending)?,
            credit_pending: self.credit_pending.checked_add(other.credit_pending)?,
        })
    }

    /// What can still leave a floored account; None where the sums leave their range.
    pub fn available(self) -> Option<i64> {
        self.credit_posted.checked_sub(self.debit_posted)?.checked_sub(self.debit_pending)
    }

    /// Whether no sum is below zero.
    fn is_whole(self) -> bool {
        [self.debit_posted, self.credit_posted, self.debit_pending, self.credit_pending].iter().all(|sum| *sum >= 0)
    }
}

/// The change of one balance row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The account.
    pub account: Account,
    /// Its shard.
    pub shard: u8,
    /// The currency of the account.
    pub currency: Currency,
    /// By how much.
    pub change: Balance,
}

/// Why an entry cannot be booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// An amount that is not above zero, or the same account on both sides.
    #[error("a transfer moves an amount above zero between two accounts")]
    Shape,
    /// A sum leaves its range.
    #[error("a balance leaves its range")]
    Range,
    /// More would leave the account than is in it.
    #[error("more would leave the account than is in it")]
    Floor,
    /// The account holds another currency.
    #[error("the account holds another currency")]
    Currency,
    /// The transfer was booked before, or decided before.
    #[error("the transfer was booked or decided before")]
    Exists,
    /// The decision names a transfer that is not reserved, or another one under its id.
    #[error("no such transfer is reserved")]
    NotReserved,
}

impl Entry {
    /// The transfer that the entry is about.
    pub fn transfer(&self) -> &Transfer {
        match self {
            Self::Post(transfer) | Self::Reserve(transfer) | Self::Decide(transfer, _) => transfer,
        }
    }

    /// How the entry changes the debited and the credited account.
    fn changes(&self) -> Result<(Balance, Balance), LedgerError> {
        let transfer = self.transfer();
        let amount = transfer.amount.amount_minor();
        if amount <= 0 || transfer.debit == transfer.credit {
            return Err(LedgerError::Shape);
        }
        let back = amount.checked_neg().ok_or(LedgerError::Range)?;
        let zero = Balance::default();
        Ok(match self {
            Self::Post(_) => (Balance { debit_posted: amount, ..zero }, Balance { credit_posted: amount, ..zero }),
            Self::Reserve(_) => (Balance { debit_pending: amount, ..zero }, Balance { credit_pending: amount, ..zero }),
            Self::Decide(_, Verdict::Posted) => (
                Balance { debit_posted: amount, debit_pending: back, ..zero },
                Balance { credit_posted: amount, credit_pending: back, ..zero },
            ),
            Self::Decide(_, Verdict::Voided) => {
                (Balance { debit_pending: back, ..zero }, Balance { credit_pending: back, ..zero })
            }
        })
    }
}

/// Folds entries into the change of each balance row they touch, ordered by account and shard.
///
/// The order is the same for every caller, so that two transactions that touch the same rows cannot wait for each other in a ring.
/// Errors: Shape, Range, Currency.
pub fn deltas(entries: &[Entry]) -> Result<Vec<Delta>, LedgerError> {
    let mut rows: BTreeMap<(Account, u8), (Currency, Balance)> = BTreeMap::new();
    for entry in entries {
        let transfer = entry.transfer();
        let (debit, credit) = entry.changes()?;
        for (account, change) in [(&transfer.debit, debit), (&transfer.credit, credit)] {
            let key = (account.clone(), account.shard(transfer.order));
            let row = rows.entry(key).or_insert((transfer.amount.currency(), Balance::default()));
            if row.0 != transfer.amount.currency() {
                return Err(LedgerError::Currency);
            }
            row.1 = row.1.plus(change).ok_or(LedgerError::Range)?;
        }
    }
    let delta = |((account, shard), (currency, change))| Delta { account, shard, currency, change };
    Ok(rows.into_iter().map(delta).collect())
}

/// A ledger in memory: what the stored one is checked against.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    balances: BTreeMap<Account, (Currency, Balance)>,
    transfers: BTreeMap<TransferId, (Transfer, Standing)>,
}

/// Where a transfer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Reserved, undecided.
    Pending,
    /// Counts.
    Posted,
    /// Never happened.
    Voided,
}

impl Standing {
    /// The contract's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Posted => "posted",
            Self::Voided => "voided",
        }
    }
}

impl From<Verdict> for Standing {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Posted => Self::Posted,
            Verdict::Voided => Self::Voided,
        }
    }
}

impl Ledger {
    /// Books entries: all of them, or none.
    ///
    /// Errors: every [`LedgerError`].
    pub fn book(&mut self, entries: &[Entry]) -> Result<(), LedgerError> {
        let mut next = self.clone();
        for entry in entries {
            next.book_one(entry)?;
        }
        for (account, (_, balance)) in &next.balances {
            if account.is_floored() && balance.available().is_none_or(|rest| rest < 0) {
                return Err(LedgerError::Floor);
            }
        }
        *self = next;
        Ok(())
    }

    fn book_one(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        let transfer = entry.transfer();
        let standing = match entry {
            Entry::Post(_) => Standing::Posted,
            Entry::Reserve(_) => Standing::Pending,
            Entry::Decide(_, verdict) => Standing::from(*verdict),
        };
        match (entry, self.transfers.get(&transfer.id)) {
            (Entry::Post(_) | Entry::Reserve(_), None) => {}
            (Entry::Decide(..), Some((booked, Standing::Pending))) if booked == transfer => {}
            (Entry::Decide(..), None | Some((_, Standing::Pending))) => return Err(LedgerError::NotReserved),
            _ => return Err(LedgerError::Exists),
        }
        self.transfers.insert(transfer.id.clone(), (transfer.clone(), standing));
        let (debit, credit) = entry.changes()?;
        for (account, change) in [(&transfer.debit, debit), (&transfer.credit, credit)] {
            let currency = transfer.amount.currency();
            let row = self.balances.entry(account.clone()).or_insert((currency, Balance::default()));
            if row.0 != currency {
                return Err(LedgerError::Currency);
            }
            row.1 = row.1.plus(change).filter(|sum| sum.is_whole()).ok_or(LedgerError::Range)?;
        }
        Ok(())
    }

    /// The balances, by account.
    pub fn balances(&self) -> impl Iterator<Item = (&Account, Currency, Balance)> {
        self.balances.iter().map(|(account, (currency, balance))| (account, *currency, *balance))
    }

    /// The transfers, by id.
    pub fn transfers(&self) -> impl Iterator<Item = (&Transfer, Standing)> {
        self.transfers.values().map(|(transfer, standing)| (transfer, *standing))
    }

    /// The sums of one account; zero where nothing was booked.
    pub fn balance(&self, account: &Account) -> Balance {
        self.balances.get(account).map(|(_, balance)| *balance).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merchant() -> Merchant {
        Merchant { channel: "wechatpay".into(), number: "1900000001".into() }
    }

    fn transfer(id: &str, amount: i64, currency: Currency) -> Transfer {
        Transfer {
            id: TransferId::stored(id.into()),
            order: OrderId::new(0x2b),
            debit: Account::Receivable(merchant()),
            credit: Account::Suspense(OrderId::new(0x2b)),
            amount: Money::new(amount, currency).expect("in range"),
        }
    }

    #[test]
    fn names_of_accounts_round_trip() {
        for account in [
            Account::Receivable(merchant()),
            Account::Suspense(OrderId::new(7)),
            Account::Payee("traffic-430100".into()),
            Account::Refunds(merchant()),
            Account::Treasury("traffic-430100".into()),
            Account::Fees(merchant()),
        ] {
            assert_eq!(account.to_string().parse(), Ok(account));
        }
    }

    #[test]
    fn what_is_no_account_is_refused() {
        for text in [
            "",
            "suspense",
            "suspense/x",
            "payee/",
            "payee/a/b",
            "channel/wechatpay",
            "channel//1",
            "bank/x",
            "payee/ä",
        ] {
            assert_eq!(text.parse::<Account>(), Err(BadAccount), "{text:?}");
        }
    }

    #[test]
    fn one_order_books_on_one_shard_of_each_account() {
        let order = OrderId::new(0x2b);
        assert_eq!(Account::Suspense(order).shard(order), 0);
        assert_eq!(Account::Payee("p".into()).shard(order), 0x2b % SHARDS);
        let rows = deltas(&[
            Entry::Reserve(transfer("a", 5, Currency::CNY)),
            Entry::Decide(transfer("a", 5, Currency::CNY), Verdict::Posted),
        ]);
        let rows = rows.expect("folds");
        let pending: Vec<_> = rows.iter().map(|row| row.change.debit_pending + row.change.credit_pending).collect();
        assert_eq!(pending, [0, 0]);
        assert_eq!(rows.iter().map(|row| row.change.debit_posted).sum::<i64>(), 5);
        assert_eq!(rows.iter().map(|row| row.change.credit_posted).sum::<i64>(), 5);
    }

    #[test]
    fn a_transfer_has_two_sides_and_an_amount() {
        let mut same = transfer("a", 5, Currency::CNY);
        same.credit = same.debit.clone();
        for bad in [transfer("a", 0, Currency::CNY), transfer("a", -5, Currency::CNY), same] {
            assert_eq!(Ledger::default().book(&[Entry::Post(bad.clone())]), Err(LedgerError::Shape));
            assert_eq!(deltas(&[Entry::Post(bad)]), Err(LedgerError::Shape));
        }
    }

    #[test]
    fn an_id_books_once_and_is_decided_once() {
        let mut ledger = Ledger::default();
        let one = transfer("a", 5, Currency::CNY);
        assert_eq!(ledger.book(&[Entry::Decide(one.clone(), Verdict::Posted)]), Err(LedgerError::NotReserved));
        ledger.book(&[Entry::Reserve(one.clone())]).expect("reserves");
        assert_eq!(ledger.book(&[Entry::Reserve(one.clone())]), Err(LedgerError::Exists));
        let other = transfer("a", 6, Currency::CNY);
        assert_eq!(ledger.book(&[Entry::Decide(other, Verdict::Posted)]), Err(LedgerError::NotReserved));
        ledger.book(&[Entry::Decide(one.clone(), Verdict::Voided)]).expect("voids");
        assert_eq!(ledger.book(&[Entry::Decide(one, Verdict::Posted)]), Err(LedgerError::Exists));
        assert!(ledger.balances().all(|(_, _, balance)| balance == Balance::default()));
    }

    #[test]
    fn currencies_never_meet_in_an_account() {
        let dollars: Currency = "USD".parse().expect("a code");
        let mut ledger = Ledger::default();
        ledger.book(&[Entry::Post(transfer("a", 5, Currency::CNY))]).expect("books");
        assert_eq!(ledger.book(&[Entry::Post(transfer("b", 5, dollars))]), Err(LedgerError::Currency));
        let both = [Entry::Post(transfer("a", 5, Currency::CNY)), Entry::Post(transfer("b", 5, dollars))];
        assert_eq!(deltas(&both), Err(LedgerError::Currency));
    }

    #[test]
    fn what_is_not_there_cannot_leave() {
        let mut ledger = Ledger::default();
        ledger.book(&[Entry::Post(transfer("in", 5, Currency::CNY))]).expect("books");
        let mut out = transfer("out", 3, Currency::CNY);
        std::mem::swap(&mut out.debit, &mut out.credit);
        ledger.book(&[Entry::Reserve(out.clone())]).expect("reserves");
        let again = Transfer { id: TransferId::stored("again".into()), ..out };
        assert_eq!(ledger.book(&[Entry::Post(again)]), Err(LedgerError::Floor));
    }
}
