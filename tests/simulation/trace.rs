//! The trace of a run: everything that happened, each with its time, in the order of time.

use runtime::Timestamp;
use serde_json::Value;
use store::{Db, Row, params};

use crate::hosts::Ground;
use crate::record::Record;

/// Rows that are read at once.
const PAGE: i64 = 5_000;

/// Gathers what was seen, what the services wrote down and what the world outside wrote down.
pub(crate) async fn gather(ground: &Ground, record: &Record) -> anyhow::Result<Vec<String>> {
    let mut events = record.seen().events.clone();
    events.extend(case_events(&ground.cases).await?);
    events.extend(transfers(&ground.payments).await?);
    events.extend(told(&ground.payments).await?);
    for system in ["wechatpay", "police-430100", "police-140100"] {
        events.extend(journal(system, &ground.journals.text(system))?);
    }
    // The sort is stable: what happened at once stays in the order in which its own book has it.
    events.sort_by_key(|(at, _)| *at);
    Ok(events.into_iter().map(|(at, what)| format!("{} {what}", at.micros())).collect())
}

type Events = Vec<(Timestamp, String)>;

async fn case_events(db: &Db) -> anyhow::Result<Events> {
    const SQL: &str = "SELECT committed_at AS at, case_id, sequence, to_state, actor, reason FROM case_events
        ORDER BY committed_at, case_id, sequence LIMIT $1 OFFSET $2";
    rows(db, SQL, |row| {
        let (case, number): (String, i64) = (row.get("case_id")?, row.get("sequence")?);
        let (state, actor, reason): (String, String, String) =
            (row.get("to_state")?, row.get("actor")?, row.get("reason")?);
        Ok(format!("case {case} {number} {state} {actor} {reason}"))
    })
    .await
}

async fn transfers(db: &Db) -> anyhow::Result<Events> {
    const SQL: &str =
        "SELECT booked_at AS at, transfer_id, order_id, debit_account, credit_account, amount_minor FROM transfers
        ORDER BY booked_at, transfer_id LIMIT $1 OFFSET $2";
    rows(db, SQL, |row| {
        let (id, order): (String, String) = (row.get("transfer_id")?, row.get("order_id")?);
        let (debit, credit): (String, String) = (row.get("debit_account")?, row.get("credit_account")?);
        let amount: i64 = row.get("amount_minor")?;
        Ok(format!("transfer {id} {order} {debit} {credit} {amount}"))
    })
    .await
}

async fn told(db: &Db) -> anyhow::Result<Events> {
    const SQL: &str = "SELECT appended_at AS at, stream, seq, event_key FROM outbox_event
        ORDER BY stream, seq LIMIT $1 OFFSET $2";
    rows(db, SQL, |row| {
        let (stream, number, key): (String, i64, String) = (row.get("stream")?, row.get("seq")?, row.get("event_key")?);
        Ok(format!("event {stream} {number} {key}"))
    })
    .await
}

async fn rows(
    db: &Db,
    sql: &'static str,
    tell: impl Fn(&Row) -> Result<String, store::Error>,
) -> anyhow::Result<Events> {
    let mut reader = db.read().await?;
    let mut events = Events::new();
    loop {
        let offset = i64::try_from(events.len())?;
        let page = reader.fetch_all(sql, params![PAGE, offset]).await?;
        if page.is_empty() {
            return Ok(events);
        }
        for row in &page {
            events.push((Timestamp::from_micros(row.get("at")?), tell(row)?));
        }
    }
}

/// The lines of a journal, which carry their time.
fn journal(system: &str, text: &[u8]) -> anyhow::Result<Events> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let read: Value = serde_json::from_slice(line)?;
            let at = read.get("at").and_then(Value::as_i64).unwrap_or_default();
            Ok((Timestamp::from_micros(at), format!("{system} {}", String::from_utf8_lossy(line))))
        })
        .collect()
}
