//! Transfers and balances.

use contracts::money::Currency;
use runtime::Timestamp;
use store::{Kind, Many, Read, Row, Tx, Value, params};

use super::{money, unreadable, word};
use crate::domain::ledger::{
    Account, Balance, Delta, Entry, LedgerError, Standing, Subject, Transfer, TransferId, Verdict, deltas,
};

const TRANSFER: &[(&str, Kind)] = &[
    ("transfer_id", Kind::Text),
    ("order_id", Kind::Text),
    ("debit_account", Kind::Text),
    ("credit_account", Kind::Text),
    ("amount_minor", Kind::Int),
    ("currency", Kind::Text),
    ("is_reserved", Kind::Bool),
    ("expires_at", Kind::Int),
    ("booked_at", Kind::Int),
];
static INSERT: Many = Many::new(
    TRANSFER,
    "INSERT INTO transfers (transfer_id, order_id, debit_account, credit_account, amount_minor, currency, is_reserved,
    expires_at, booked_at) SELECT transfer_id, order_id, debit_account, credit_account, amount_minor, currency, is_reserved,
    expires_at, booked_at FROM {rows} WHERE true ON CONFLICT (transfer_id) DO NOTHING",
);

/// Only a reserved transfer, unchanged, can be decided, and only once.
static DECIDE: Many = Many::new(
    &[
        ("transfer_id", Kind::Text),
        ("verdict", Kind::Text),
        ("decided_at", Kind::Int),
        ("debit_account", Kind::Text),
        ("credit_account", Kind::Text),
        ("amount_minor", Kind::Int),
        ("currency", Kind::Text),
    ],
    "INSERT INTO transfer_decisions (transfer_id, verdict, decided_at)
    SELECT t.transfer_id, r.verdict, r.decided_at FROM transfers t JOIN {rows} ON t.transfer_id = r.transfer_id
    WHERE t.is_reserved AND t.debit_account = r.debit_account AND t.credit_account = r.credit_account
    AND t.amount_minor = r.amount_minor AND t.currency = r.currency ON CONFLICT (transfer_id) DO NOTHING",
);

const CHANGE_COLUMNS: &[(&str, Kind)] = &[
    ("account", Kind::Text),
    ("shard", Kind::Int),
    ("currency", Kind::Text),
    ("is_floored", Kind::Bool),
    ("debit_posted", Kind::Int),
    ("credit_posted", Kind::Int),
    ("debit_pending", Kind::Int),
    ("credit_pending", Kind::Int),
];

static ADD: Many = Many::new(
    CHANGE_COLUMNS,
    "INSERT INTO balances (account, shard, currency, is_floored, debit_posted, credit_posted, debit_pending, credit_pending)
    SELECT account, shard, currency, is_floored, debit_posted, credit_posted, debit_pending, credit_pending
    FROM {rows} WHERE true
    ON CONFLICT (account, shard) DO UPDATE SET debit_posted = balances.debit_posted + excluded.debit_posted,
    credit_posted = balances.credit_posted + excluded.credit_posted,
    debit_pending = balances.debit_pending + excluded.debit_pending,
    credit_pending = balances.credit_pending + excluded.credit_pending
    WHERE balances.currency = excluded.currency",
);

/// For what cannot stand alone: a pending sum that falls, and what leaves a floored account. Engines check the constraints of an
/// insert before they turn it into an update, so there is a row first, of nothing.
static BEGIN: Many = Many::new(
    CHANGE_COLUMNS,
    "INSERT INTO balances (account, shard, currency, is_floored, debit_posted, credit_posted, debit_pending, credit_pending)
    SELECT account, shard, currency, is_floored, 0, 0, 0, 0 FROM {rows} WHERE true ON CONFLICT (account, shard) DO NOTHING",
);

static CHANGE: Many = Many::new(
    CHANGE_COLUMNS,
    "UPDATE balances SET debit_posted = balances.debit_posted + r.debit_posted,
    credit_posted = balances.credit_posted + r.credit_posted, debit_pending = balances.debit_pending + r.debit_pending,
    credit_pending = balances.credit_pending + r.credit_pending FROM {rows}
    WHERE balances.account = r.account AND balances.shard = r.shard AND balances.currency = r.currency",
);

