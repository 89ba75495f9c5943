//! Receipts, and the numbers of their codes.

use std::collections::BTreeMap;

use contracts::ids::OrderId;
use store::{Kind, Many, Read, Row, Tx, params};

use super::{money, unreadable, word};
use crate::domain::receipt::{Due, Receipt, Series};

static NUMBER_ALL: Many = Many::new(
    &[("code", Kind::Text), ("count", Kind::Int)],
    "INSERT INTO receipt_codes (code, last_number) SELECT code, count FROM {rows} WHERE true
    ON CONFLICT (code) DO UPDATE SET last_number = receipt_codes.last_number + excluded.last_number
    RETURNING code, last_number",
);

static INSERT_ALL: Many = Many::new(
    &[
        ("order_id", Kind::Text),
        ("code", Kind::Text),
        ("number", Kind::Int),
        ("key_id", Kind::Text),
        ("check_code", Kind::Text),
        ("payee_id", Kind::Text),
        ("amount_minor", Kind::Int),
        ("currency", Kind::Text),
        ("issued_at", Kind::Int),
    ],
    "INSERT INTO receipts (order_id, code, number, key_id, check_code, payee_id, amount_minor, currency, issued_at)
    SELECT order_id, code, number, key_id, check_code, payee_id, amount_minor, currency, issued_at FROM {rows}",
);

const GET: &str = "SELECT * FROM receipts WHERE order_id = $1";

const FIND: &str = "SELECT * FROM receipts WHERE code = $1 AND number = $2";

const OF_ORDERS: &str = "SELECT * FROM receipts WHERE order_id > $1 AND order_id <= $2";

const SERIES: &str =
    "SELECT r.code, COUNT(*) AS receipts, MIN(r.number) AS first_number, MAX(r.number) AS highest_number,
    MAX(c.last_number) AS last_number FROM receipts r LEFT JOIN receipt_codes c ON c.code = r.code
    WHERE r.code > $1 GROUP BY r.code ORDER BY r.code LIMIT $2";

const UNUSED: &str = "SELECT code FROM receipt_codes c WHERE code > $1
    AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.code = c.code) ORDER BY code LIMIT $2";

/// Draws numbers: so many of each code, of which the last is handed back. Nobody else draws of these codes until the transaction ends.
pub(crate) async fn number_all(
    tx: &mut Tx,
    counts: &BTreeMap<&str, i64>,
) -> Result<BTreeMap<String, i64>, store::Error> {
    // By code, as the map goes: no two transactions wait for each other in a ring.
    let rows: Vec<_> = counts.iter().map(|(code, count)| params![*code, *count].to_vec()).collect();
    let rows = tx.fetch_many(&NUMBER_ALL, &rows).await?;
    rows.iter().map(|row| Ok((row.get("code")?, row.get("last_number")?))).collect()
}

/// Keeps new receipts.
pub(crate) async fn insert_all(tx: &mut Tx, receipts: &[Receipt]) -> Result<(), store::Error> {
    let row = |Receipt { due, number, key_id, check_code }: &Receipt| {
        params![
            due.order.to_string(),
            due.code,
            *number,
            key_id,
            check_code,
            due.payee_id,
            due.amount.amount_minor(),
            due.amount.currency().as_str(),
            due.at,
        ]
        .to_vec()
    };
    tx.execute_many(&INSERT_ALL, &receipts.iter().map(row).collect::<Vec<_>>()).await.map(|_| ())
}

/// Finds the receipt of an order.
pub(crate) async fn get(reader: &mut impl Read, order: OrderId) -> Result<Option<Receipt>, store::Error> {
    reader.fetch_opt(GET, params![order.to_string()]).await?.as_ref().map(read).transpose()
}

/// Finds a receipt by what is printed on it.
pub(crate) async fn find(reader: &mut impl Read, code: &str, number: i64) -> Result<Option<Receipt>, store::Error> {
    reader.fetch_opt(FIND, params![code, number]).await?.as_ref().map(read).transpose()
}

/// Reads the receipts of the orders with ids above `after` up to `last`.
pub(crate) async fn of_orders(reader: &mut impl Read, after: &str, last: &str) -> Result<Vec<Receipt>, store::Error> {
    reader.fetch_all(OF_ORDERS, params![after, last]).await?.iter().map(read).collect()
}

/// Reads at most `max` codes above `after`, with what their numbers are.
pub(crate) async fn series(reader: &mut impl Read, after: &str, max: u32) -> Result<Vec<Series>, store::Error> {
    let series = |row: &Row| {
        Ok(Series {
            code: row.get("code")?,
            receipts: row.get("receipts")?,
            numbers: (row.get("first_number")?, row.get("highest_number")?),
            last: row.get("last_number")?,
        })
    };
    reader.fetch_all(SERIES, params![after, max]).await?.iter().map(series).collect()
}

/// Reads at most `max` codes above `after` whose numbers were drawn for no receipt.
pub(crate) async fn unused(reader: &mut impl Read, after: &str, max: u32) -> Result<Vec<String>, store::Error> {
    reader.fetch_all(UNUSED, params![after, max]).await?.iter().map(|row| row.get("code")).collect()
}

fn read(row: &Row) -> Result<Receipt, store::Error> {
    let due = Due {
        order: word(row, "order_id")?,
        code: row.get("code")?,
        payee_id: row.get("payee_id")?,
        amount: money(row)?,
        at: row.get("issued_at")?,
    };
    let number: i64 = row.get("number")?;
    if number < 1 {
        return Err(unreadable("number"));
    }
    Ok(Receipt { due, number, key_id: row.get("key_id")?, check_code: row.get("check_code")? })
}
