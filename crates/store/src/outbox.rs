//! Events that leave with the transaction that caused them.
//!
//! A service appends an event in the transaction of its effect; a consumer reads the stream after its own cursor and stores the new
//! cursor in the transaction of *its* effect. So an event is delivered at least once and takes effect once, and nothing is needed
//! that could lose it in between.
//!
//! **Order.** A cursor is only safe if no event can ever appear behind it. Numbers from a PostgreSQL sequence do not give that: they
//! are drawn before the commit, so 8 can become visible while 7 is still open, a reader passes on to 8, and 7 is never seen. Here
//! the number comes from the stream's counter row, whose lock is held until the commit: the next appender to the same stream waits,
//! so numbers become visible in order, and a rollback takes its number back. The price is that appenders to one stream commit one
//! after the other. So append last, keep the transaction short, and give independent things streams of their own.
//!
//! **Waking.** [`Wake`] is a hint that something was committed. The truth is polling: a hint may be lost, a poll may not.

use std::time::Duration;

use runtime::{Clock, Timestamp, watch};

use crate::tx::{Read, Tx};
use crate::{Error, Kind, Many, Row, params};

/// How many events one read returns at most.
pub const EVENTS_MAX: u32 = 1_000;

const NEXT: &str = "INSERT INTO outbox_stream (stream, seq) VALUES ($1, 1)
    ON CONFLICT (stream) DO UPDATE SET seq = outbox_stream.seq + 1 RETURNING seq";
const APPEND: &str =
    "INSERT INTO outbox_event (stream, seq, event_key, payload, appended_at) VALUES ($1, $2, $3, $4, $5)";
const NEXT_ALL: &str = "INSERT INTO outbox_stream (stream, seq) VALUES ($1, $2)
    ON CONFLICT (stream) DO UPDATE SET seq = outbox_stream.seq + $2 RETURNING seq";
static APPEND_ALL: Many = Many::new(
    &[
        ("stream", Kind::Text),
        ("seq", Kind::Int),
        ("event_key", Kind::Text),
        ("payload", Kind::Bytes),
        ("appended_at", Kind::Int),
    ],
    "INSERT INTO outbox_event (stream, seq, event_key, payload, appended_at)
    SELECT stream, seq, event_key, payload, appended_at FROM {rows}",
);
const READ: &str = "SELECT seq, event_key, payload, appended_at FROM outbox_event
    WHERE stream = $1 AND seq > $2 ORDER BY seq LIMIT $3";
const HEAD: &str = "SELECT seq FROM outbox_stream WHERE stream = $1";
const TRIM: &str = "DELETE FROM outbox_event WHERE stream = $1 AND seq <= $2 AND appended_at < $3";

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number in the stream, from 1, without gaps.
    pub seq: i64,
    /// What it is about: events with one key are in the order of their effects.
    pub key: String,
    /// What happened, in the service's own format.
    pub payload: Vec<u8>,
    /// When it was appended, by the appender's clock.
    pub at: Timestamp,
}

/// Appends an event to `stream` in the caller's transaction and returns its number.
///
/// Holds the stream until the transaction ends: append last.
pub async fn append(tx: &mut Tx, stream: &str, key: &str, payload: &[u8]) -> Result<i64, Error> {
    let row =
        tx.fetch_opt(NEXT, params![stream]).await?.ok_or(Error::Column { column: "seq", problem: "is missing" })?;
    let seq: i64 = row.get("seq")?;
    let now = tx.now()?;
    tx.execute(APPEND, params![stream, seq, key, payload, now]).await?;
    tx.wake_after_commit(stream);
    Ok(seq)
}

/// Appends events to `stream` in the caller's transaction, in their order; each is its key and its payload.
///
/// Holds the stream until the transaction ends: append last.
pub async fn append_all(tx: &mut Tx, stream: &str, events: &[(String, Vec<u8>)]) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    let count = i64::try_from(events.len()).map_err(|_| Error::TooManyRows { max: crate::ROWS_MAX })?;
    let row = tx.fetch_opt(NEXT_ALL, params![stream, count]).await?;
    let last: i64 = row.ok_or(Error::Column { column: "seq", problem: "is missing" })?.get("seq")?;
    let now = tx.now()?;
    let first = last - count + 1;
    let row = |(seq, (key, payload)): (i64, &(String, Vec<u8>))| params![stream, seq, key, payload, now].to_vec();
    let rows: Vec<_> = (first..=last).zip(events).map(row).collect();
    tx.execute_many(&APPEND_ALL, &rows).await?;
    tx.wake_after_commit(stream);
    Ok(())
}

/// Reads at most `max` (and at most [`EVENTS_MAX`]) events of `stream` with numbers above `after`, in order.
pub async fn read_after(reader: &mut impl Read, stream: &str, after: i64, max: u32) -> Result<Vec<Event>, Error> {
    let rows = reader.fetch_all(READ, params![stream, after, max.min(EVENTS_MAX)]).await?;
    rows.iter().map(event).collect()
}

/// Returns the number of the newest event of `stream`, 0 when it never had one.
pub async fn head(reader: &mut impl Read, stream: &str) -> Result<i64, Error> {
    reader.fetch_opt(HEAD, params![stream]).await?.map_or(Ok(0), |row| row.get("seq"))
}

/// Deletes events that every consumer has passed (`up_to`) and that are older than `before`; returns how many.
pub async fn trim(tx: &mut Tx, stream: &str, up_to: i64, before: Timestamp) -> Result<u64, Error> {
    tx.execute(TRIM, params![stream, up_to, before]).await
}

fn event(row: &Row) -> Result<Event, Error> {
    Ok(Event {
        seq: row.get("seq")?,
        key: row.get("event_key")?,
        payload: row.get("payload")?,
        at: row.get("appended_at")?,
    })
}

/// Tells waiting readers that something was committed, in this process or, where a cache is bridged, in another.
///
/// Shape: a counter that a waiter compares, not a signal that it may miss: a commit between a reader's query and its waiting ends
/// the waiting at once.
#[derive(Clone, Debug)]
pub struct Wake {
    commits: watch::Sender<u64>,
    hints: watch::Sender<u64>,
}

impl Default for Wake {
    fn default() -> Self {
        Self { commits: watch::Sender::new(0), hints: watch::Sender::new(0) }
    }
}

impl Wake {
    /// Starts listening. Take the waiter before the first query.
    pub fn waiter(&self) -> Waiter {
        Waiter(self.hints.subscribe())
    }

    /// Wakes the waiters of this process, for a commit of another one.
    pub fn hint(&self) {
        self.hints.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Starts listening to the commits of this process alone, to tell other processes of them.
    pub fn commits(&self) -> Waiter {
        Waiter(self.commits.subscribe())
    }

    pub(crate) fn committed(&self) {
        self.commits.send_modify(|count| *count = count.wrapping_add(1));
        self.hint();
    }
}

/// One reader's waiting.
#[derive(Debug)]
pub struct Waiter(watch::Receiver<u64>);

impl Waiter {
    /// Waits for the next hint, at most `poll`; tells whether there was one. Look for events either way.
    pub async fn wait(&mut self, clock: &Clock, poll: Duration) -> bool {
        match clock.timeout(poll, self.0.changed()).await {
            Ok(Ok(())) => true,
            // The database is gone: nobody commits any more, but this must not spin.
            Ok(Err(_)) => {
                clock.sleep(poll).await;
                false
            }
            Err(_) => false,
        }
    }
}
