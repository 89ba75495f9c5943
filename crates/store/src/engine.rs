//! How each engine is opened. With [`Engine::begin`] and what [`crate::lease`] and [`crate::migrate`] ask of [`Engine`], this is all
//! that differs between them.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use runtime::{Clock, Context};
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions, Connection, Row as _};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::config::{Place, is_identifier};
use crate::db::Limits;
use crate::error::{self, Cause, Verdict};
use crate::session::{self, Conn};
use crate::{Config, Error, inline};

/// The first release without the bug that could corrupt a database while two connections wrote and checkpointed its log.
const SQLITE_VERSION_MIN: (u32, u32, u32) = (3, 51, 3);
/// How long `open` tries to reach a server that may still be starting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection that comes back to the pool may take to answer, before it is thrown away.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that lay idle this long is asked whether it still lives before it is used.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);

/// The lock file keeps other programs of ours away; what else may lock the file (a backup, a shell) is waited for this shortly,
/// several times over.
const SQLITE_WRITER: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
    PRAGMA mmap_size = 0; PRAGMA trusted_schema = OFF; PRAGMA busy_timeout = 500; PRAGMA journal_size_limit = 67108864;";
const SQLITE_READER: &str = "PRAGMA foreign_keys = ON; PRAGMA mmap_size = 0; PRAGMA trusted_schema = OFF;
    PRAGMA busy_timeout = 500; PRAGMA query_only = ON;";

/// An opened engine.
pub(crate) enum Engine {
    /// One connection that writes, several that read. The file lock lives as long as they do.
    Sqlite {
        writer: AnyPool,
        readers: AnyPool,
        _lock: File,
    },
    Postgres {
        pool: AnyPool,
        suspicion: Suspicion,
    },
    /// One connection, driven inline.
    Simulated {
        conn: Arc<Mutex<AnyConnection>>,
    },
}

impl Engine {
    /// SQLite takes the write lock at once: a read lock that wants to grow into one fails without waiting (BUSY_SNAPSHOT).
    pub(crate) fn begin(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } | Self::Simulated { .. } => "BEGIN IMMEDIATE",
            Self::Postgres { .. } => "BEGIN ISOLATION LEVEL READ COMMITTED",
        }
    }

    /// How a query locks the rows that it will change and passes over those that another worker has locked. SQLite has one writer.
    pub(crate) fn skip_locked(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } | Self::Simulated { .. } => "",
            Self::Postgres { .. } => "FOR UPDATE SKIP LOCKED",
        }
    }

    /// Keeps two processes from migrating one schema at once, for the length of a transaction, which may be a long one.
    pub(crate) fn lock_migrations(&self) -> Option<&'static str> {
        match self {
            Self::Sqlite { .. } | Self::Simulated { .. } => None,
            Self::Postgres { .. } => Some(
                "SET LOCAL statement_timeout = 0;
                 SELECT pg_advisory_xact_lock(hashtext('lastmile.migrate.' || current_schema()))",
            ),
        }
    }

    /// Notes that a connection was found dead.
    pub(crate) fn found_dead(&self) {
        if let Self::Postgres { suspicion, .. } = self {
            suspicion.raise();
        }
    }

    /// Takes a connection for reading.
    pub(crate) async fn reading(&self) -> Result<Conn, Error> {
        Ok(match self {
            Self::Sqlite { readers, .. } => Conn::Pooled(acquire(readers).await?),
            Self::Postgres { pool, .. } => Conn::Pooled(acquire(pool).await?),
            Self::Simulated { conn } => Conn::Shared(Arc::clone(conn)),
        })
    }

    /// Takes a connection for a transaction.
    pub(crate) async fn writing(&self, limits: Limits, clock: &Clock) -> Result<Conn, Error> {
        Ok(match self {
            Self::Sqlite { writer, .. } => Conn::Pooled(acquire(writer).await?),
            Self::Postgres { pool, .. } => Conn::Pooled(acquire(pool).await?),
            Self::Simulated { conn } => Conn::Held(session::lock(conn, limits.acquire, clock).await?),
        })
    }
}

/// When a connection was last found dead. Where one died, as in a restart of the server, the others that lie idle did as well.
#[derive(Clone, Default)]
pub(crate) struct Suspicion(Arc<std::sync::Mutex<Option<Instant>>>);

