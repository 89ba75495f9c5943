use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::{Clock, Context};

use crate::config::Place;
use crate::engine::{self, Engine};
use crate::faults::{At, Fault, Faults};
use crate::meter::Meter;
use crate::migrate::{self, Migration};
use crate::outbox::Wake;
use crate::session::{Conn, Failure, Session};
use crate::tx::{Live, Loan, Reader, Tx};
use crate::{Config, Error};

/// How often a transaction that gave way to others is run again.
const RETRIES_MAX: u32 = 5;
/// The first pause before running again; doubled each time, with as much again at random.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// One service's database.
///
/// Shape: a cheap handle; clones share connections, counters and wake-ups, and each carries the [`Context`] of its role.
#[derive(Clone)]
pub struct Db {
    core: Arc<Core>,
    context: Context,
    faults: Option<Faults>,
}

/// What all handles of one database share.
pub(crate) struct Core {
    pub(crate) engine: Engine,
    pub(crate) limits: Limits,
    pub(crate) meter: Meter,
    pub(crate) wake: Wake,
    /// SQLite: (table and columns of a unique index) → its name.
    pub(crate) unique_names: Mutex<BTreeMap<String, String>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) acquire: Duration,
    pub(crate) statement: Duration,
}

/// How an ended closure's transaction came out.
enum Outcome {
    Committed,
    RunAgain(Error),
    Failed(Error),
}

/// Opens a service's database. The only way to one, besides [`Db::simulated`].
///
/// Errors: [`Error::Open`] when another process has the file, when SQLite is too old to be safe, when the server does not promise
/// durability, or when the configuration is wrong; [`Error::Unavailable`] when a server cannot be reached.
pub async fn open(config: &Config, context: Context) -> Result<Db, Error> {
    let engine = match config.place().map_err(|problem| Error::open(problem, None))? {
        Place::Sqlite(path) => engine::sqlite(&path, config).await?,
        Place::Postgres => engine::postgres(config, &context).await?,
    };
    let limits = Limits { acquire: config.acquire_timeout.get(), statement: config.statement_timeout.get() };
    Ok(Db::new(engine, limits, context, &config.name()))
}

impl Db {
    fn new(engine: Engine, limits: Limits, context: Context, name: &str) -> Self {
        let meter = Meter::new(&context.metrics, name);
        let core = Core { engine, limits, meter, wake: Wake::default(), unique_names: Mutex::default() };
        Self { core: Arc::new(core), context, faults: None }
    }

    /// Opens an empty database in memory that answers inside the poll that asks.
    ///
    /// Shape: to a seeded simulator its calls take no time and no turn, so equal seeds give equal traces. Keep the handle outside the
    /// simulated host and lend it clones by [`Db::with_context`]: the data survive the host's crash, an open transaction does not.
    /// Reading through the handle while one's own transaction is open waits for that transaction, in vain.
    /// Errors: [`Error::Open`] when SQLite cannot start.
    pub fn simulated() -> Result<Self, Error> {
        let limits = Limits { acquire: Duration::from_millis(250), statement: Duration::from_secs(5) };
        Ok(Self::new(engine::simulated()?, limits, Context::system(), "simulated"))
    }

    /// Returns a handle on the same database for another role or another start of a simulated host.
    #[must_use]
    pub fn with_context(&self, context: Context) -> Self {
        Self { context, ..self.clone() }
    }

    /// Returns a handle on the same database whose calls meet the armed faults.
    #[must_use]
    pub fn with_faults(&self, faults: &Faults) -> Self {
        Self { faults: Some(faults.clone()), ..self.clone() }
    }

    /// Whether only one transaction can be open at a time, so that others wait for it before they begin.
    pub fn has_one_writer(&self) -> bool {
        self.core.is_sqlite()
    }

    /// Returns the counters of this database.
    pub fn meter(&self) -> &Meter {
        &self.core.meter
    }

    /// Returns what tells waiting readers of the outbox that something was committed.
    pub fn wake(&self) -> &Wake {
        &self.core.wake
    }

