//! Forward-only migrations.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

use crate::tx::Tx;
use crate::{Db, Error, params};

/// How long one migration may take.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(600);

/// One step of a service's schema.
///
/// Shape: plain SQL files, one text per engine, several statements each; applied in one transaction together with the record of it,
/// so a kill leaves it done or not begun. A released file never changes: its digest is kept and compared.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Ascending from 1.
    pub version: i64,
    /// What it does, in a few words.
    pub name: &'static str,
    /// The text for SQLite: STRICT tables of INTEGER, TEXT and BLOB.
    pub sqlite: &'static str,
    /// The text for PostgreSQL: BIGINT, TEXT, BYTEA and BOOLEAN.
    pub postgres: &'static str,
}

/// The component under which the tables of this crate itself are recorded.
const OWN: &str = "store";
const SERVICE: &str = "service";

const OWN_MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "outbox",
    sqlite: include_str!("../migrations/sqlite/0001_outbox.sql"),
    postgres: include_str!("../migrations/postgres/0001_outbox.sql"),
}];

const RECORDS: &str = "CREATE TABLE IF NOT EXISTS schema_migration (
    component TEXT NOT NULL, version BIGINT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, applied_at BIGINT NOT NULL,
    PRIMARY KEY (component, version))";

const APPLIED: &str = "SELECT version, name, digest FROM schema_migration WHERE component = $1 ORDER BY version";

const RECORD: &str =
    "INSERT INTO schema_migration (component, version, name, digest, applied_at) VALUES ($1, $2, $3, $4, $5)";

/// A migration that the database has.
struct Applied {
    version: i64,
    name: String,
    digest: String,
}

/// Applies what is missing of this crate's own tables, then of the service's.
pub(crate) async fn run(db: &Db, migrations: &[Migration]) -> Result<(), Error> {
    db.transact(async |mut tx: Tx| prepare(&mut tx).await).await.map_err(wrap)?;
    component(db, OWN, OWN_MIGRATIONS).await?;
    component(db, SERVICE, migrations).await?;
    db.core().unique_name(std::collections::BTreeMap::clear);
    Ok(())
}

async fn prepare(tx: &mut Tx) -> Result<(), Error> {
    lock(tx).await?;
    tx.session_mut()?.control(RECORDS, MIGRATION_TIMEOUT).await?;
    Ok(())
}

async fn component(db: &Db, component: &'static str, migrations: &[Migration]) -> Result<(), Error> {
    if !migrations.is_sorted_by(|one, next| one.version < next.version) {
        return Err(problem(format!("the migrations of {component} are not in ascending order")));
    }
    while db.transact(async |mut tx: Tx| step(&mut tx, component, migrations).await).await.map_err(wrap)? {}
    Ok(())
}

/// Checks what is applied against what is known, and applies the next one; tells whether there was one.
async fn step(tx: &mut Tx, component: &str, migrations: &[Migration]) -> Result<bool, Error> {
    lock(tx).await?;
    let applied = applied(tx, component).await?;
    check(component, migrations, &applied)?;
    let Some(migration) = migrations.get(applied.len()) else { return Ok(false) };
    let text = text(tx, migration)?;
    tx.session_mut()?.control(text, MIGRATION_TIMEOUT).await.map_err(|failure| Error::Migration {
        problem: format!("{component} {} ({}) failed and left nothing behind", migration.version, migration.name),
        source: Some(crate::error::Cause::new(with_sources(&failure.error))),
    })?;
    let now = tx.now()?;
    let record = params![component, migration.version, migration.name, sha256(text), now];
    tx.execute(RECORD, record).await?;
    tracing::info!(component, version = migration.version, name = migration.name, "schema migrated");
    Ok(true)
}

fn check(component: &str, migrations: &[Migration], applied: &[Applied]) -> Result<(), Error> {
    let newest = migrations.last().map_or(0, |migration| migration.version);
    if let Some(newer) = applied.iter().find(|applied| applied.version > newest) {
        return Err(problem(format!(
            "the {component} schema is at version {} ({}) and this program knows only up to {newest}: run the newer program",
            applied.last().map_or(newer.version, |last| last.version),
            newer.name,
        )));
    }
    for (applied, migration) in applied.iter().zip(migrations) {
        if applied.version != migration.version {
            return Err(problem(format!(
                "the {component} schema has version {} ({}) where this program has {} ({})",
                applied.version, applied.name, migration.version, migration.name
            )));
        }
        if ![migration.sqlite, migration.postgres].iter().any(|text| sha256(text) == applied.digest) {
            return Err(problem(format!(
                "{component} migration {} ({}) was changed after it was applied: restore its file and add a new one",
                migration.version, migration.name
            )));
        }
    }
    Ok(())
}

async fn lock(tx: &mut Tx) -> Result<(), Error> {
    let session = tx.session_mut()?;
    if let Some(sql) = session.core.engine.lock_migrations() {
        session.control(sql, MIGRATION_TIMEOUT).await?;
    }
    Ok(())
}

async fn applied(tx: &mut Tx, component: &str) -> Result<Vec<Applied>, Error> {
    let rows = tx.fetch_all(APPLIED, params![component]).await?;
    let read = |row: &crate::Row| {
        Ok(Applied { version: row.get("version")?, name: row.get("name")?, digest: row.get("digest")? })
    };
    rows.iter().map(read).collect()
}

fn text(tx: &Tx, migration: &Migration) -> Result<&'static str, Error> {
    Ok(if tx.session()?.core.is_sqlite() { migration.sqlite } else { migration.postgres })
}

fn sha256(text: &str) -> String {
    hex::encode(digest(&SHA256, text.as_bytes()))
}

fn problem(problem: String) -> Error {
    Error::Migration { problem, source: None }
}

/// Says that it was a migration that failed, and keeps what may succeed later as it is.
fn wrap(error: Error) -> Error {
    match error {
        Error::Migration { .. } => error,
        error if error.is_transient() => error,
        error => Error::Migration { problem: with_sources(&error), source: None },
    }
}

fn with_sources(error: &Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}