impl Suspicion {
    fn raise(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_fresh(&self) -> bool {
        let raised = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        raised.is_some_and(|raised| raised.elapsed() < IDLE_TRUSTED)
    }
}

/// Takes a connection within the pool's deadline.
async fn acquire(pool: &AnyPool) -> Result<PoolConnection<Any>, Error> {
    pool.acquire().await.map_err(|error| Error::unavailable("a connection", Cause::of(&error)))
}

pub(crate) fn simulated() -> Result<Engine, Error> {
    install_default_drivers();
    let refused = |error| Error::open("the database in memory", Cause::of(&error));
    let options: AnyConnectOptions = "sqlite::memory:".parse().map_err(refused)?;
    let conn = inline::run(options.disable_statement_logging().connect()).map_err(refused)?;
    Ok(Engine::Simulated { conn: Arc::new(Mutex::new(conn)) })
}

pub(crate) async fn sqlite(path: &Path, config: &Config) -> Result<Engine, Error> {
    install_default_drivers();
    let path = std::path::absolute(path).map_err(|error| no_file(path, &error))?;
    if let Some(parent) = path.parent() {
        runtime::secret::create_private_dir(parent).map_err(|error| no_file(parent, &error))?;
    }
    let lock = lock_file(&path)?;
    let options = sqlite_options(&path, "rwc")?;
    let pool =
        |setup: &'static str| {
            AnyPoolOptions::new().test_before_acquire(false).idle_timeout(None).max_lifetime(None).after_connect(
                move |conn, _| Box::pin(async move { sqlx::raw_sql(setup).execute(conn).await.map(|_| ()) }),
            )
        };
    // By hand first: the pool would keep trying what cannot succeed, and then not say why.
    check_sqlite(&options, &path).await?;
    let writer = pool(SQLITE_WRITER).max_connections(1).acquire_timeout(config.writer_timeout.get());
    let writer = writer.connect_lazy_with(options.clone());
    let readers = pool(SQLITE_READER).max_connections(config.readers_max).acquire_timeout(config.acquire_timeout.get());
    let readers = readers.connect_lazy_with(options);
    warm(&writer).await?;
    warm(&readers).await?;
    Ok(Engine::Sqlite { writer, readers, _lock: lock })
}

/// Takes the lock that belongs to the process, beside the file: SQLite's own locks would let a second process in, and its writes
/// would come between ours. The kernel gives it back when the process dies.
fn lock_file(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file =
        File::options().write(true).create(true).truncate(false).open(&name).map_err(|error| no_file(&name, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Error::open(format!("{} is in use by another process; stop it first", path.display()), None))
        }
        Err(TryLockError::Error(error)) => Err(no_file(&name, &error)),
    }
}

fn no_file(path: &Path, error: &io::Error) -> Error {
    Error::open(
        format!("{} cannot be used; check that it exists and is writable", path.display()),
        Cause::new(error.to_string()),
    )
}

fn sqlite_options(path: &Path, mode: &str) -> Result<AnyConnectOptions, Error> {
    let path = path.to_str().ok_or_else(|| Error::open("the path of the database is not UTF-8", None))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte);
    let mut url = "sqlite://".to_owned();
    for byte in path.bytes() {
        if plain(byte) { url.push(char::from(byte)) } else { url.push_str(&format!("%{byte:02X}")) }
    }
    let parsed = format!("{url}?mode={mode}").parse::<AnyConnectOptions>();
    let options = parsed.map_err(|error| Error::open(path, Cause::of(&error)))?;
    Ok(options.disable_statement_logging())
}

/// Refuses to work on a library or a file that would not keep what it acknowledged.
async fn check_sqlite(options: &AnyConnectOptions, path: &Path) -> Result<(), Error> {
    let refused = |error| Error::open(format!("{} is no database of ours", path.display()), Cause::of(&error));
    let mut conn = options.connect().await.map_err(refused)?;
    let version = text(&mut conn, "SELECT sqlite_version() AS answer").await.map_err(refused)?;
    if parse_version(&version) < Some(SQLITE_VERSION_MIN) {
        return Err(Error::open(
            format!("SQLite {version} can corrupt its write-ahead log; 3.51.3 is the first that cannot"),
            None,
        ));
    }
    sqlx::raw_sql(SQLITE_WRITER).execute(&mut conn).await.map_err(refused)?;
    let mode = text(&mut conn, "SELECT journal_mode AS answer FROM pragma_journal_mode").await.map_err(refused)?;
    if mode != "wal" {
        return Err(Error::open(format!("{} cannot be kept in WAL mode here, only in {mode}", path.display()), None));
    }
    conn.close().await.map_err(refused)
}

fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

pub(crate) async fn text(conn: &mut AnyConnection, sql: &'static str) -> Result<String, sqlx::Error> {
    sqlx::query(sql).fetch_one(conn).await?.try_get("answer")
}

/// Makes one connection to the server of a configuration.
pub(crate) async fn connect(config: &Config, clock: &Clock) -> Result<AnyConnection, Error> {
    first_connection(&postgres_options(config)?, clock).await
}

