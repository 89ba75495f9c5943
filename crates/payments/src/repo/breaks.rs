//! Breaks.

use std::str::FromStr;

use jiff::civil::Date;
use store::{Read, Row, Tx, params};

use super::{unreadable, word};
use crate::domain::breaks::{Kept, State};
use crate::domain::ledger::Merchant;
use crate::reconcile::{BreakKind, Told};

const INSERT: &str = "INSERT INTO breaks (break_id, channel, merchant, day, seen_day, kind, state, what, number, order_id,
    refund_id, their_minor, their_currency, their_state, their_time, our_minor, our_currency, our_state, our_time, proposed,
    resolution, note, resolved_by, closed_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)";

const UPDATE: &str = "UPDATE breaks SET seen_day = $2, kind = $3, state = $4, order_id = $5, refund_id = $6, their_minor = $7,
    their_currency = $8, their_state = $9, their_time = $10, our_minor = $11, our_currency = $12, our_state = $13,
    our_time = $14, proposed = $15, resolution = $16, note = $17, resolved_by = $18, closed_at = $19 WHERE break_id = $1";

const GET: &str = "SELECT * FROM breaks WHERE break_id = $1";

const LOCK: &str = "UPDATE breaks SET note = note WHERE break_id = $1";

const OF_MERCHANT: &str =
    "SELECT * FROM breaks WHERE state = $1 AND channel = $2 AND merchant = $3 ORDER BY break_id LIMIT $4";

const SEEN_ON: &str =
    "SELECT * FROM breaks WHERE channel = $1 AND merchant = $2 AND seen_day = $3 AND state <> 'rolled_over'
    ORDER BY break_id LIMIT $4";

const PAGE: &str =
    "SELECT * FROM breaks WHERE (day, break_id) > ($1, $2) AND ($3 = '' OR day = $3) AND ($4 = '' OR kind = $4)
    AND ($5 = '' OR state = $5) AND ($6 = '' OR channel = $6) AND ($7 = '' OR merchant = $7)
    ORDER BY day, break_id LIMIT $8";

const OPEN: &str =
    "SELECT kind, COUNT(*) AS number, MIN(day) AS day FROM breaks WHERE state = 'open' GROUP BY kind ORDER BY kind";

/// Which breaks are wanted; empty words take all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) day: String,
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) channel: String,
    pub(crate) merchant: String,
}

/// Open breaks of a kind.
pub(crate) struct Open {
    pub(crate) kind: String,
    pub(crate) number: i64,
    pub(crate) oldest: Date,
}

/// Keeps a new break.
pub(crate) async fn insert(tx: &mut Tx, kept: &Kept) -> Result<(), store::Error> {
    let (theirs, ours) = (told(kept.theirs.as_ref()), told(kept.ours.as_ref()));
    let values = params![
        kept.id,
        kept.merchant.channel,
        kept.merchant.number,
        kept.day.to_string(),
        kept.seen_day.to_string(),
        kept.kind.name(),
        kept.state.to_string(),
        kept.what.name(),
        kept.number,
        kept.order.map(|id| id.to_string()),
        kept.refund.map(|id| id.to_string()),
        theirs.minor,
        theirs.currency,
        theirs.state,
        theirs.time,
        ours.minor,
        ours.currency,
        ours.state,
        ours.time,
        kept.proposed.map(|word| word.to_string()),
        kept.resolution.map(|word| word.to_string()),
        kept.note,
        kept.resolved_by,
        kept.closed_at,
    ];
    tx.execute(INSERT, values).await.map(|_| ())
}

/// Keeps a changed break.
pub(crate) async fn update(tx: &mut Tx, kept: &Kept) -> Result<(), store::Error> {
    let (theirs, ours) = (told(kept.theirs.as_ref()), told(kept.ours.as_ref()));
    let values = params![
        kept.id,
        kept.seen_day.to_string(),
        kept.kind.name(),
        kept.state.to_string(),
        kept.order.map(|id| id.to_string()),
        kept.refund.map(|id| id.to_string()),
        theirs.minor,
        theirs.currency,
        theirs.state,
        theirs.time,
        ours.minor,
        ours.currency,
        ours.state,
        ours.time,
        kept.proposed.map(|word| word.to_string()),
        kept.resolution.map(|word| word.to_string()),
        kept.note,
        kept.resolved_by,
        kept.closed_at,
    ];
    tx.execute(UPDATE, values).await.map(|_| ())
}

