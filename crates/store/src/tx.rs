use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use runtime::{Ids, Timestamp};
use sqlx::{SqlSafeStr, SqlStr};

use crate::error::Cause;
use crate::session::{Answer, Failure, Session};
use crate::{Error, Row, Value};

/// A handle for reading.
///
/// Shape: every statement sees what was committed when it began; two statements may see two states. Read in a transaction what must
/// fit together. Holds a connection, so do not keep it longer than it takes.
pub struct Reader(pub(crate) Session);

/// A handle for what happens inside one transaction; lent by [`crate::Db::transact`].
///
/// Shape: after a statement failed, every further one answers [`Error::Failed`] and the transaction cannot commit. PostgreSQL
/// demands that, and SQLite is held to it, so that code cannot come to depend on one engine. Expected conflicts are therefore
/// written as `ON CONFLICT … DO NOTHING` and the count of rows is looked at.
pub struct Tx {
    live: Option<Box<Live>>,
    slot: Arc<Slot>,
}

/// What can read: a [`Reader`] or a [`Tx`].
pub trait Read: Send {
    /// Runs a query and returns its rows, at most [`crate::ROWS_MAX`].
    fn fetch_all(
        &mut self,
        sql: &'static str,
        values: &[Value],
    ) -> impl Future<Output = Result<Vec<Row>, Error>> + Send;

    /// Runs a query and returns its first row, if it has one.
    fn fetch_opt(
        &mut self,
        sql: &'static str,
        values: &[Value],
    ) -> impl Future<Output = Result<Option<Row>, Error>> + Send {
        async move { Ok(self.fetch_all(sql, values).await?.into_iter().next()) }
    }
}

/// An open transaction.
pub(crate) struct Live {
    /// None once the transaction has ended.
    session: Option<Session>,
    /// A statement failed: (may run again).
    failed: Option<bool>,
    /// The outbox streams that were written to.
    streams: BTreeSet<String>,
}

/// Where the handle leaves its transaction when the closure is done with it.
type Slot = Mutex<Option<Box<Live>>>;

/// A transaction on loan to a closure.
pub(crate) struct Loan(Arc<Slot>);

impl Loan {
    /// Opens a loan; the handle goes to the closure.
    pub(crate) fn new(session: Session) -> (Self, Tx) {
        let slot = Arc::new(Slot::default());
        let live = Box::new(Live { session: Some(session), failed: None, streams: BTreeSet::new() });
        (Self(Arc::clone(&slot)), Tx { live: Some(live), slot })
    }

    /// Takes the transaction back; None when the closure gave its handle away instead of dropping it.
    pub(crate) fn settle(self) -> Option<Box<Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Live {
    /// Hands out the session and what has to be known to end it. The transaction is the caller's to end from here.
    pub(crate) fn end(mut self) -> Option<(Session, Option<bool>, BTreeSet<String>)> {
        let streams = std::mem::take(&mut self.streams);
        self.session.take().map(|session| (session, self.failed, streams))
    }

    async fn run(&mut self, sql: SqlStr, values: &[Value]) -> Result<Answer, Error> {
        let session = self.session.as_mut().filter(|_| self.failed.is_none()).ok_or(Error::Failed)?;
        // Set before the statement and not after it: should the caller drop this future half-way, the transaction must not go on.
        self.failed = Some(false);
        match session.statement(sql, values).await {
            Ok(answer) => {
                self.failed = None;
                Ok(answer)
            }
            Err(Failure { error, again }) => {
                self.failed = Some(again);
                Err(error)
            }
        }
    }
}

/// Whoever dropped this did not end it: the caller of `transact` went away, or the task unwound. It ends without effect.
impl Drop for Live {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.abandon();
        }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = self.live.take();
    }
}

