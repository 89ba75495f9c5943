//! What only the embedded engine can do: lose its process, its disk space, or its file to somebody else.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use runtime::Context;
use sqlx::{AnyConnection, Connection};
use store::{Db, Error, Migration, Tx, open, params};
use tokio::time::Instant;

use crate::engines::limits;
use crate::held::{Told, assert_held};

crate::conformance_of!(crate::engines::sqlite, #[tokio::test(flavor = "multi_thread", worker_threads = 2)]);

const TABLES: &[Migration] = &[Migration {
    version: 1,
    name: "rows",
    sqlite: "CREATE TABLE one (id INTEGER PRIMARY KEY, body BLOB) STRICT; CREATE TABLE two (id INTEGER PRIMARY KEY) STRICT",
    postgres: "",
}];

const INSERT: &str = "INSERT INTO one (id, body) VALUES ($1, $2)";

async fn database(path: &Path) -> Db {
    let db = open(&limits(&format!("sqlite:{}", path.display())), Context::system()).await.expect("opens");
    db.migrate(TABLES).await.expect("migrates");
    db
}

async fn ids(db: &Db, sql: &'static str) -> Vec<i64> {
    let rows = db.read().await.expect("a connection").fetch_all(sql, &[]).await.expect("reads");
    rows.iter().map(|row| row.get("id").expect("an id")).collect()
}

#[tokio::test]
async fn what_is_acknowledged_is_synced() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = database(&dir.path().join("a.db")).await;
    let writer: Vec<(&str, &'static str, i64)> = vec![
        // 2 is FULL: every commit reaches the disk before it is acknowledged.
        ("synchronous", "PRAGMA synchronous", 2),
        ("foreign_keys", "PRAGMA foreign_keys", 1),
        ("mmap_size", "PRAGMA mmap_size", 0),
    ];
    for (name, sql, expected) in writer {
        let row = db.transact(async |mut tx: Tx| tx.fetch_opt(sql, &[]).await).await.expect("asks").expect("a row");
        assert_eq!(row.get::<i64>(name).expect("a number"), expected, "{name}");
    }
    let mut reader = db.read().await.expect("a connection");
    let mode = reader.fetch_opt("PRAGMA journal_mode", &[]).await.expect("asks").expect("a row");
    assert_eq!(mode.get::<String>("journal_mode").expect("a word"), "wal");
    let refused = reader.fetch_all("INSERT INTO one (id) VALUES (1) RETURNING id", &[]).await;
    assert!(refused.is_err(), "a reader wrote");
}

#[tokio::test]
async fn a_second_opener_is_refused_and_told_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let first = database(&path).await;
    let config = limits(&format!("sqlite:{}", path.display()));
    let refused = open(&config, Context::system()).await.err().expect("refused").to_string();
    assert!(refused.contains("in use by another process"), "{refused}");
    drop(first);
    // A process that another test is just starting holds copies of our files for a moment.
    let start = Instant::now();
    while let Err(error) = open(&config, Context::system()).await {
        assert!(start.elapsed() < Duration::from_secs(10), "is not free again: {error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_place_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, b"this is no database, and long enough not to be taken for an empty one").expect("writes");
    for url in [format!("sqlite:{}/a.db", file.display()), format!("sqlite:{}", file.display())] {
        let refused = open(&limits(&url), Context::system()).await.err().expect("refused");
        assert!(matches!(refused, Error::Open { .. }), "{refused:?}");
        assert!(refused.to_string().contains("file"), "{refused}");
    }
}

/// Tells this very test, started a second time, to be the process that is killed.
const VICTIM: &str = "LASTMILE_STORE_TEST_VICTIM";

/// Writes one row into each of two tables per transaction and says so on standard output, until it is killed.
async fn write_until_killed(path: &Path) {
    let db = database(path).await;
    let next = ids(&db, "SELECT COALESCE(MAX(id), 0) AS id FROM one").await.first().copied().unwrap_or(0) + 1;
    for id in next.. {
        db.transact(async |mut tx: Tx| {
            tx.execute(INSERT, params![id, b"x"]).await?;
            tx.execute("INSERT INTO two (id) VALUES ($1)", params![id]).await
        })
        .await
        .expect("writes");
        println_now(id);
    }
}

#[expect(clippy::print_stdout, reason = "how the victim tells what was acknowledged")]
fn println_now(id: i64) {
    println!("acknowledged {id}");
}

/// Starts the test `name` of this program as the process that is killed.
fn victim(name: &str, path: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("a program"));
    command.args(["--exact", name, "--nocapture"]).env(VICTIM, path).stdout(Stdio::piped());
    command.spawn().expect("starts")
}

