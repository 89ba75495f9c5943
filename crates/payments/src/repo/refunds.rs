//! Refunds.

use contracts::ids::RefundId;
use store::{Read, Row, Tx, params};

use super::{money, word};
use crate::domain::refund::Refund;

const INSERT: &str =
    "INSERT INTO refunds (refund_id, order_id, caller, request_id, amount_minor, currency, reason, created_at,
    version, state, is_sent, channel_refund, success_at, refusal)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";

const UPDATE: &str =
    "UPDATE refunds SET version = version + 1, state = $3, is_sent = $4, channel_refund = $5, success_at = $6,
    refusal = $7 WHERE refund_id = $1 AND version = $2";

const GET: &str = "SELECT * FROM refunds WHERE refund_id = $1";

const OF_ORDERS: &str = "SELECT * FROM refunds WHERE order_id > $1 AND order_id <= $2 ORDER BY order_id, refund_id";

/// Keeps a new refund.
pub(crate) async fn insert(tx: &mut Tx, refund: &Refund) -> Result<(), store::Error> {
    let values = params![
        refund.id.to_string(),
        refund.order.to_string(),
        refund.caller,
        refund.request_id,
        refund.amount.amount_minor(),
        refund.amount.currency().as_str(),
        refund.reason,
        refund.created_at,
        refund.version,
        refund.state.to_string(),
        refund.is_sent,
        refund.channel_refund,
        refund.success_at,
        refund.refusal,
    ];
    tx.execute(INSERT, values).await.map(|_| ())
}

/// Keeps a changed refund; false when it was changed by another since it was read.
pub(crate) async fn update(tx: &mut Tx, refund: &Refund) -> Result<bool, store::Error> {
    let values = params![
        refund.id.to_string(),
        refund.version,
        refund.state.to_string(),
        refund.is_sent,
        refund.channel_refund,
        refund.success_at,
        refund.refusal,
    ];
    Ok(tx.execute(UPDATE, values).await? == 1)
}

/// Finds a refund by its id.
pub(crate) async fn get(reader: &mut impl Read, id: RefundId) -> Result<Option<Refund>, store::Error> {
    reader.fetch_opt(GET, params![id.to_string()]).await?.as_ref().map(read).transpose()
}

/// Reads the refunds of the orders with ids above `after` up to `last`.
pub(crate) async fn of_orders(reader: &mut impl Read, after: &str, last: &str) -> Result<Vec<Refund>, store::Error> {
    reader.fetch_all(OF_ORDERS, params![after, last]).await?.iter().map(read).collect()
}

fn read(row: &Row) -> Result<Refund, store::Error> {
    Ok(Refund {
        id: word(row, "refund_id")?,
        order: word(row, "order_id")?,
        caller: row.get("caller")?,
        request_id: row.get("request_id")?,
        amount: money(row)?,
        reason: row.get("reason")?,
        created_at: row.get("created_at")?,
        version: row.get("version")?,
        state: word(row, "state")?,
        is_sent: row.get("is_sent")?,
        channel_refund: row.get("channel_refund")?,
        success_at: row.get("success_at")?,
        refusal: row.get("refusal")?,
    })
}
