//! One connection in use, and the only place where a statement is sent.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use runtime::Context;
use runtime::clock::Elapsed;
use sqlx::any::AnyRow;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, Either, SqlStr};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::db::Core;
use crate::error::{self, Cause, Verdict};
use crate::faults::{Fault, Faults};
use crate::{Error, ROWS_MAX, Value, inline, names};

/// How much longer than the server's own `statement_timeout` we wait for its answer.
const ANSWER_MARGIN: Duration = Duration::from_millis(250);
/// How long a rollback may take before the connection is thrown away instead.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// The connection behind a session.
pub(crate) enum Conn {
    /// From a pool; goes back to it when dropped.
    Pooled(PoolConnection<Any>),
    /// The simulated database, held for a whole transaction.
    Held(OwnedMutexGuard<AnyConnection>),
    /// The simulated database, taken for one statement at a time.
    Shared(Arc<Mutex<AnyConnection>>),
}

/// What a statement gave.
#[derive(Default)]
pub(crate) struct Answer {
    pub(crate) rows: Vec<AnyRow>,
    pub(crate) affected: u64,
}

pub(crate) struct Session {
    pub(crate) conn: Conn,
    pub(crate) core: Arc<Core>,
    pub(crate) context: Context,
    pub(crate) faults: Option<Faults>,
    /// The connection is in doubt: it is closed, never used again.
    pub(crate) broken: bool,
    /// A statement is under way; a session that is dropped like this was left by its caller in the middle of one.
    pub(crate) busy: bool,
}

/// What came back for a statement.
enum Heard {
    Answer(Answer),
    Refusal(sqlx::Error),
    Nothing,
}

/// How a statement failed: what the caller hears, and whether the whole transaction may run again.
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) again: bool,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

impl Session {
    /// Runs one statement of a caller, under its deadline and the armed faults.
    pub(crate) async fn statement(&mut self, sql: SqlStr, values: &[Value]) -> Result<Answer, Failure> {
        self.core.meter.statement();
        self.faulty(sql, values).await
    }

    /// Runs a query of a caller that is in no transaction: on another connection when this one turns out to have died while it lay
    /// idle, as after a restart of the server.
    pub(crate) async fn query(&mut self, sql: SqlStr, values: &[Value]) -> Result<Answer, Failure> {
        if self.broken {
            self.renew().await?;
        }
        match self.statement(sql.clone(), values).await {
            Err(Failure { error: Error::Unavailable { source: Some(_), .. }, .. }) if self.broken => {
                self.renew().await?;
                self.faulty(sql, values).await
            }
            answer => answer,
        }
    }

    async fn renew(&mut self) -> Result<(), Error> {
        if let Conn::Pooled(conn) = &mut self.conn {
            conn.close_on_drop();
        }
        self.conn = self.core.engine.reading().await?;
        self.broken = false;
        Ok(())
    }

    async fn faulty(&mut self, sql: SqlStr, values: &[Value]) -> Result<Answer, Failure> {
        match self.faults.as_ref().and_then(Faults::at_statement) {
            None => self.send(sql, values).await,
            Some(Fault::Fail) => Err(self.fail("a statement (injected failure)")),
            Some(Fault::Hang) => {
                self.context.clock.sleep(self.core.limits.statement).await;
                Err(self.fail("a statement's answer (injected hang)"))
            }
            Some(Fault::Tear) => {
                self.send(sql, values).await?;
                Err(self.fail("a statement's answer (injected tear)"))
            }
        }
    }