impl Tx {
    /// Runs a statement and returns how many rows it changed.
    ///
    /// Errors: [`Error::Conflict`] with the index's name for a unique violation, [`Error::Refused`] for other constraints.
    pub async fn execute(&mut self, sql: &'static str, values: &[Value]) -> Result<u64, Error> {
        Ok(self.run(SqlStr::from_static(sql), values).await?.affected)
    }

    /// Runs a query, or a change with RETURNING, and returns its rows, at most [`crate::ROWS_MAX`].
    pub async fn fetch_all(&mut self, sql: &'static str, values: &[Value]) -> Result<Vec<Row>, Error> {
        self.rows(SqlStr::from_static(sql), values).await
    }

    /// Runs a query, or a change with RETURNING, and returns its first row, if it has one.
    pub async fn fetch_opt(&mut self, sql: &'static str, values: &[Value]) -> Result<Option<Row>, Error> {
        Ok(self.fetch_all(sql, values).await?.into_iter().next())
    }

    /// Returns the time by the clock of this handle's role.
    pub fn now(&self) -> Result<Timestamp, Error> {
        Ok(self.session()?.context.clock.now())
    }

    /// Returns the ids of this handle's role.
    pub fn ids(&self) -> Result<Ids, Error> {
        Ok(self.session()?.context.ids.clone())
    }

    /// Runs text that this crate built once from constants.
    pub(crate) async fn rows(&mut self, sql: impl SqlSafeStr, values: &[Value]) -> Result<Vec<Row>, Error> {
        let answer = self.run(sql.into_sql_str(), values).await?;
        Row::all(&answer.rows).map_err(|error| Error::Statement(Cause::of(&error)))
    }

    /// As [`Tx::rows`], for a statement whose count of rows is what matters.
    pub(crate) async fn count(&mut self, sql: impl SqlSafeStr, values: &[Value]) -> Result<u64, Error> {
        Ok(self.run(sql.into_sql_str(), values).await?.affected)
    }

    /// Notes a stream whose readers are to be woken after the commit.
    pub(crate) fn wake_after_commit(&mut self, stream: &str) {
        if let Some(live) = &mut self.live {
            live.streams.insert(stream.to_owned());
        }
    }

    async fn run(&mut self, sql: SqlStr, values: &[Value]) -> Result<Answer, Error> {
        self.live.as_mut().ok_or(Error::Failed)?.run(sql, values).await
    }

    pub(crate) fn session(&self) -> Result<&Session, Error> {
        self.live.as_ref().and_then(|live| live.session.as_ref()).ok_or(Error::Failed)
    }

    /// The session itself, for the migrations of this crate.
    pub(crate) fn session_mut(&mut self) -> Result<&mut Session, Error> {
        self.live.as_mut().and_then(|live| live.session.as_mut()).ok_or(Error::Failed)
    }
}

impl Reader {
    /// Runs a query and returns its rows, at most [`crate::ROWS_MAX`].
    pub async fn fetch_all(&mut self, sql: &'static str, values: &[Value]) -> Result<Vec<Row>, Error> {
        let answer = self.0.query(SqlStr::from_static(sql), values).await?;
        Row::all(&answer.rows).map_err(|error| Error::Statement(Cause::of(&error)))
    }

    /// Runs a query and returns its first row, if it has one.
    pub async fn fetch_opt(&mut self, sql: &'static str, values: &[Value]) -> Result<Option<Row>, Error> {
        Ok(self.fetch_all(sql, values).await?.into_iter().next())
    }
}

impl Read for Reader {
    fn fetch_all(
        &mut self,
        sql: &'static str,
        values: &[Value],
    ) -> impl Future<Output = Result<Vec<Row>, Error>> + Send {
        Self::fetch_all(self, sql, values)
    }
}

impl Read for Tx {
    fn fetch_all(
        &mut self,
        sql: &'static str,
        values: &[Value],
    ) -> impl Future<Output = Result<Vec<Row>, Error>> + Send {
        Self::fetch_all(self, sql, values)
    }
}
