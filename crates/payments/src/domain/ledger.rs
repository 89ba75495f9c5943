//! The double-entry ledger: accounts, immutable transfers, balances.
//!
//! A transfer is written once and never changed. One that waits for a decision (`pending`) reserves its amount; the decision is
//! a second immutable record that posts or voids it. A balance is nothing but the sum of the transfers of its account.

mod account;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use contracts::ids::{OrderId, ParseIdError, RefundId, RunId, SettlementId};
use contracts::money::{Currency, Money};
use runtime::Timestamp;

pub use account::{Account, BadAccount, Merchant, is_part};

/// Balance rows that one busy account is spread over. Rows of one order always lie in the same shard.
pub const SHARDS: u8 = 8;

/// A transfer's id: made from what it belongs to and the step that makes it, so that a step cannot book twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransferId(String);

impl TransferId {
    /// The capture of an order.
    pub fn capture(order: OrderId) -> Self {
        Self(format!("{order}/capture"))
    }

    /// What the insurance owes of a mixed order, since it is paid.
    pub fn insured_capture(order: OrderId) -> Self {
        Self(format!("{order}/insured"))
    }

    /// The posting of an order to its payee.
    pub fn post(order: OrderId) -> Self {
        Self(format!("{order}/post"))
    }

    /// The reservation of a refund; pending until the channel has decided.
    pub fn refund(refund: RefundId) -> Self {
        Self(format!("{refund}/reserve"))
    }

    /// The same of what goes back to the insurance.
    pub fn insured_refund(refund: RefundId) -> Self {
        Self(format!("{refund}/reserve-insured"))
    }

    /// The money of a refund leaving through the channel.
    pub fn payout(refund: RefundId) -> Self {
        Self(format!("{refund}/payout"))
    }

    /// The paying over of a settlement.
    pub fn pay_over(settlement: SettlementId) -> Self {
        Self(format!("{settlement}/pay_over"))
    }

    /// A day's fee: the first transfer, or a correction.
    pub fn fee(run: RunId, number: usize) -> Self {
        Self(format!("{run}/fee/{number}"))
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

/// What a transfer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An order; its refunds' transfers too.
    Order(OrderId),
    /// A settlement.
    Settlement(SettlementId),
    /// A merchant account's day: what the channel charged for it.
    Run(RunId),
}

impl Subject {
    /// The order, where it is one.
    pub fn order(self) -> Option<OrderId> {
        match self {
            Self::Order(order) => Some(order),
            Self::Settlement(_) | Self::Run(_) => None,
        }
    }

    fn bits(self) -> u128 {
        match self {
            Self::Order(order) => order.bits(),
            Self::Settlement(settlement) => settlement.bits(),
            Self::Run(run) => run.bits(),
        }
    }
}

impl From<OrderId> for Subject {
    fn from(order: OrderId) -> Self {
        Self::Order(order)
    }
}

impl From<RunId> for Subject {
    fn from(run: RunId) -> Self {
        Self::Run(run)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order(order) => order.fmt(f),
            Self::Settlement(settlement) => settlement.fmt(f),
            Self::Run(run) => run.fmt(f),
        }
    }
}

impl FromStr for Subject {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if text.starts_with(SettlementId::PREFIX) {
            return text.parse().map(Self::Settlement);
        }
        if text.starts_with(RunId::PREFIX) {
            return text.parse().map(Self::Run);
        }
        text.parse().map(Self::Order)
    }
}

/// Money that moves from the credited account's view to the debited one's. Immutable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Unique for ever.
    pub id: TransferId,
    /// What it belongs to.
    pub subject: Subject,
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
    /// A transfer that reserves its amount until it is decided, and when it ends by itself.
    Reserve(Transfer, Timestamp),
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
            Self::Post(transfer) | Self::Reserve(transfer, _) | Self::Decide(transfer, _) => transfer,
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
            Self::Reserve(..) => {
                (Balance { debit_pending: amount, ..zero }, Balance { credit_pending: amount, ..zero })
            }
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
            let key = (account.clone(), account.shard(transfer.subject));
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
            Entry::Reserve(..) => Standing::Pending,
            Entry::Decide(_, verdict) => Standing::from(*verdict),
        };
        match (entry, self.transfers.get(&transfer.id)) {
            (Entry::Post(_) | Entry::Reserve(..), None) => {}
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
mod tests;
