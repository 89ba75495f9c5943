//! The history of a case, and the stream of an entry point that is made of it.

use contracts::ids::CaseId;
use runtime::Timestamp;
use store::{Read, Row, Tx, outbox, params};

use super::row::{coded, coded_opt};
use crate::domain::{Line, State, Step};
use crate::error::Error;

const APPEND: &str = "INSERT INTO case_events
    (case_id, sequence, committed_at, from_state, to_state, step, actor, reason, note, evidence)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const AFTER: &str = "SELECT * FROM case_events WHERE case_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3";
const ONE: &str = "SELECT * FROM case_events WHERE case_id = $1 AND sequence = $2";

/// A line of the history as it was committed. Its evidence stays here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) sequence: i64,
    pub(crate) at: Timestamp,
    pub(crate) from: Option<State>,
    pub(crate) to: State,
    pub(crate) step: Option<Step>,
    pub(crate) actor: String,
    pub(crate) reason: String,
    pub(crate) note: String,
}

/// Adds lines to a history and to the entry point's stream. Comes last in a transaction: the stream is held until the commit.
pub(crate) async fn append(
    tx: &mut Tx,
    entry_point: &str,
    case: CaseId,
    lines: &[Line],
    now: Timestamp,
) -> Result<(), Error> {
    let id = case.to_string();
    for line in lines {
        let values = params![
            id,
            line.sequence,
            now,
            line.from.map(super::Code::code),
            super::Code::code(line.to),
            line.step.map(super::Code::code),
            line.actor.as_str(),
            line.reason.as_ref(),
            line.note,
            line.evidence,
        ];
        tx.execute(APPEND, values).await?;
    }
    for line in lines {
        outbox::append(tx, &stream(entry_point), &id, &line.sequence.to_be_bytes()).await?;
    }
    Ok(())
}

/// The stream of an entry point.
pub(crate) fn stream(entry_point: &str) -> String {
    format!("ep/{entry_point}")
}

/// Reads the lines of a case after a sequence number, in order.
pub(crate) async fn events_after(
    reader: &mut impl Read,
    case: CaseId,
    after: i64,
    max: u32,
) -> Result<Vec<Told>, Error> {
    reader.fetch_all(AFTER, params![case.to_string(), after, max]).await?.iter().map(read).collect()
}

/// Reads one line.
async fn told(reader: &mut impl Read, case: CaseId, sequence: i64) -> Result<Option<Told>, Error> {
    reader.fetch_opt(ONE, params![case.to_string(), sequence]).await?.as_ref().map(read).transpose()
}

/// Reads the stream of an entry point after a sequence number: (place in the stream, case, line).
pub(crate) async fn stream_after(
    reader: &mut impl Read,
    entry_point: &str,
    after: i64,
    max: u32,
) -> Result<Vec<(i64, CaseId, Told)>, Error> {
    let mut lines = Vec::new();
    for event in outbox::read_after(reader, &stream(entry_point), after, max).await? {
        let case: CaseId = event.key.parse().map_err(|_| Error::Corrupt("event_key"))?;
        let sequence = <[u8; 8]>::try_from(event.payload.as_slice()).map_err(|_| Error::Corrupt("payload"))?;
        let line = told(reader, case, i64::from_be_bytes(sequence)).await?;
        lines.push((event.seq, case, line.ok_or(Error::Corrupt("case_events"))?));
    }
    Ok(lines)
}

fn read(row: &Row) -> Result<Told, Error> {
    Ok(Told {
        sequence: row.get("sequence")?,
        at: row.get("committed_at")?,
        from: coded_opt(row, "from_state")?,
        to: coded(row, "to_state")?,
        step: coded_opt(row, "step")?,
        actor: row.get("actor")?,
        reason: row.get("reason")?,
        note: row.get("note")?,
    })
}
