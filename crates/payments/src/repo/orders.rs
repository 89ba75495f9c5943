//! Orders.

use std::collections::BTreeMap;
use std::sync::Arc;

use contracts::ids::{CombinedOrderId, OrderId};
use store::{Kind, Many, Read, Row, Tx, params};

use super::{insured, money, word};
use crate::domain::combined::{Part, Shape};
use crate::domain::ledger::Merchant;
use crate::domain::order::{Order, Tally, Terms};

/// What a new order has; the rest begins as nothing.
static INSERT_ALL: Many = Many::new(
    &[
        ("order_id", Kind::Text),
        ("caller", Kind::Text),
        ("request_id", Kind::Text),
        ("case_id", Kind::Text),
        ("payee_id", Kind::Text),
        ("amount_minor", Kind::Int),
        ("currency", Kind::Text),
        ("channel", Kind::Text),
        ("merchant", Kind::Text),
        ("app_id", Kind::Text),
        ("trade_type", Kind::Text),
        ("channel_order_no", Kind::Text),
        ("notify_url", Kind::Text),
        ("description", Kind::Text),
        ("created_at", Kind::Int),
        ("expire_at", Kind::Int),
        ("version", Kind::Int),
        ("state", Kind::Text),
        ("is_sent", Kind::Bool),
        ("is_closing", Kind::Bool),
        ("is_late", Kind::Bool),
        ("payer_sealed", Kind::Bytes),
        ("combined_id", Kind::Text),
        ("part_number", Kind::Int),
        ("part_count", Kind::Int),
        ("combined_request_id", Kind::Text),
        ("payment_code", Kind::Text),
        ("receipt_prefix", Kind::Text),
        ("insured", Kind::Text),
        ("cash_minor", Kind::Int),
        ("government_minor", Kind::Int),
        ("personal_minor", Kind::Int),
        ("other_minor", Kind::Int),
    ],
    "INSERT INTO orders (order_id, caller, request_id, case_id, payee_id, amount_minor, currency, channel, merchant, app_id,
    trade_type, channel_order_no, notify_url, description, created_at, expire_at, version, state, is_sent, is_closing,
    is_late, payer_sealed, combined_id, part_number, part_count, combined_request_id, payment_code, receipt_prefix, insured, cash_minor,
    government_minor, personal_minor, other_minor, captured_minor, refunding_minor, refunded_minor,
    posted_minor)
    SELECT order_id, caller, request_id, case_id, payee_id, amount_minor, currency, channel, merchant, app_id, trade_type,
    channel_order_no, notify_url, description, created_at, expire_at, version, state, is_sent, is_closing, is_late,
    payer_sealed, combined_id, part_number, part_count, combined_request_id, payment_code, receipt_prefix, insured, cash_minor, government_minor,
    personal_minor, other_minor, 0, 0, 0, 0 FROM {rows}",
);

const GET: &str = "SELECT * FROM orders WHERE order_id = $1";

const PAGE: &str = "SELECT * FROM orders WHERE order_id > $1 ORDER BY order_id LIMIT $2";

const PARTS: &str = "SELECT * FROM orders WHERE combined_id = $1 ORDER BY part_number";

const SHAPES: &str =
    "SELECT combined_id, COUNT(*) AS parts, MIN(part_number) AS first_number, MAX(part_number) AS last_number,
    MAX(part_count) AS made, COUNT(DISTINCT part_count) + COUNT(DISTINCT caller) + COUNT(DISTINCT combined_request_id) + COUNT(DISTINCT channel) + COUNT(DISTINCT app_id)
    + COUNT(DISTINCT trade_type) + COUNT(DISTINCT expire_at) AS kinds
    FROM orders WHERE combined_id > $1 GROUP BY combined_id ORDER BY combined_id LIMIT $2";

static LOCK_ALL: Many = Many::new(
    &[("order_id", Kind::Text)],
    "SELECT * FROM orders WHERE order_id IN (SELECT order_id FROM {rows}) ORDER BY order_id {lock}",
);