#[tokio::test]
async fn a_killed_process_loses_nothing_it_acknowledged() {
    if let Some(path) = std::env::var_os(VICTIM) {
        return write_until_killed(Path::new(&path)).await;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let mut newest = 0;
    for round in 1..=10 {
        let mut victim = victim("sqlite::a_killed_process_loses_nothing_it_acknowledged", &path);
        let lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
        let mut told: BTreeMap<_, _> = (1..=newest).map(|id: i64| (id.to_string(), Told::Done)).collect();
        let mut acknowledged = newest;
        let numbers = lines.map_while(Result::ok).filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok());
        for id in numbers.filter(|id| *id > newest) {
            acknowledged = id;
            told.insert(id.to_string(), Told::Done);
            if id >= newest + round * 7 {
                victim.kill().expect("SIGKILL");
            }
        }
        victim.wait().expect("is gone");
        assert!(acknowledged > newest, "the victim wrote nothing");
        let db = database(&path).await;
        let (one, two) = (ids(&db, "SELECT id FROM one").await, ids(&db, "SELECT id FROM two").await);
        assert_eq!(one, two, "a transaction was cut in half");
        assert_eq!(one, (1..=i64::try_from(one.len()).expect("few")).collect::<Vec<_>>());
        // The last one died with its writer before it was told of.
        told.entry((acknowledged + 1).to_string()).or_insert(Told::Unknown);
        assert_held(&told, &one.iter().map(i64::to_string).collect::<Vec<_>>()).await;
        newest = one.last().copied().expect("some");
    }
}

/// A hundred steps that each leave one row; the first makes the table.
fn steps() -> Vec<Migration> {
    let first = "CREATE TABLE step (id INTEGER PRIMARY KEY) STRICT; INSERT INTO step DEFAULT VALUES";
    let next = "INSERT INTO step DEFAULT VALUES";
    let sqlite = |version| if version == 1 { first } else { next };
    (1..=100).map(|version| Migration { version, name: "step", sqlite: sqlite(version), postgres: "" }).collect()
}

async fn migrate_until_killed(path: &Path) {
    let db = open(&limits(&format!("sqlite:{}", path.display())), Context::system()).await.expect("opens");
    let steps = steps();
    for known in 1..=steps.len() {
        db.migrate(&steps[..known.max(applied(&db).await)]).await.expect("migrates");
        println_now(i64::try_from(known).expect("few"));
    }
}

async fn applied(db: &Db) -> usize {
    let sql = "SELECT COUNT(*) AS id FROM schema_migration WHERE component = 'service'";
    let counted = db.read().await.expect("a connection").fetch_opt(sql, &[]).await;
    // Before the very first migration there is no table to count in.
    let count = counted.ok().flatten().map_or(0, |row| row.get::<i64>("id").expect("a count"));
    usize::try_from(count).expect("not negative")
}

