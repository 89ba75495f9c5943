//! What the books tell of a day, page by page, each by an index that is there for other reasons. The indexes on accounts leave suspense out,
//! and an engine takes them only where the query says so too.

use contracts::ids::{OrderId, RefundId};
use contracts::money::Money;
use runtime::Timestamp;
use store::{Read, Row, params};

use super::ledger::After;
use super::{money, word};
use crate::domain::ledger::{Account, Merchant};
use crate::domain::order::State;
use crate::domain::refund::State as RefundState;

const ACCOUNTS: &str = "SELECT DISTINCT account FROM balances WHERE account >= $1 AND account < $2 ORDER BY account";

const CAPTURES: &str = "SELECT t.transfer_id, t.booked_at, t.amount_minor, t.currency, o.channel_order_no AS name,
    o.paid_at AS happened_at FROM transfers t JOIN orders o ON o.order_id = t.order_id
    WHERE t.debit_account = $1 AND t.debit_account NOT LIKE 'suspense/%' AND (t.booked_at, t.transfer_id) > ($2, $3) AND t.booked_at < $4
    ORDER BY t.booked_at, t.transfer_id LIMIT $5";

const POSTINGS: &str = "SELECT t.transfer_id, t.booked_at, t.amount_minor, t.currency, o.channel_transaction AS name,
    t.booked_at AS happened_at FROM transfers t JOIN orders o ON o.order_id = t.order_id
    WHERE t.credit_account = $1 AND t.credit_account NOT LIKE 'suspense/%' AND (t.booked_at, t.transfer_id) > ($2, $3) AND t.booked_at < $4
    ORDER BY t.booked_at, t.transfer_id LIMIT $5";

const UNPAID: &str = "SELECT order_id, channel, merchant, channel_order_no,
    COALESCE(cash_minor, amount_minor) AS amount_minor, currency, state, created_at
    FROM orders WHERE order_id > $1 AND order_id <= $2 AND captured_minor = 0 ORDER BY order_id LIMIT $3";

const REFUNDS: &str = "SELECT r.refund_id, COALESCE(r.cash_minor, r.amount_minor) AS amount_minor, r.currency, r.state, r.created_at, r.success_at, o.channel,
    o.merchant FROM refunds r JOIN orders o ON o.order_id = r.order_id
    WHERE r.refund_id > $1 AND r.refund_id <= $2 ORDER BY r.refund_id LIMIT $3";

/// A transfer with what the other side knows it by.
pub(crate) struct Moved {
    pub(crate) after: After,
    /// None where the channel has not told its number.
    pub(crate) name: Option<String>,
    pub(crate) amount: Money,
    /// None where the channel has not told when.
    pub(crate) at: Option<Timestamp>,
}

/// An order that nobody paid.
pub(crate) struct Unpaid {
    pub(crate) id: OrderId,
    pub(crate) merchant: Merchant,
    pub(crate) name: String,
    pub(crate) amount: Money,
    pub(crate) state: State,
    pub(crate) created_at: Timestamp,
}

/// A refund with the account that it goes through.
pub(crate) struct Returned {
    pub(crate) id: RefundId,
    pub(crate) merchant: Merchant,
    pub(crate) amount: Money,
    pub(crate) state: RefundState,
    pub(crate) created_at: Timestamp,
    pub(crate) success_at: Option<Timestamp>,
}

/// Every account whose name begins with a kind, such as `payee`.
pub(crate) async fn accounts(reader: &mut impl Read, kind: &str) -> Result<Vec<Account>, store::Error> {
    // The character after the slash.
    let rows = reader.fetch_all(ACCOUNTS, params![format!("{kind}/"), format!("{kind}0")]).await?;
    rows.iter().map(|row| word(row, "account")).collect()
}

/// Reads at most `max` captures that were booked on a merchant account before `until`.
pub(crate) async fn captures(
    reader: &mut impl Read,
    account: &Account,
    after: &After,
    until: Timestamp,
    max: u32,
) -> Result<Vec<Moved>, store::Error> {
    let values = params![account.to_string(), after.0, after.1, until, max];
    reader.fetch_all(CAPTURES, values).await?.iter().map(moved).collect()
}

/// Reads at most `max` postings to a payee that were booked before `until`.
pub(crate) async fn postings(
    reader: &mut impl Read,
    account: &Account,
    after: &After,
    until: Timestamp,
    max: u32,
) -> Result<Vec<Moved>, store::Error> {
    let values = params![account.to_string(), after.0, after.1, until, max];
    reader.fetch_all(POSTINGS, values).await?.iter().map(moved).collect()
}

/// Reads at most `max` unpaid orders with ids above `after` up to `last`.
pub(crate) async fn unpaid(
    reader: &mut impl Read,
    after: OrderId,
    last: OrderId,
    max: u32,
) -> Result<Vec<Unpaid>, store::Error> {
    let rows = reader.fetch_all(UNPAID, params![after.to_string(), last.to_string(), max]).await?;
    let read = |row: &Row| {
        Ok(Unpaid {
            id: word(row, "order_id")?,
            merchant: merchant(row)?,
            name: row.get("channel_order_no")?,
            amount: money(row)?,
            state: word(row, "state")?,
            created_at: row.get("created_at")?,
        })
    };
    rows.iter().map(read).collect()
}

/// Reads at most `max` refunds with ids above `after` up to `last`.
pub(crate) async fn refunds(
    reader: &mut impl Read,
    after: RefundId,
    last: RefundId,
    max: u32,
) -> Result<Vec<Returned>, store::Error> {
    let rows = reader.fetch_all(REFUNDS, params![after.to_string(), last.to_string(), max]).await?;
    let read = |row: &Row| {
        Ok(Returned {
            id: word(row, "refund_id")?,
            merchant: merchant(row)?,
            amount: money(row)?,
            state: word(row, "state")?,
            created_at: row.get("created_at")?,
            success_at: row.get("success_at")?,
        })
    };
    rows.iter().map(read).collect()
}

fn moved(row: &Row) -> Result<Moved, store::Error> {
    let after = (row.get("booked_at")?, row.get("transfer_id")?);
    Ok(Moved { after, name: row.get("name")?, amount: money(row)?, at: row.get("happened_at")? })
}

fn merchant(row: &Row) -> Result<Merchant, store::Error> {
    Ok(Merchant { channel: row.get("channel")?, number: row.get("merchant")? })
}
