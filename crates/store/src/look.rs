//! A look at a database from outside, for whoever has to say whether a start will work: nothing is made, and nothing of what is tried
//! stays.

use std::time::Duration;

use runtime::{Context, Timestamp};
use sqlx::{AnyConnection, Connection, Row as _};
use tokio::time::Instant;

use crate::config::Place;
use crate::error::Cause;
use crate::tx::Tx;
use crate::{Config, Db, Error, engine, params};

/// How often a commit is timed and the clock is asked.
const TRIES: u32 = 5;

const SCHEMA: &str = "SELECT nspname::text AS answer FROM pg_namespace WHERE nspname = $1";
const LOGIN: &str = "SELECT current_user::text AS answer";
const MAY_MAKE: &str = "SELECT has_database_privilege(current_database(), 'CREATE')::text AS answer";
const CLOCK: &str = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) AS answer";
/// A transaction that changes nothing and yet waits for the disk: all that it writes is a line of the log that nobody reads.
const COMMIT: &str = "SELECT pg_logical_emit_message(true, 'lastmile', 'a commit was timed')::text AS answer";
const SETTINGS: &str = "SELECT name::text AS name, setting::text AS setting FROM pg_settings
    WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') ORDER BY name";

const MAKE: &str = "CREATE TABLE lastmile_write_tried (n BIGINT)";
const WRITE: &str = "INSERT INTO lastmile_write_tried (n) VALUES (1)";

/// What a PostgreSQL server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether the configured schema is there.
    pub schema: Schema,
    /// The settings by which it may lose what it has acknowledged, such as `fsync = off`.
    pub lax: Vec<String>,
    /// The slowest of a few commits, from sending it to its answer; `None` when the server takes none.
    pub commit: Option<Duration>,
    /// Its clock beside ours.
    pub clock: Reading,
}

/// A schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schema {
    /// It is there, or none is configured.
    There,
    /// A start would have to make it.
    Missing {
        /// Who we are to the server.
        login: String,
        /// Whether this login may.
        may_make: bool,
    },
}

/// Another machine's clock beside ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What it showed.
    pub theirs: Timestamp,
    /// What ours showed at that moment.
    pub ours: Timestamp,
    /// How far that moment may be off.
    pub within: Duration,
}

/// Looks at the server of a configuration; `None` where the store is embedded and there is none.
///
/// Errors: as [`crate::open`].
pub async fn look(config: &Config, context: &Context) -> Result<Option<Look>, Error> {
    if config.place().map_err(|problem| Error::open(problem, None))? != Place::Postgres {
        return Ok(None);
    }
    let mut conn = engine::connect(config, &context.clock).await?;
    let looked = ask(&mut conn, config, context).await;
    // How it ends does not matter.
    let _ = conn.close().await;
    looked.map(Some).map_err(|error| Error::open("the server refuses us", Cause::of(&error)))
}

async fn ask(conn: &mut AnyConnection, config: &Config, context: &Context) -> Result<Look, sqlx::Error> {
    let schema = match &config.schema {
        Some(schema) if sqlx::query(SCHEMA).bind(schema).fetch_optional(&mut *conn).await?.is_none() => {
            let login = engine::text(conn, LOGIN).await?;
            Schema::Missing { login, may_make: engine::text(conn, MAY_MAKE).await? == "true" }
        }
        _ => Schema::There,
    };
    let rows = sqlx::query(SETTINGS).fetch_all(&mut *conn).await?;
    let settings = rows.iter().map(|row| Ok((row.try_get("name")?, row.try_get("setting")?)));
    let lax = lax(&settings.collect::<Result<Vec<_>, sqlx::Error>>()?);
    Ok(Look { schema, lax, commit: commit(conn).await, clock: reading(conn, context).await? })
}

/// Those of the settings that do not keep what was acknowledged through a crash of the machine.
fn lax(settings: &[(String, String)]) -> Vec<String> {
    let is_off = settings.iter().filter(|(_, setting)| setting == "off");
    is_off.map(|(name, setting)| format!("{name} = {setting}")).collect()
}

async fn commit(conn: &mut AnyConnection) -> Option<Duration> {
    let mut slowest = Duration::ZERO;
    for _ in 0..TRIES {
        let start = Instant::now();
        engine::text(conn, COMMIT).await.ok()?;
        slowest = slowest.max(start.elapsed());
    }
    Some(slowest)
}

/// Asks several times: the quickest answer says best which moment it is of.
async fn reading(conn: &mut AnyConnection, context: &Context) -> Result<Reading, sqlx::Error> {
    let mut best: Option<Reading> = None;
    for _ in 0..TRIES {
        let (before, start) = (context.clock.now(), Instant::now());
        let theirs = sqlx::query(CLOCK).fetch_one(&mut *conn).await?.try_get("answer")?;
        let within = start.elapsed() / 2;
        if best.is_none_or(|best| within < best.within) {
            best = Some(Reading { theirs: Timestamp::from_micros(theirs), ours: before.plus(within), within });
        }
    }
    best.ok_or(sqlx::Error::RowNotFound)
}

/// Why a transaction that was only tried did not commit.
enum Undone {
    OnPurpose,
    Failed(Error),
}

impl From<Error> for Undone {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Db {
    /// Makes a table with a row in it, and takes both back.
    ///
    /// Errors: what a service's own write would meet.
    pub async fn try_write(&self) -> Result<(), Error> {
        let tried = self
            .transact(async |mut tx: Tx| {
                tx.execute(MAKE, params![]).await?;
                tx.execute(WRITE, params![]).await?;
                Err::<(), _>(Undone::OnPurpose)
            })
            .await;
        match tried {
            Err(Undone::Failed(error)) => Err(error),
            Ok(()) | Err(Undone::OnPurpose) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_loses_acknowledged_work_is_named() {
        let settings = |values: [&str; 3]| {
            let names = ["fsync", "full_page_writes", "synchronous_commit"];
            names.into_iter().zip(values).map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
        };
        for kept in ["on", "local", "remote_write", "remote_apply"] {
            assert_eq!(lax(&settings(["on", "on", kept])), [""; 0]);
        }
        let told = ["fsync = off", "full_page_writes = off", "synchronous_commit = off"];
        assert_eq!(lax(&settings(["off"; 3])), told);
    }
}