    /// Returns the clock of this handle's role.
    pub fn clock(&self) -> &Clock {
        &self.context.clock
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// Brings the schema to the newest of `migrations`, which are in ascending order of version. See [`Migration`].
    pub async fn migrate(&self, migrations: &[Migration]) -> Result<(), Error> {
        migrate::run(self, migrations).await
    }

    /// Takes a connection for reading.
    ///
    /// Errors: [`Error::Unavailable`] when none is free within `acquire_timeout`.
    pub async fn read(&self) -> Result<Reader, Error> {
        Ok(Reader(self.session(self.core.engine.reading().await?)))
    }

    /// Runs `work` in one transaction: all of it happens, or nothing.
    ///
    /// Shape: `Ok` commits, `Err` rolls back; `work` may run up to six times when it has to give way to other transactions, so it
    /// must not do anything outside the transaction. When the caller drops this future, the transaction ends without effect, unless
    /// COMMIT had been sent, in which case it is whole: what was asked for has then happened and its idempotency record tells so.
    /// Where even that must not depend on the caller, run the whole call under `Tasks::run_to_end`.
    /// Errors: [`Error::CommitUnknown`] when the answer to COMMIT was lost; every other error means that nothing happened.
    pub async fn transact<T, E, F, Fut>(&self, work: F) -> Result<T, E>
    where
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T, E>> + Send,
        E: From<Error>,
    {
        let mut retries = 0;
        loop {
            let (loan, tx) = Loan::new(self.begin().await?);
            let answer = work(tx).await;
            let live = loan.settle().ok_or(Error::Escaped)?;
            let (value, refusal) = match answer {
                Ok(value) => (Some(value), None),
                Err(refusal) => (None, Some(refusal)),
            };
            match (self.finish(*live, value.is_some()).await, value, refusal) {
                (Outcome::Committed, Some(value), _) => return Ok(value),
                (Outcome::RunAgain(_), ..) if retries < RETRIES_MAX => {
                    self.pause(retries).await;
                    retries += 1;
                }
                (_, _, Some(refusal)) => return Err(refusal),
                (Outcome::RunAgain(error) | Outcome::Failed(error), ..) => return Err(error.into()),
                (Outcome::Committed, None, None) => return Err(Error::Failed.into()),
            }
        }
    }

    /// Ends the transaction of a closure that has returned.
    async fn finish(&self, live: Live, commit: bool) -> Outcome {
        let Some((session, failed, streams)) = live.end() else { return Outcome::Failed(Error::Failed) };
        if failed.is_some() || !commit {
            session.rollback().await;
            return match failed {
                Some(true) => Outcome::RunAgain(Error::Contention { source: None }),
                _ => Outcome::Failed(Error::Failed),
            };
        }
        let outcome = self.commit(session).await;
        if !streams.is_empty() && !matches!(&outcome, Outcome::RunAgain(_)) {
            // Also after a lost answer: a wake-up too many costs one query.
            self.core.wake.committed();
        }
        outcome
    }

    async fn commit(&self, mut session: Session) -> Outcome {
        match session.faults.as_ref().and_then(|faults| faults.at(At::BeforeCommit)) {
            None => {}
            Some(Fault::Fail) => {
                session.rollback().await;
                return Outcome::Failed(Error::unavailable("a commit (injected failure)", None));
            }
            Some(fault) => return self.lose(session, fault, false).await,
        }
        let deadline = self.core.limits.statement;
        match session.control("COMMIT", deadline).await {
            Ok(()) => {}
            Err(Failure { again: true, error }) => {
                session.rollback().await;
                return Outcome::RunAgain(error);
            }
            // Deferred constraints are the only other way in which an engine refuses a commit for certain.
            Err(Failure { error: error @ (Error::Conflict { .. } | Error::Refused { .. }), .. }) => {
                session.rollback().await;
                return Outcome::Failed(error);
            }
            Err(Failure { error, .. }) => {
                self.core.meter.unknown();
                session.discard();
                return Outcome::Failed(unknown(error));
            }
        }
        if let Some(fault) = session.faults.as_ref().and_then(|faults| faults.at(At::AfterCommit)) {
            return self.lose(session, fault, true).await;
        }
        self.core.meter.commit();
        Outcome::Committed
    }

    /// Plays a commit whose answer does not arrive.
    async fn lose(&self, mut session: Session, fault: Fault, committed: bool) -> Outcome {
        if fault == Fault::Hang {
            self.context.clock.sleep(self.core.limits.statement).await;
        }
        self.core.meter.unknown();
        if committed {
            session.broken = true;
        } else {
            session.discard();
        }
        Outcome::Failed(Error::CommitUnknown { source: None })
    }

    /// Begins a transaction; what stands in the way before anything has happened is tried again here.
    pub(crate) async fn begin(&self) -> Result<Session, Error> {
        let mut retries = 0;
        loop {
            match self.try_begin().await {
                Ok(session) => return Ok(session),
                Err(Failure { again: true, .. }) if retries < RETRIES_MAX => {
                    self.pause(retries).await;
                    retries += 1;
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }

    async fn try_begin(&self) -> Result<Session, Failure> {
        let clock = &self.context.clock;
        let mut session = self.session(self.core.engine.writing(self.core.limits, clock).await?);
        if let Some(fault) = session.faults.as_ref().and_then(|faults| faults.at(At::Begin)) {
            if fault == Fault::Hang {
                clock.sleep(self.core.limits.statement).await;
            }
            return Err(Error::unavailable("a transaction's begin (injected)", None).into());
        }
        self.core.meter.transaction();
        match session.control(self.core.engine.begin(), self.core.limits.statement).await {
            Ok(()) => Ok(session),
            // The connection had died while it lay idle, as after a restart of the server: another one may live.
            Err(Failure { error: error @ Error::Unavailable { source: Some(_), .. }, .. }) => {
                Err(Failure { error, again: true })
            }
            Err(failure) => Err(failure),
        }
    }

    fn session(&self, conn: Conn) -> Session {
        let (context, faults) = (self.context.clone(), self.faults.clone());
        Session { conn, core: Arc::clone(&self.core), context, faults, broken: false, busy: false }
    }

    async fn pause(&self, retries: u32) {
        self.core.meter.retry();
        let base = RETRY_PAUSE.saturating_mul(1 << retries);
        let jitter = self.context.ids.below(u64::try_from(base.as_micros()).unwrap_or(0));
        self.context.clock.sleep(base + Duration::from_micros(jitter)).await;
    }
}

fn unknown(error: Error) -> Error {
    match error {
        Error::Unavailable { source, .. } => Error::CommitUnknown { source },
        Error::Statement(cause) => Error::CommitUnknown { source: Some(cause) },
        _ => Error::CommitUnknown { source: None },
    }
}

impl Core {
    pub(crate) fn is_sqlite(&self) -> bool {
        !matches!(self.engine, Engine::Postgres { .. })
    }

    pub(crate) fn unique_name<T>(&self, act: impl FnOnce(&mut BTreeMap<String, String>) -> T) -> T {
        act(&mut self.unique_names.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