static UPDATE_ALL: Many = Many::new(
    &[
        ("order_id", Kind::Text),
        ("seen_version", Kind::Int),
        ("version", Kind::Int),
        ("state", Kind::Text),
        ("is_sent", Kind::Bool),
        ("is_closing", Kind::Bool),
        ("is_late", Kind::Bool),
        ("payer_sealed", Kind::Bytes),
        ("sheet", Kind::Bytes),
        ("channel_transaction", Kind::Text),
        ("paid_at", Kind::Int),
        ("proof_serial", Kind::Text),
        ("refusal", Kind::Text),
        ("captured_minor", Kind::Int),
        ("refunding_minor", Kind::Int),
        ("refunded_minor", Kind::Int),
        ("posted_minor", Kind::Int),
        ("given_cash_minor", Kind::Int),
        ("given_government_minor", Kind::Int),
        ("given_personal_minor", Kind::Int),
        ("given_other_minor", Kind::Int),
    ],
    "UPDATE orders SET version = r.version, state = r.state, is_sent = r.is_sent, is_closing = r.is_closing,
    is_late = r.is_late, payer_sealed = r.payer_sealed, sheet = r.sheet, channel_transaction = r.channel_transaction,
    paid_at = r.paid_at, proof_serial = r.proof_serial, refusal = r.refusal, captured_minor = r.captured_minor,
    refunding_minor = r.refunding_minor, refunded_minor = r.refunded_minor, posted_minor = r.posted_minor,
    given_cash_minor = r.given_cash_minor, given_government_minor = r.given_government_minor,
    given_personal_minor = r.given_personal_minor, given_other_minor = r.given_other_minor
    FROM {rows} WHERE orders.order_id = r.order_id AND orders.version = r.seen_version",
);

/// What of each leg is given back.
const GIVEN: [&str; 4] = ["given_cash_minor", "given_government_minor", "given_personal_minor", "given_other_minor"];

/// Keeps new orders.
pub(crate) async fn insert_all(tx: &mut Tx, orders: &[Order]) -> Result<(), store::Error> {
    let row = |order: &Order| {
        let Terms { id, caller, request_id, case_id, payee_id, amount, merchant, app_id, .. } = &*order.terms;
        let Terms { trade_type, channel_order_no, notify_url, description, created_at, expire_at, .. } = &*order.terms;
        let legs = order.legs();
        Ok(params![
            id.to_string(),
            caller,
            request_id,
            case_id,
            payee_id,
            amount.amount_minor(),
            amount.currency().as_str(),
            merchant.channel,
            merchant.number,
            app_id,
            trade_type.to_string(),
            channel_order_no,
            notify_url,
            description,
            created_at,
            expire_at,
            order.version,
            order.state.to_string(),
            order.is_sent,
            order.is_closing,
            order.is_late,
            order.payer_sealed,
            order.part.as_ref().map(|part| part.of.to_string()),
            order.part.as_ref().map(|part| i64::from(part.number)),
            order.part.as_ref().map(|part| i64::from(part.count)),
            order.part.as_ref().map(|part| part.request_id.clone()),
            order.terms.payment_code,
            order.terms.receipt_prefix,
            insured::write(order.terms.insured.as_ref())?,
            legs.map(|legs| legs.cash),
            legs.map(|legs| legs.funds.government),
            legs.map(|legs| legs.funds.personal),
            legs.map(|legs| legs.funds.other),
        ]
        .to_vec())
    };
    let rows = orders.iter().map(row).collect::<Result<Vec<_>, store::Error>>()?;
    tx.execute_many(&INSERT_ALL, &rows).await.map(|_| ())
}

/// Keeps changed orders, each with the version that it was read with; how many nobody had changed since.
pub(crate) async fn update_all(tx: &mut Tx, orders: &[(i64, &Order)]) -> Result<u64, store::Error> {
    let row = |(seen, order): &(i64, &Order)| {
        params![
            order.terms.id.to_string(),
            *seen,
            order.version,
            order.state.to_string(),
            order.is_sent,
            order.is_closing,
            order.is_late,
            order.payer_sealed,
            order.sheet,
            order.channel_transaction,
            order.paid_at,
            order.proof_serial,
            order.refusal,
            order.tally.captured,
            order.tally.refunding,
            order.tally.refunded,
            order.tally.posted,
            order.given.cash,
            order.given.funds.government,
            order.given.funds.personal,
            order.given.funds.other,
        ]
        .to_vec()
    };
    tx.execute_many(&UPDATE_ALL, &orders.iter().map(row).collect::<Vec<_>>()).await
}