const SUM: &str = "SELECT currency, CAST(SUM(debit_posted) AS BIGINT) AS debit_posted,
    CAST(SUM(credit_posted) AS BIGINT) AS credit_posted, CAST(SUM(debit_pending) AS BIGINT) AS debit_pending,
    CAST(SUM(credit_pending) AS BIGINT) AS credit_pending FROM balances WHERE account = $1 GROUP BY currency";

const BALANCES: &str = "SELECT * FROM balances WHERE (account, shard) > ($1, $2) ORDER BY account, shard LIMIT $3";

const BALANCES_BETWEEN: &str = "SELECT * FROM balances WHERE account > $1 AND account <= $2 ORDER BY account, shard";

const OF_ORDERS: &str =
    "SELECT t.*, d.verdict FROM transfers t LEFT JOIN transfer_decisions d ON d.transfer_id = t.transfer_id
    WHERE t.order_id > $1 AND t.order_id <= $2 ORDER BY t.order_id, t.booked_at, t.transfer_id";

const OF_ORDER: &str =
    "SELECT t.*, d.verdict FROM transfers t LEFT JOIN transfer_decisions d ON d.transfer_id = t.transfer_id
    WHERE t.order_id = $1 AND ($2 = '' OR t.debit_account = $2 OR t.credit_account = $2)
    AND (t.booked_at, t.transfer_id) > ($3, $4) ORDER BY t.booked_at, t.transfer_id LIMIT $5";

const ONE: &str =
    "SELECT t.*, d.verdict FROM transfers t LEFT JOIN transfer_decisions d ON d.transfer_id = t.transfer_id
    WHERE t.transfer_id = $1";

/// Of an account that orders share. Each side by its own index, at most a page of either; the indexes leave suspense out, and an engine
/// takes them only where the query says so too.
const OF_ACCOUNT: &str = "SELECT t.*, d.verdict FROM (
    SELECT * FROM (SELECT * FROM transfers WHERE debit_account = $1 AND debit_account NOT LIKE 'suspense/%'
        AND (booked_at, transfer_id) > ($2, $3)
        ORDER BY booked_at, transfer_id LIMIT $4) AS debits
    UNION ALL
    SELECT * FROM (SELECT * FROM transfers WHERE credit_account = $1 AND credit_account NOT LIKE 'suspense/%'
        AND (booked_at, transfer_id) > ($2, $3)
        ORDER BY booked_at, transfer_id LIMIT $4) AS credits
    ) t LEFT JOIN transfer_decisions d ON d.transfer_id = t.transfer_id ORDER BY t.booked_at, t.transfer_id LIMIT $4";

const COUNT: &str = "SELECT COUNT(*) AS number FROM transfers";

/// Why entries were not booked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BookError {
    /// A rule of the ledger.
    #[error("the ledger refuses the entry")]
    Ledger(#[from] LedgerError),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A transfer as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Booked {
    pub(crate) transfer: Transfer,
    pub(crate) standing: Standing,
    /// When a pending one ends by itself.
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) at: Timestamp,
}

/// A row of an account's balance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) account: Account,
    pub(crate) shard: i64,
    pub(crate) currency: Currency,
    pub(crate) balance: Balance,
}

/// Enters entries: transfers and decisions, each kind in one statement. Their balances are to be changed in the same transaction.
///
/// Errors: Exists and NotReserved; the transaction must then end without effect. Of many entries it does not say which one was refused.
pub(crate) async fn enter(tx: &mut Tx, entries: &[Entry], now: Timestamp) -> Result<(), BookError> {
    let (decided, moved): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| matches!(entry, Entry::Decide(..)));
    let moved: Vec<_> = moved.into_iter().map(|entry| transfer(entry, now)).collect();
    all(tx.execute_many(&INSERT, &moved).await?, &moved, LedgerError::Exists)?;
    let decided: Vec<_> = decided.into_iter().filter_map(|entry| decision(entry, now)).collect();
    all(tx.execute_many(&DECIDE, &decided).await?, &decided, LedgerError::NotReserved)
}