/// Finds a break.
pub(crate) async fn get(reader: &mut impl Read, id: &str) -> Result<Option<Kept>, store::Error> {
    reader.fetch_opt(GET, params![id]).await?.as_ref().map(read).transpose()
}

/// Finds a break, to be changed: nobody else changes it until the transaction ends.
pub(crate) async fn lock(tx: &mut Tx, id: &str) -> Result<Option<Kept>, store::Error> {
    // Takes the row in every engine; nothing is changed.
    tx.execute(LOCK, params![id]).await?;
    get(tx, id).await
}

/// Reads at most `max` breaks of a merchant account that stand so.
pub(crate) async fn of_merchant(
    reader: &mut impl Read,
    state: State,
    merchant: &Merchant,
    max: u32,
) -> Result<Vec<Kept>, store::Error> {
    let values = params![state.to_string(), merchant.channel, merchant.number, max];
    reader.fetch_all(OF_MERCHANT, values).await?.iter().map(read).collect()
}

/// Reads at most `max` breaks of a merchant account that a day's run was the last to see, and that wait for no other.
pub(crate) async fn seen_on(
    reader: &mut impl Read,
    merchant: &Merchant,
    day: Date,
    max: u32,
) -> Result<Vec<Kept>, store::Error> {
    let values = params![merchant.channel, merchant.number, day.to_string(), max];
    reader.fetch_all(SEEN_ON, values).await?.iter().map(read).collect()
}

/// Reads at most `max` breaks after (day, id), oldest first.
pub(crate) async fn page(
    reader: &mut impl Read,
    filter: &Filter,
    after: &(String, String),
    max: u32,
) -> Result<Vec<Kept>, store::Error> {
    let Filter { day, kind, state, channel, merchant } = filter;
    let values = params![after.0, after.1, day, kind, state, channel, merchant, max];
    reader.fetch_all(PAGE, values).await?.iter().map(read).collect()
}

/// Counts the open breaks by kind.
pub(crate) async fn open(reader: &mut impl Read) -> Result<Vec<Open>, store::Error> {
    let read = |row: &Row| Ok(Open { kind: row.get("kind")?, number: row.get("number")?, oldest: parsed(row, "day")? });
    reader.fetch_all(OPEN, params![]).await?.iter().map(read).collect()
}

#[derive(Default)]
struct Columns {
    minor: Option<i64>,
    currency: Option<String>,
    state: Option<String>,
    time: Option<String>,
}

fn told(told: Option<&Told>) -> Columns {
    let Some(Told { amount_minor, currency, state, at }) = told else { return Columns::default() };
    Columns {
        minor: Some(*amount_minor),
        currency: Some(currency.clone()),
        state: Some(state.name().to_owned()),
        time: Some(at.to_string()),
    }
}

fn read(row: &Row) -> Result<Kept, store::Error> {
    let kind: String = row.get("kind")?;
    let kind = BreakKind::ALL.into_iter().find(|each| each.name() == kind).ok_or_else(|| unreadable("kind"))?;
    Ok(Kept {
        id: row.get("break_id")?,
        merchant: Merchant { channel: row.get("channel")?, number: row.get("merchant")? },
        day: parsed(row, "day")?,
        seen_day: parsed(row, "seen_day")?,
        kind,
        state: word(row, "state")?,
        what: parsed(row, "what")?,
        number: row.get("number")?,
        theirs: side(row, ["their_minor", "their_currency", "their_state", "their_time"])?,
        ours: side(row, ["our_minor", "our_currency", "our_state", "our_time"])?,
        order: maybe(row, "order_id")?,
        refund: maybe(row, "refund_id")?,
        proposed: maybe(row, "proposed")?,
        resolution: maybe(row, "resolution")?,
        note: row.get("note")?,
        resolved_by: row.get("resolved_by")?,
        closed_at: row.get("closed_at")?,
    })
}

fn side(row: &Row, [minor, currency, state, time]: [&'static str; 4]) -> Result<Option<Told>, store::Error> {
    let Some(amount_minor) = row.get::<Option<i64>>(minor)? else { return Ok(None) };
    let (state, at) = (parsed(row, state)?, parsed(row, time)?);
    Ok(Some(Told { amount_minor, currency: row.get(currency)?, state, at }))
}

fn parsed<T: FromStr>(row: &Row, column: &'static str) -> Result<T, store::Error> {
    row.get::<String>(column)?.parse().map_err(|_| unreadable(column))
}

fn maybe<T: FromStr>(row: &Row, column: &'static str) -> Result<Option<T>, store::Error> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|_| unreadable(column))).transpose()
}