pub(crate) async fn postgres(config: &Config, context: &Context) -> Result<Engine, Error> {
    let options = postgres_options(config)?;
    let mut first = first_connection(&options, &context.clock).await?;
    let refused = |error| Error::open("the server refuses us", Cause::of(&error));
    let promise = text(&mut first, "SELECT current_setting('synchronous_commit') AS answer").await.map_err(refused)?;
    if promise == "off" {
        return Err(Error::open("the server has synchronous_commit = off: what it acknowledges may be lost", None));
    }
    if let Some(schema) = &config.schema {
        make_schema(&mut first, schema).await?;
    }
    // The pool makes its own connections; how this one ends does not matter.
    let _ = first.close().await;
    let (released, acquired) = (context.clock.clone(), context.clock.clone());
    let suspicion = Suspicion::default();
    let suspected = suspicion.clone();
    let pool = AnyPoolOptions::new()
        .max_connections(config.readers_max)
        .acquire_timeout(config.acquire_timeout.get())
        .test_before_acquire(false)
        .before_acquire(move |conn, seen| {
            let (clock, trusted) = (acquired.clone(), seen.idle_for < IDLE_TRUSTED && !suspected.is_fresh());
            Box::pin(async move { if trusted { Ok(true) } else { answers(conn, &clock).await } })
        })
        .after_release(move |conn, _| {
            // The pool itself asks a returned connection for a sign of life without a deadline: a server that vanished would hold
            // its places until the kernel gives the connections up, a quarter of an hour later.
            let clock = released.clone();
            Box::pin(async move { answers(conn, &clock).await })
        })
        .connect_lazy_with(options);
    warm(&pool).await?;
    Ok(Engine::Postgres { pool, suspicion })
}

/// Waits for the pool's first connection as long as for a server that is starting: what is done first, under the pool's own short
/// deadline, then finds one, also on a machine that is busy.
async fn warm(pool: &AnyPool) -> Result<(), Error> {
    let start = Instant::now();
    loop {
        match acquire(pool).await {
            Err(_) if start.elapsed() < CONNECT_TIMEOUT => {}
            warmed => return warmed.map(|_| ()),
        }
    }
}

async fn answers(conn: &mut AnyConnection, clock: &Clock) -> Result<bool, sqlx::Error> {
    match clock.timeout(PING_TIMEOUT, conn.ping()).await {
        Ok(answer) => answer.map(|()| true),
        // As an error and not as `false`, which would say goodbye to the server and wait for it.
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

fn postgres_options(config: &Config) -> Result<AnyConnectOptions, Error> {
    debug_assert_eq!(config.place(), Ok(Place::Postgres));
    install_default_drivers();
    let mut options: AnyConnectOptions =
        config.url.parse().map_err(|_| Error::open("the address is not postgres://USER@HOST:PORT/DATABASE", None))?;
    if let Some(path) = &config.password_file {
        let password = fs::read_to_string(path).map_err(|error| no_file(path, &error))?;
        let set = options.database_url.set_password(Some(password.trim_end_matches(['\r', '\n'])));
        set.map_err(|()| Error::open("the address takes no password", None))?;
    }
    let statement_ms = config.statement_timeout.get().as_millis();
    let mut pairs = options.database_url.query_pairs_mut();
    pairs.append_pair("options[statement_timeout]", &statement_ms.to_string());
    // Longer than any closure should take: what holds locks and does nothing is ended by the server.
    pairs.append_pair("options[idle_in_transaction_session_timeout]", &(2 * statement_ms).to_string());
    if let Some(schema) = &config.schema {
        if !is_identifier(schema) {
            return Err(Error::open("the schema's name must be lower-case letters, digits and _", None));
        }
        pairs.append_pair("options[search_path]", schema);
    }
    drop(pairs);
    Ok(options.disable_statement_logging())
}

/// Reaches a server that may be starting up; a wrong password or database is told at once.
async fn first_connection(options: &AnyConnectOptions, clock: &Clock) -> Result<AnyConnection, Error> {
    let start = Instant::now();
    loop {
        let left = CONNECT_TIMEOUT.saturating_sub(start.elapsed());
        let cause = match clock.timeout(left, options.connect()).await {
            Ok(Ok(conn)) => return Ok(conn),
            Ok(Err(error)) if error::verdict(&error) != Verdict::Broken => {
                return Err(Error::open("the server refuses us", Cause::of(&error)));
            }
            Ok(Err(error)) => Some(Cause::of(&error)),
            Err(_) => None,
        };
        if left <= CONNECT_PAUSE {
            return Err(Error::unavailable("the database server", cause));
        }
        clock.sleep(CONNECT_PAUSE).await;
    }
}

async fn make_schema(conn: &mut AnyConnection, schema: &str) -> Result<(), Error> {
    let refused = |error| Error::open(format!("schema {schema} is missing and cannot be made"), Cause::of(&error));
    let known = || sqlx::query("SELECT nspname::text AS answer FROM pg_namespace WHERE nspname = $1").bind(schema);
    if known().fetch_optional(&mut *conn).await.map_err(refused)?.is_some() {
        return Ok(());
    }
    // The name is an identifier, checked above. Two processes may both get here: IF NOT EXISTS does not keep them apart.
    let made =
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE SCHEMA IF NOT EXISTS {schema}"))).execute(&mut *conn).await;
    match made {
        Err(error) if known().fetch_optional(conn).await.map_err(refused)?.is_none() => Err(refused(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(parse_version("3.51.3") >= Some(SQLITE_VERSION_MIN));
        assert!(parse_version("3.100.0") > Some(SQLITE_VERSION_MIN));
        for old in ["3.51.2", "3.9.9", "", "new"] {
            assert!(parse_version(old) < Some(SQLITE_VERSION_MIN), "{old}");
        }
    }
}