/// Changes the balances that entries change: first those of single orders, then those that all orders share. Two batches that change one
/// account in either way may wait for each other: PostgreSQL ends one of them, and its transaction is begun anew.
///
/// Errors: Currency, Floor and what [`deltas`] refuses, as [`enter`].
pub(crate) async fn balance(tx: &mut Tx, entries: &[Entry]) -> Result<(), BookError> {
    let (own, shared): (Vec<_>, Vec<_>) =
        deltas(entries)?.into_iter().partition(|delta| matches!(delta.account, Account::Suspense(_)));
    for deltas in [own, shared] {
        let (hard, plain): (Vec<_>, Vec<_>) = deltas.iter().partition(|delta| is_hard(delta));
        let plain: Vec<_> = plain.into_iter().map(change).collect();
        all(balanced(tx.execute_many(&ADD, &plain).await)?, &plain, LedgerError::Currency)?;
        let hard: Vec<_> = hard.into_iter().map(change).collect();
        tx.execute_many(&BEGIN, &hard).await?;
        all(balanced(tx.execute_many(&CHANGE, &hard).await)?, &hard, LedgerError::Currency)?;
    }
    Ok(())
}

fn transfer(entry: &Entry, now: Timestamp) -> Vec<Value> {
    let Transfer { id, subject, debit, credit, amount } = entry.transfer();
    let expires_at = if let Entry::Reserve(_, until) = entry { Some(*until) } else { None };
    let is_reserved = matches!(entry, Entry::Reserve(..));
    let (minor, currency) = (amount.amount_minor(), amount.currency().to_string());
    params![
        id.as_str(),
        subject.to_string(),
        debit.to_string(),
        credit.to_string(),
        minor,
        currency,
        is_reserved,
        expires_at,
        now
    ]
    .to_vec()
}

fn decision(entry: &Entry, now: Timestamp) -> Option<Vec<Value>> {
    let Entry::Decide(Transfer { id, debit, credit, amount, .. }, verdict) = entry else { return None };
    let verdict = Standing::from(*verdict).as_str();
    let (minor, currency) = (amount.amount_minor(), amount.currency().to_string());
    Some(params![id.as_str(), verdict, now, debit.to_string(), credit.to_string(), minor, currency].to_vec())
}

/// Whether a change cannot stand alone in a row of its own.
fn is_hard(delta: &Delta) -> bool {
    let Balance { debit_posted, debit_pending, credit_pending, .. } = delta.change;
    let falls = debit_pending < 0 || credit_pending < 0;
    falls || delta.account.is_floored() && (debit_posted > 0 || debit_pending > 0)
}

fn change(delta: &Delta) -> Vec<Value> {
    let Delta { account, shard, currency, change } = delta;
    let Balance { debit_posted, credit_posted, debit_pending, credit_pending } = *change;
    let (shard, is_floored) = (i64::from(*shard), account.is_floored());
    let currency = currency.as_str();
    params![
        account.to_string(),
        shard,
        currency,
        is_floored,
        debit_posted,
        credit_posted,
        debit_pending,
        credit_pending
    ]
    .to_vec()
}

fn balanced(changed: Result<u64, store::Error>) -> Result<u64, BookError> {
    changed.map_err(|error| match error {
        store::Error::Refused { rule } if rule == "balances_floor" => LedgerError::Floor.into(),
        error => error.into(),
    })
}

/// All rows must have been changed.
fn all(changed: u64, rows: &[Vec<Value>], otherwise: LedgerError) -> Result<(), BookError> {
    if usize::try_from(changed) == Ok(rows.len()) { Ok(()) } else { Err(otherwise.into()) }
}

/// Sums an account over its shards; None where nothing was ever booked on it.
pub(crate) async fn sum(
    reader: &mut impl Read,
    account: &Account,
) -> Result<Option<(Currency, Balance)>, store::Error> {
    let row = reader.fetch_opt(SUM, params![account.to_string()]).await?;
    row.map(|row| Ok((word(&row, "currency")?, sums(&row)?))).transpose()
}

