//! Transfers and balances.

use contracts::ids::OrderId;
use contracts::money::Currency;
use runtime::Timestamp;
use store::{Read, Row, Tx, params};

use super::{money, unreadable, word};
use crate::domain::ledger::{
    Account, Balance, Delta, Entry, LedgerError, Standing, Transfer, TransferId, Verdict, deltas,
};

const INSERT: &str =
    "INSERT INTO transfers (transfer_id, order_id, debit_account, credit_account, amount_minor, currency,
    is_reserved, booked_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (transfer_id) DO NOTHING";

/// Only a reserved transfer, unchanged, can be decided, and only once.
const DECIDE: &str = "INSERT INTO transfer_decisions (transfer_id, verdict, decided_at)
    SELECT transfer_id, $2, $3 FROM transfers
    WHERE transfer_id = $1 AND is_reserved AND debit_account = $4 AND credit_account = $5 AND amount_minor = $6
    AND currency = $7 ON CONFLICT (transfer_id) DO NOTHING";

const ADD: &str =
    "INSERT INTO balances (account, shard, currency, is_floored, debit_posted, credit_posted, debit_pending,
    credit_pending) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (account, shard) DO UPDATE SET debit_posted = balances.debit_posted + excluded.debit_posted,
    credit_posted = balances.credit_posted + excluded.credit_posted,
    debit_pending = balances.debit_pending + excluded.debit_pending,
    credit_pending = balances.credit_pending + excluded.credit_pending
    WHERE balances.currency = excluded.currency";

/// For what cannot stand alone: a pending sum that falls, and what leaves a floored account. Engines check the constraints of an
/// insert before they turn it into an update.
const CHANGE: &str = "UPDATE balances SET debit_posted = debit_posted + $4, credit_posted = credit_posted + $5,
    debit_pending = debit_pending + $6, credit_pending = credit_pending + $7
    WHERE account = $1 AND shard = $2 AND currency = $3";

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

/// Each side by its own index, at most a page of either.
const OF_ACCOUNT: &str = "SELECT t.*, d.verdict FROM (
    SELECT * FROM (SELECT * FROM transfers WHERE debit_account = $1 AND (booked_at, transfer_id) > ($2, $3)
        ORDER BY booked_at, transfer_id LIMIT $4) AS debits
    UNION ALL
    SELECT * FROM (SELECT * FROM transfers WHERE credit_account = $1 AND (booked_at, transfer_id) > ($2, $3)
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

/// Books entries: transfers, decisions and the balances they change.
///
/// Errors: Exists, NotReserved, Currency, Floor and what [`deltas`] refuses; the transaction must then end without effect.
pub(crate) async fn book(tx: &mut Tx, entries: &[Entry], now: Timestamp) -> Result<(), BookError> {
    for entry in entries {
        write(tx, entry, now).await?;
    }
    runtime::crash::point("payments.book.after_transfers");
    for delta in deltas(entries)? {
        add(tx, &delta).await?;
    }
    Ok(())
}

async fn write(tx: &mut Tx, entry: &Entry, now: Timestamp) -> Result<(), BookError> {
    let Transfer { id, order, debit, credit, amount } = entry.transfer();
    let (debit, credit) = (debit.to_string(), credit.to_string());
    let (minor, currency) = (amount.amount_minor(), amount.currency().to_string());
    let is_reserved = matches!(entry, Entry::Reserve(_));
    if let Entry::Decide(_, verdict) = entry {
        let verdict = Standing::from(*verdict).as_str();
        let values = params![id.as_str(), verdict, now, debit, credit, minor, currency];
        return if tx.execute(DECIDE, values).await? == 1 { Ok(()) } else { Err(LedgerError::NotReserved.into()) };
    }
    let values = params![id.as_str(), order.to_string(), debit, credit, minor, currency, is_reserved, now];
    if tx.execute(INSERT, values).await? == 1 { Ok(()) } else { Err(LedgerError::Exists.into()) }
}

async fn add(tx: &mut Tx, delta: &Delta) -> Result<(), BookError> {
    let Delta { account, shard, currency, change } = delta;
    let (name, shard, currency) = (account.to_string(), i64::from(*shard), currency.to_string());
    let Balance { debit_posted, credit_posted, debit_pending, credit_pending } = *change;
    let is_floored = account.is_floored();
    let falls = debit_pending < 0 || credit_pending < 0;
    let leaves = is_floored && (debit_posted > 0 || debit_pending > 0);
    let (changed, otherwise) = if falls || leaves {
        let values = params![name, shard, currency, debit_posted, credit_posted, debit_pending, credit_pending];
        (tx.execute(CHANGE, values).await, LedgerError::Floor)
    } else {
        let values =
            params![name, shard, currency, is_floored, debit_posted, credit_posted, debit_pending, credit_pending];
        (tx.execute(ADD, values).await, LedgerError::Currency)
    };
    match changed {
        Ok(1) => Ok(()),
        Ok(_) => Err(otherwise.into()),
        Err(store::Error::Refused { rule }) if rule == "balances_floor" => Err(LedgerError::Floor.into()),
        Err(error) => Err(error.into()),
    }
}

/// Sums an account over its shards; None where nothing was ever booked on it.
pub(crate) async fn sum(
    reader: &mut impl Read,
    account: &Account,
) -> Result<Option<(Currency, Balance)>, store::Error> {
    let row = reader.fetch_opt(SUM, params![account.to_string()]).await?;
    row.map(|row| Ok((word(&row, "currency")?, balance(&row)?))).transpose()
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
        balance: balance(row)?,
    })
}

/// Where the next page of transfers begins: behind this (booked, id).
pub(crate) type After = (Timestamp, String);

/// Reads at most `max` transfers of an order (and, unless it is None, of an account), by (booked, id).
pub(crate) async fn of_order(
    reader: &mut impl Read,
    order: OrderId,
    account: Option<&Account>,
    after: &After,
    max: u32,
) -> Result<Vec<Booked>, store::Error> {
    let account = account.map(ToString::to_string).unwrap_or_default();
    let values = params![order.to_string(), account, after.0, after.1, max];
    reader.fetch_all(OF_ORDER, values).await?.iter().map(read).collect()
}

/// Reads at most `max` transfers of an account, by (booked, id).
pub(crate) async fn of_account(
    reader: &mut impl Read,
    account: &Account,
    after: &After,
    max: u32,
) -> Result<Vec<Booked>, store::Error> {
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
        order: word(row, "order_id")?,
        debit: word(row, "debit_account")?,
        credit: word(row, "credit_account")?,
        amount: money(row)?,
    };
    Ok(Booked { transfer, standing, at: row.get("booked_at")? })
}

fn balance(row: &Row) -> Result<Balance, store::Error> {
    Ok(Balance {
        debit_posted: row.get("debit_posted")?,
        credit_posted: row.get("credit_posted")?,
        debit_pending: row.get("debit_pending")?,
        credit_pending: row.get("credit_pending")?,
    })
}