/// Finds orders by their ids, to be changed: nobody else changes them until the transaction ends.
pub(crate) async fn lock_all(
    tx: &mut Tx,
    ids: impl Iterator<Item = OrderId>,
) -> Result<BTreeMap<OrderId, Order>, store::Error> {
    let rows: Vec<_> = ids.map(|id| params![id.to_string()].to_vec()).collect();
    let rows = tx.fetch_many(&LOCK_ALL, &rows).await?;
    rows.iter().map(|row| read(row).map(|order| (order.terms.id, order))).collect()
}

/// Finds an order by its id.
pub(crate) async fn get(reader: &mut impl Read, id: OrderId) -> Result<Option<Order>, store::Error> {
    reader.fetch_opt(GET, params![id.to_string()]).await?.as_ref().map(read).transpose()
}

/// Reads at most `max` orders with ids above `after`, by id.
pub(crate) async fn page(reader: &mut impl Read, after: &str, max: u32) -> Result<Vec<Order>, store::Error> {
    reader.fetch_all(PAGE, params![after, max]).await?.iter().map(read).collect()
}

/// Finds the parts of a combined order, by their numbers; none where there is no such order.
pub(crate) async fn parts(reader: &mut impl Read, of: CombinedOrderId) -> Result<Vec<Order>, store::Error> {
    reader.fetch_all(PARTS, params![of.to_string()]).await?.iter().map(read).collect()
}

/// Reads at most `max` combined orders with ids above `after`, by id.
pub(crate) async fn shapes(
    reader: &mut impl Read,
    after: &str,
    max: u32,
) -> Result<Vec<(String, Shape)>, store::Error> {
    let shape = |row: &Row| {
        let numbers = (row.get("first_number")?, row.get("last_number")?);
        Ok((
            row.get("combined_id")?,
            Shape { parts: row.get("parts")?, made: row.get("made")?, numbers, kinds: row.get("kinds")? },
        ))
    };
    reader.fetch_all(SHAPES, params![after, max]).await?.iter().map(shape).collect()
}

fn part(row: &Row) -> Result<Option<Part>, store::Error> {
    if row.get::<Option<String>>("combined_id")?.is_none() {
        return Ok(None);
    }
    let small = |column| u32::try_from(row.get::<i64>(column)?).map_err(|_| super::unreadable(column));
    let (number, count) = (small("part_number")?, small("part_count")?);
    Ok(Some(Part { of: word(row, "combined_id")?, number, count, request_id: row.get("combined_request_id")? }))
}

fn read(row: &Row) -> Result<Order, store::Error> {
    Ok(Order {
        terms: Arc::new(Terms {
            id: word(row, "order_id")?,
            caller: row.get("caller")?,
            request_id: row.get("request_id")?,
            case_id: row.get("case_id")?,
            payee_id: row.get("payee_id")?,
            amount: money(row)?,
            merchant: Merchant { channel: row.get("channel")?, number: row.get("merchant")? },
            app_id: row.get("app_id")?,
            trade_type: word(row, "trade_type")?,
            channel_order_no: row.get("channel_order_no")?,
            notify_url: row.get("notify_url")?,
            description: row.get("description")?,
            created_at: row.get("created_at")?,
            expire_at: row.get("expire_at")?,
            payment_code: row.get("payment_code")?,
            receipt_prefix: row.get("receipt_prefix")?,
            insured: insured::read(row)?,
        }),
        part: part(row)?,
        version: row.get("version")?,
        state: word(row, "state")?,
        is_sent: row.get("is_sent")?,
        is_closing: row.get("is_closing")?,
        is_late: row.get("is_late")?,
        payer_sealed: row.get("payer_sealed")?,
        sheet: row.get("sheet")?,
        channel_transaction: row.get("channel_transaction")?,
        paid_at: row.get("paid_at")?,
        proof_serial: row.get("proof_serial")?,
        refusal: row.get("refusal")?,
        tally: Tally {
            captured: row.get("captured_minor")?,
            refunding: row.get("refunding_minor")?,
            refunded: row.get("refunded_minor")?,
            posted: row.get("posted_minor")?,
        },
        given: insured::legs(row, GIVEN)?.ok_or_else(|| super::unreadable("given_cash_minor"))?,
    })
}