/// Reads at most `max` balance rows after (account, shard).
pub(crate) async fn balances(reader: &mut impl Read, after: (&str, i64), max: u32) -> Result<Vec<Shard>, store::Error> {
    reader.fetch_all(BALANCES, params![after.0, after.1, max]).await?.iter().map(shard).collect()
}

/// Reads the balance rows of the accounts with names above `after` up to `last`.
pub(crate) async fn balances_between(
    reader: &mut impl Read,
    after: &str,
    last: &str,
) -> Result<Vec<Shard>, store::Error> {
    reader.fetch_all(BALANCES_BETWEEN, params![after, last]).await?.iter().map(shard).collect()
}

fn shard(row: &Row) -> Result<Shard, store::Error> {
    Ok(Shard {
        account: word(row, "account")?,
        shard: row.get("shard")?,
        currency: word(row, "currency")?,
        balance: sums(row)?,
    })
}

/// Where the next page of transfers begins: behind this (booked, id).
pub(crate) type After = (Timestamp, String);

/// Reads at most `max` transfers of an order or settlement (and, unless it is None, of an account), by (booked, id).
pub(crate) async fn of_subject(
    reader: &mut impl Read,
    subject: Subject,
    account: Option<&Account>,
    after: &After,
    max: u32,
) -> Result<Vec<Booked>, store::Error> {
    let account = account.map(ToString::to_string).unwrap_or_default();
    let values = params![subject.to_string(), account, after.0, after.1, max];
    reader.fetch_all(OF_ORDER, values).await?.iter().map(read).collect()
}

/// Reads a transfer.
pub(crate) async fn one(reader: &mut impl Read, id: &TransferId) -> Result<Option<Booked>, store::Error> {
    reader.fetch_opt(ONE, params![id.as_str()]).await?.as_ref().map(read).transpose()
}

/// Reads at most `max` transfers of an account, by (booked, id).
pub(crate) async fn of_account(
    reader: &mut impl Read,
    account: &Account,
    after: &After,
    max: u32,
) -> Result<Vec<Booked>, store::Error> {
    if let Account::Suspense(order) = account {
        return of_subject(reader, (*order).into(), Some(account), after, max).await;
    }
    let values = params![account.to_string(), after.0, after.1, max];
    reader.fetch_all(OF_ACCOUNT, values).await?.iter().map(read).collect()
}

/// Reads the transfers of the orders with ids above `after` up to `last`.
pub(crate) async fn of_orders(reader: &mut impl Read, after: &str, last: &str) -> Result<Vec<Booked>, store::Error> {
    reader.fetch_all(OF_ORDERS, params![after, last]).await?.iter().map(read).collect()
}

/// How many transfers there are.
pub(crate) async fn count(reader: &mut impl Read) -> Result<i64, store::Error> {
    reader.fetch_opt(COUNT, params![]).await?.map_or(Ok(0), |row| row.get("number"))
}

fn read(row: &Row) -> Result<Booked, store::Error> {
    let verdict: Option<String> = row.get("verdict")?;
    let standing = match (row.get::<bool>("is_reserved")?, verdict.as_deref()) {
        (false, None) => Standing::Posted,
        (true, None) => Standing::Pending,
        (true, Some("posted")) => Verdict::Posted.into(),
        (true, Some("voided")) => Verdict::Voided.into(),
        _ => return Err(unreadable("verdict")),
    };
    let transfer = Transfer {
        id: TransferId::stored(row.get("transfer_id")?),
        subject: word(row, "order_id")?,
        debit: word(row, "debit_account")?,
        credit: word(row, "credit_account")?,
        amount: money(row)?,
    };
    Ok(Booked { transfer, standing, expires_at: row.get("expires_at")?, at: row.get("booked_at")? })
}

fn sums(row: &Row) -> Result<Balance, store::Error> {
    Ok(Balance {
        debit_posted: row.get("debit_posted")?,
        credit_posted: row.get("credit_posted")?,
        debit_pending: row.get("debit_pending")?,
        credit_pending: row.get("credit_pending")?,
    })
}