    /// Runs control text such as BEGIN or COMMIT: several statements are allowed, values are not.
    pub(crate) async fn control(&mut self, sql: &'static str, deadline: Duration) -> Result<(), Failure> {
        let sql = SqlStr::from_static(sql);
        let clock = self.context.clock.clone();
        self.busy = true;
        let sent = match &mut self.conn {
            Conn::Pooled(conn) => clock.timeout(deadline, control(&mut *conn, sql)).await,
            Conn::Held(conn) => Ok(inline::run(control(&mut *conn, sql))),
            Conn::Shared(conn) => {
                Ok(inline::run(control(&mut *lock(conn, self.core.limits.acquire, &clock).await?, sql)))
            }
        };
        self.busy = false;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.judge(&error).await),
            Err(_) => Err(self.fail("an answer")),
        }
    }

    async fn send(&mut self, sql: SqlStr, values: &[Value]) -> Result<Answer, Failure> {
        match self.ask(sql, values).await? {
            Heard::Answer(answer) if answer.rows.len() > ROWS_MAX => Err(Error::TooManyRows { max: ROWS_MAX }.into()),
            Heard::Answer(answer) => Ok(answer),
            Heard::Refusal(error) => Err(self.judge(&error).await),
            Heard::Nothing => Err(self.fail("a statement's answer")),
        }
    }

    /// Sends a statement and waits for the engine's answer until its deadline.
    async fn ask(&mut self, sql: SqlStr, values: &[Value]) -> Result<Heard, Error> {
        let clock = self.context.clock.clone();
        let deadline = self.core.limits.statement + ANSWER_MARGIN;
        self.busy = true;
        let sent = match &mut self.conn {
            Conn::Pooled(conn) => clock.timeout(deadline, query(&mut *conn, sql, values)).await,
            Conn::Held(conn) => Ok(inline::run(query(&mut *conn, sql, values))),
            Conn::Shared(conn) => {
                let mut conn = lock(conn, self.core.limits.acquire, &clock).await?;
                Ok(inline::run(query(&mut conn, sql, values)))
            }
        };
        self.busy = false;
        Ok(match sent {
            Ok(Ok(answer)) => Heard::Answer(answer),
            Ok(Err(error)) => Heard::Refusal(error),
            Err(Elapsed) => Heard::Nothing,
        })
    }

    /// Turns the engine's refusal into ours; on SQLite it looks up the name of a unique index that was hit.
    async fn judge(&mut self, error: &sqlx::Error) -> Failure {
        let verdict = error::verdict(error);
        if verdict == Verdict::Broken {
            self.broken = true;
            self.core.engine.found_dead();
        }
        let mut said = error::statement(error);
        if let Error::Conflict { constraint } = &mut said
            && self.core.is_sqlite()
        {
            *constraint = names::unique_index(self, constraint).await;
        }
        Failure { error: said, again: verdict == Verdict::Again }
    }

    fn fail(&mut self, what: &'static str) -> Failure {
        self.broken = true;
        Error::unavailable(what, None).into()
    }

    /// Runs a look-up of this crate itself: not counted, no faults, no conflicts to name.
    pub(crate) async fn lookup(&mut self, sql: &'static str, values: &[Value]) -> Result<Vec<crate::Row>, Error> {
        let rows = match self.ask(SqlStr::from_static(sql), values).await? {
            Heard::Answer(answer) => crate::Row::all(&answer.rows),
            Heard::Refusal(error) => Err(error),
            Heard::Nothing => return Err(Error::unavailable("a look-up", None)),
        };
        rows.map_err(|error| error::statement(&error))
    }

    /// Ends an open transaction without effect, and says nothing about how: whoever is told that it failed is told why it failed.
    pub(crate) async fn rollback(mut self) {
        if matches!(self.conn, Conn::Pooled(_)) {
            if !self.broken {
                self.broken = self.control("ROLLBACK", ROLLBACK_TIMEOUT).await.is_err();
            }
        } else {
            self.discard();
        }
    }

    /// Ends an open transaction whose owner went away in the middle.
    ///
    /// A simulated one at once; one on a pooled connection in the background, because dropping cannot wait.
    pub(crate) fn abandon(self) {
        if matches!(self.conn, Conn::Pooled(_)) {
            let tasks = self.context.tasks.clone();
            tasks.spawn("store.rollback", self.rollback());
        } else {
            self.discard();
        }
    }

    /// Ends an open transaction by giving its connection up, which makes the engine roll back.
    ///
    /// The simulated connection is the database itself and cannot be given up: there the transaction is rolled back at once.
    pub(crate) fn discard(mut self) {
        self.broken = true;
        if let Conn::Held(conn) = &mut self.conn
            && let Err(error) = inline::run(control(&mut *conn, SqlStr::from_static("ROLLBACK")))
        {
            // Some failures end SQLite's transaction by themselves.
            tracing::debug!(error = %Cause::of(&error), "nothing to roll back");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if (self.broken || self.busy)
            && let Conn::Pooled(conn) = &mut self.conn
        {
            conn.close_on_drop();
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, again: false }
    }
}

async fn query(conn: &mut AnyConnection, sql: SqlStr, values: &[Value]) -> Result<Answer, sqlx::Error> {
    let prepared = values.iter().fold(sqlx::query(sql), |prepared, value| value.bind(prepared));
    let mut answer = Answer::default();
    #[expect(deprecated, reason = "fetch_many is the one call that tells rows and affected rows of a single statement")]
    let mut parts = prepared.fetch_many(conn);
    while let Some(part) = parts.try_next().await? {
        match part {
            Either::Left(done) => answer.affected = answer.affected.saturating_add(done.rows_affected()),
            Either::Right(row) => answer.rows.push(row),
        }
        if answer.rows.len() > ROWS_MAX {
            break;
        }
    }
    Ok(answer)
}

async fn control(conn: &mut AnyConnection, sql: SqlStr) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sql).execute(conn).await.map(|_| ())
}

/// Takes the simulated database: at once when it is free, which it is unless a transaction waits for something else in its middle.
pub(crate) async fn lock(
    conn: &Arc<Mutex<AnyConnection>>,
    acquire: Duration,
    clock: &runtime::Clock,
) -> Result<OwnedMutexGuard<AnyConnection>, Error> {
    if let Ok(guard) = Arc::clone(conn).try_lock_owned() {
        return Ok(guard);
    }
    let waited = clock.timeout(acquire, Arc::clone(conn).lock_owned()).await;
    waited
        .map_err(|_| Error::unavailable("the simulated database (is it read outside its own open transaction?)", None))
}