#[tokio::test]
async fn a_killed_migration_goes_on_where_it_was() {
    if let Some(path) = std::env::var_os(VICTIM) {
        return migrate_until_killed(Path::new(&path)).await;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    for round in 1..=8 {
        let mut victim = victim("sqlite::a_killed_migration_goes_on_where_it_was", &path);
        let lines = BufReader::new(victim.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let seen = lines.filter(|line| line.starts_with("acknowledged")).take(round * 9).count();
        victim.kill().expect("SIGKILL");
        victim.wait().expect("is gone");
        assert_eq!(seen, round * 9, "the victim ended by itself");
    }
    let db = open(&limits(&format!("sqlite:{}", path.display())), Context::system()).await.expect("opens");
    let done = applied(&db).await;
    assert!((72..100).contains(&done), "killed after {done} of 100 steps");
    assert_eq!(ids(&db, "SELECT id FROM step").await.len(), done, "a step was cut in half");
    db.migrate(&steps()).await.expect("goes on");
    assert_eq!(ids(&db, "SELECT id FROM step").await, (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_disk_refuses_what_it_cannot_keep_and_works_on_afterwards() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = database(&dir.path().join("a.db")).await;
    let body = vec![1; 1 << 20];
    let full = db
        .transact(async |mut tx: Tx| {
            // The limit belongs to the connection, which does not outlive the failure: as if space had come back.
            tx.fetch_opt("PRAGMA max_page_count = 64", &[]).await?;
            tx.execute(INSERT, params![1_i64, b"small"]).await?;
            tx.execute(INSERT, params![2_i64, body]).await
        })
        .await;
    assert!(matches!(full, Err(Error::Unavailable { .. })), "{full:?}");
    assert!(ids(&db, "SELECT id FROM one").await.is_empty());
    db.transact(async |mut tx: Tx| tx.execute(INSERT, params![3_i64, body]).await).await.expect("there is space");
    let told = [("1", Told::from(&full)), ("2", Told::from(&full)), ("3", Told::Done)];
    let kept: Vec<_> = ids(&db, "SELECT id FROM one").await.iter().map(i64::to_string).collect();
    assert_held(&told.map(|(id, told)| (id.to_owned(), told)).into(), &kept).await;
}

async fn outsider(path: &Path) -> AnyConnection {
    let mut conn = AnyConnection::connect(&format!("sqlite://{}", path.display())).await.expect("connects");
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut conn).await.expect("locks");
    conn
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_lock_is_waited_for_a_while() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let db = database(&path).await;
    let mut other = outsider(&path).await;
    let writing = db.transact(async |mut tx: Tx| tx.execute(INSERT, params![1_i64, b""]).await);
    let unlocking = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        sqlx::raw_sql("COMMIT").execute(&mut other).await.expect("unlocks");
    };
    let (written, ()) = tokio::join!(writing, unlocking);
    assert_eq!(written.expect("got its turn"), 1);
    let _other = outsider(&path).await;
    let refused = db.transact(async |mut tx: Tx| tx.execute(INSERT, params![2_i64, b""]).await).await;
    assert!(matches!(refused, Err(Error::Contention { .. })), "{refused:?}");
    assert_eq!(ids(&db, "SELECT id FROM one").await, [1], "readers are not held up");
}

/// Nothing can change between what a transaction reads and what it writes, because it has the write lock from its first moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_has_only_read_keeps_others_from_writing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("a.db");
    let db = database(&path).await;
    let url = format!("sqlite://{}", path.display());
    let refused = db
        .transact(async |mut tx: Tx| {
            tx.fetch_all("SELECT id FROM one", &[]).await?;
            let mut other = AnyConnection::connect(&url).await.expect("connects");
            let mut refused = async |sql| sqlx::raw_sql(sql).execute(&mut other).await.err();
            refused("PRAGMA busy_timeout = 10").await;
            Ok::<_, Error>(refused("INSERT INTO one (id) VALUES (1)").await)
        })
        .await
        .expect("commits")
        .expect("is refused");
    assert!(refused.to_string().contains("locked"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_waits_too_long_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("sqlite:{}", dir.path().join("a.db").display());
    let config = store::Config { writer_timeout: runtime::config::Duration::from_millis(200), ..limits(&url) };
    let db = open(&config, Context::system()).await.expect("opens");
    db.migrate(TABLES).await.expect("migrates");
    let slow = db.transact(async |mut tx: Tx| {
        tx.execute(INSERT, params![1_i64, b""]).await?;
        tokio::time::sleep(Duration::from_millis(600)).await;
        Ok::<_, Error>(())
    });
    let late = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        db.transact(async |mut tx: Tx| tx.execute(INSERT, params![2_i64, b""]).await).await
    };
    let (slow, late) = tokio::join!(slow, late);
    slow.expect("commits");
    assert!(matches!(late, Err(Error::Unavailable { .. })), "{late:?}");
}
