//! Refunds.

use std::collections::BTreeMap;

use contracts::ids::RefundId;
use store::{Kind, Many, Read, Row, Tx, params};

use super::{insured, money, word};
use crate::domain::refund::Refund;

static INSERT_ALL: Many = Many::new(
    &[
        ("refund_id", Kind::Text),
        ("order_id", Kind::Text),
        ("caller", Kind::Text),
        ("request_id", Kind::Text),
        ("amount_minor", Kind::Int),
        ("currency", Kind::Text),
        ("reason", Kind::Text),
        ("created_at", Kind::Int),
        ("send_by", Kind::Int),
        ("is_after_settlement", Kind::Bool),
        ("version", Kind::Int),
        ("state", Kind::Text),
        ("is_sent", Kind::Bool),
        ("cash_minor", Kind::Int),
        ("government_minor", Kind::Int),
        ("personal_minor", Kind::Int),
        ("other_minor", Kind::Int),
        ("insurance_returned_at", Kind::Int),
    ],
    "INSERT INTO refunds (refund_id, order_id, caller, request_id, amount_minor, currency, reason, created_at, send_by,
    is_after_settlement, version, state, is_sent, cash_minor, government_minor, personal_minor, other_minor,
    insurance_returned_at) SELECT refund_id, order_id, caller, request_id, amount_minor, currency,
    reason, created_at, send_by, is_after_settlement, version, state, is_sent, cash_minor, government_minor, personal_minor, other_minor,
    insurance_returned_at FROM {rows}",
);

static UPDATE_ALL: Many = Many::new(
    &[
        ("refund_id", Kind::Text),
        ("seen_version", Kind::Int),
        ("version", Kind::Int),
        ("state", Kind::Text),
        ("is_sent", Kind::Bool),
        ("channel_refund", Kind::Text),
        ("success_at", Kind::Int),
        ("refusal", Kind::Text),
    ],
    "UPDATE refunds SET version = r.version, state = r.state, is_sent = r.is_sent, channel_refund = r.channel_refund,
    success_at = r.success_at, refusal = r.refusal FROM {rows}
    WHERE refunds.refund_id = r.refund_id AND refunds.version = r.seen_version",
);

static LOCK_ALL: Many = Many::new(
    &[("refund_id", Kind::Text)],
    "SELECT * FROM refunds WHERE refund_id IN (SELECT refund_id FROM {rows}) ORDER BY refund_id {lock}",
);

const GET: &str = "SELECT * FROM refunds WHERE refund_id = $1";

const OF_ORDERS: &str = "SELECT * FROM refunds WHERE order_id > $1 AND order_id <= $2 ORDER BY order_id, refund_id";

/// Keeps new refunds.
pub(crate) async fn insert_all(tx: &mut Tx, refunds: &[Refund]) -> Result<(), store::Error> {
    let row = |refund: &Refund| {
        params![
            refund.id.to_string(),
            refund.order.to_string(),
            refund.caller,
            refund.request_id,
            refund.amount.amount_minor(),
            refund.amount.currency().as_str(),
            refund.reason,
            refund.created_at,
            refund.send_by,
            refund.is_after_settlement,
            refund.version,
            refund.state.to_string(),
            refund.is_sent,
            refund.legs.map(|legs| legs.cash),
            refund.legs.map(|legs| legs.funds.government),
            refund.legs.map(|legs| legs.funds.personal),
            refund.legs.map(|legs| legs.funds.other),
            refund.insurance_returned_at,
        ]
        .to_vec()
    };
    tx.execute_many(&INSERT_ALL, &refunds.iter().map(row).collect::<Vec<_>>()).await.map(|_| ())
}

/// Keeps changed refunds, each with the version that it was read with; how many nobody had changed since.
pub(crate) async fn update_all(tx: &mut Tx, refunds: &[(i64, &Refund)]) -> Result<u64, store::Error> {
    let row = |(seen, refund): &(i64, &Refund)| {
        params![
            refund.id.to_string(),
            *seen,
            refund.version,
            refund.state.to_string(),
            refund.is_sent,
            refund.channel_refund,
            refund.success_at,
            refund.refusal,
        ]
        .to_vec()
    };
    tx.execute_many(&UPDATE_ALL, &refunds.iter().map(row).collect::<Vec<_>>()).await
}

/// Finds refunds by their ids, to be changed: nobody else changes them until the transaction ends.
pub(crate) async fn lock_all(
    tx: &mut Tx,
    ids: impl Iterator<Item = RefundId>,
) -> Result<BTreeMap<RefundId, Refund>, store::Error> {
    let rows: Vec<_> = ids.map(|id| params![id.to_string()].to_vec()).collect();
    let rows = tx.fetch_many(&LOCK_ALL, &rows).await?;
    rows.iter().map(|row| read(row).map(|refund| (refund.id, refund))).collect()
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
        legs: insured::legs(row, ["cash_minor", "government_minor", "personal_minor", "other_minor"])?,
        insurance_returned_at: row.get("insurance_returned_at")?,
        reason: row.get("reason")?,
        created_at: row.get("created_at")?,
        send_by: row.get("send_by")?,
        is_after_settlement: row.get("is_after_settlement")?,
        version: row.get("version")?,
        state: word(row, "state")?,
        is_sent: row.get("is_sent")?,
        channel_refund: row.get("channel_refund")?,
        success_at: row.get("success_at")?,
        refusal: row.get("refusal")?,
    })
}
