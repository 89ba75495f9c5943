//! What only a server can do: deadlock, vanish, stand still, and lose the answer to a commit.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::Context;
use runtime::config::Duration as Span;
use store::{Config, Db, Error, Migration, Tx, open, params};
use tokio::sync::Barrier;
use tokio::time::Instant;

use crate::engines::limits;
use crate::held::{Told, assert_held};
use crate::servers::Postgres;

crate::conformance_of!(crate::engines::postgres, #[tokio::test(flavor = "multi_thread", worker_threads = 2)]);

const TABLES: &[Migration] = &[Migration {
    version: 1,
    name: "rows",
    sqlite: "",
    postgres: "CREATE TABLE one (id BIGINT PRIMARY KEY); CREATE TABLE two (id BIGINT PRIMARY KEY, amount BIGINT NOT NULL DEFAULT 0)",
}];

const INSERT: &str = "INSERT INTO one (id) VALUES ($1)";

/// Far more than the limits allow, for a machine that is busy with other things; far less than what the fault would take.
const SOON: Duration = Duration::from_secs(3);

/// A schema of its own on `server`.
fn config(server: &Postgres) -> Config {
    Config { schema: Some(server.schema()), ..limits(server.url()) }
}

/// A server that is away is not waited for long.
fn hasty(server: &Postgres) -> Config {
    Config { acquire_timeout: Span::from_millis(700), ..config(server) }
}

/// Limits as short as production's, where a test is about waiting.
fn strict(server: &Postgres) -> Config {
    Config { acquire_timeout: Span::from_millis(250), statement_timeout: Span::from_millis(500), ..config(server) }
}

async fn database(config: &Config) -> Db {
    let db = open(config, Context::system()).await.expect("opens");
    db.migrate(TABLES).await.expect("migrates");
    db
}

async fn ids(db: &Db, sql: &'static str) -> Vec<i64> {
    let rows = db.read().await.expect("a connection").fetch_all(sql, &[]).await.expect("reads");
    rows.iter().map(|row| row.get("id").expect("an id")).collect()
}

/// The rows of the first table, as writers name them.
async fn rows(db: &Db) -> Vec<String> {
    ids(db, "SELECT id FROM one ORDER BY id").await.iter().map(i64::to_string).collect()
}

async fn insert(db: &Db, id: i64) -> Result<u64, Error> {
    db.transact(async |mut tx: Tx| tx.execute(INSERT, params![id]).await).await
}

/// Tries until it works again, as callers do; fails after ten seconds.
async fn recovered(db: &Db, id: i64) {
    let start = Instant::now();
    while insert(db, id).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "does not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_run_again() {
    let server = Postgres::start();
    let db = database(&config(&server)).await;
    for id in [1_i64, 2] {
        let sql = "INSERT INTO two (id) VALUES ($1)";
        db.transact(async |mut tx: Tx| tx.execute(sql, params![id]).await).await.expect("inserts");
    }
    let barrier = Barrier::new(2);
    let met = std::sync::atomic::AtomicU32::new(0);
    let cross = async |first: i64, second: i64| {
        db.transact(async |mut tx: Tx| {
            let sql = "UPDATE two SET amount = amount + 1 WHERE id = $1";
            tx.execute(sql, params![first]).await?;
            // Both hold one row before either asks for the other's; on the second run nobody waits here.
            if met.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2 {
                barrier.wait().await;
            }
            tx.execute(sql, params![second]).await
        })
        .await
    };
    let (one, two) = tokio::join!(cross(1, 2), cross(2, 1));
    assert_eq!((one.expect("commits"), two.expect("commits")), (1, 1));
    assert!(db.meter().counts().retries >= 1, "there was no deadlock");
    assert_eq!(ids(&db, "SELECT amount AS id FROM two").await, [2, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_always_gives_way_ends() {
    let server = Postgres::start();
    let db = database(&config(&server)).await;
    let runs = std::sync::atomic::AtomicU32::new(0);
    let conflict = "DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = 'serialization_failure'; END $$";
    let ended = db
        .transact(async |mut tx: Tx| {
            runs.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            tx.execute(INSERT, params![1_i64]).await?;
            tx.execute(conflict, &[]).await
        })
        .await;
    assert!(matches!(ended, Err(Error::Contention { .. })), "{ended:?}");
    assert_eq!(runs.into_inner(), 6, "once and five times again");
    assert!(ids(&db, "SELECT id FROM one").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_pool_answers_in_time() {
    let server = Postgres::start();
    let db = database(&Config { readers_max: 1, ..strict(&server) }).await;
    let held = db.read().await.expect("the only connection");
    let start = Instant::now();
    assert!(matches!(db.read().await, Err(Error::Unavailable { .. })));
    assert!(matches!(insert(&db, 1).await, Err(Error::Unavailable { .. })));
    assert!(start.elapsed() < SOON, "took {:?}", start.elapsed());
    drop(held);
    recovered(&db, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_statement_is_cut_off_by_the_server() {
    let server = Postgres::start();
    let db = database(&strict(&server)).await;
    let mut reader = db.read().await.expect("a connection");
    let start = Instant::now();
    let cut = reader.fetch_opt("SELECT 1 AS id FROM pg_sleep(10)", &[]).await;
    assert!(matches!(cut, Err(Error::Unavailable { what: "a statement within its time", .. })), "{cut:?}");
    assert!(start.elapsed() < SOON, "took {:?}", start.elapsed());
    assert!(reader.fetch_opt("SELECT 1 AS id", &[]).await.expect("the connection is as good as before").is_some());
}

/// A server that stands still answers nothing and closes nothing. Only our own clock ends the waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_not_waited_for() {
    let server = Postgres::private();
    let db = database(&Config { readers_max: 4, ..strict(&server) }).await;
    recovered(&db, 1).await;
    let before = db.meter().counts().unknown;
    let (paused, start) = (std::sync::atomic::AtomicBool::new(false), Instant::now());
    let lost = db
        .transact(async |mut tx: Tx| {
            tx.execute(INSERT, params![2_i64]).await?;
            tx.execute("INSERT INTO two (id) VALUES ($1)", params![2_i64]).await?;
            if !paused.swap(true, std::sync::atomic::Ordering::SeqCst) {
                server.pause();
            }
            Ok::<_, Error>(())
        })
        .await;
    assert!(matches!(lost, Err(Error::CommitUnknown { .. })), "{lost:?}");
    assert!(start.elapsed() < SOON, "took {:?}", start.elapsed());
    assert_eq!(db.meter().counts().unknown, before + 1);
    let mut told = BTreeMap::from([("1".to_owned(), Told::Done), ("2".to_owned(), Told::from(&lost))]);
    for _ in 0..8 {
        let start = Instant::now();
        let refused = insert(&db, 3).await;
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
        assert!(start.elapsed() < SOON, "took {:?}", start.elapsed());
        told.insert("3".to_owned(), Told::from(&refused));
    }
    server.resume();
    recovered(&db, 4).await;
    // COMMIT had been sent, and lay in the server's socket: it may have been done since or not, but whole.
    let (one, two) = (ids(&db, "SELECT id FROM one WHERE id = 2").await, ids(&db, "SELECT id FROM two").await);
    assert_eq!(one, two, "a transaction was cut in half");
    told.insert("4".to_owned(), Told::Done);
    assert_held(&told, &rows(&db).await).await;
    // No place in the pool was lost on the way: all four can be had at once.
    let start = Instant::now();
    while !futures::future::join_all((0..4).map(|_| db.read())).await.iter().all(Result::is_ok) {
        assert!(start.elapsed() < Duration::from_secs(10), "a place in the pool is lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_it_acknowledged() {
    let server = Postgres::private();
    let db = database(&hasty(&server)).await;
    let mut told = BTreeMap::new();
    for round in 0..3 {
        recovered(&db, round * 10).await;
        server.kill();
        let refused = insert(&db, round * 10 + 1).await;
        assert!(refused.as_ref().is_err_and(Error::is_transient), "the server is gone: {refused:?}");
        server.restart();
        recovered(&db, round * 10 + 2).await;
        let all = [(0, Told::Done), (1, Told::from(&refused)), (2, Told::Done)];
        told.extend(all.map(|(id, told)| ((round * 10 + id).to_string(), told)));
    }
    assert_held(&told, &rows(&db).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_that_died_are_replaced_unnoticed() {
    let server = Postgres::private();
    let db = database(&config(&server)).await;
    let two = futures::future::join_all((0..4).map(|_| db.read())).await;
    drop(two);
    server.kill();
    server.restart();
    insert(&db, 1).await.expect("begins on a fresh connection");
    server.kill();
    server.restart();
    assert_eq!(ids(&db, "SELECT id FROM one").await, [1]);
}

/// Connections are cut at any moment, also while COMMIT is under way. What every caller was told must be true afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_about_a_cut_transaction_is_true() {
    let server = Postgres::start();
    let schema = server.schema();
    let db = database(&Config { schema: Some(schema.clone()), readers_max: 8, ..limits(server.url()) }).await;
    let executioner = open(&Config { readers_max: 1, ..limits(server.url()) }, Context::system()).await.expect("opens");
    let kill = "SELECT COUNT(pg_terminate_backend(s.pid)) AS killed FROM pg_locks l
        JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_stat_activity s ON s.pid = l.pid WHERE n.nspname = $1 AND s.pid <> pg_backend_pid()";
    let writers = (0..8_i64).map(|writer| {
        let db = db.clone();
        async move {
            let mut answers = Vec::new();
            for index in 0..80 {
                let id = writer * 1_000 + index;
                let answer = db
                    .transact(async |mut tx: Tx| {
                        tx.execute(INSERT, params![id]).await?;
                        tx.execute("INSERT INTO two (id) VALUES ($1)", params![id]).await
                    })
                    .await;
                answers.push((id, answer));
            }
            answers
        }
    });
    let writing = futures::future::join_all(writers);
    let killing = async {
        loop {
            if let Ok(mut reader) = executioner.read().await {
                let _ = reader.fetch_all(kill, params![schema]).await;
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    let answers = tokio::select! {
        answers = writing => answers,
        () = killing => unreachable!("it goes on until the writers are done"),
    };
    let (one, two) =
        (ids(&db, "SELECT id FROM one ORDER BY id").await, ids(&db, "SELECT id FROM two ORDER BY id").await);
    assert_eq!(one, two, "a transaction was cut in half");
    let told = answers.iter().flatten().map(|(id, answer)| (id.to_string(), Told::from(answer)));
    let told: BTreeMap<_, _> = told.collect();
    assert_held(&told, &rows(&db).await).await;
    let count = |what| told.values().filter(|told| **told == what).count();
    assert!(count(Told::Done) > 0 && count(Told::Nothing) > 0, "nothing was cut: {told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_go_away_do_not_empty_the_pool() {
    let server = Postgres::start();
    let db = database(&Config { readers_max: 4, schema: Some(server.schema()), ..limits(server.url()) }).await;
    for micros in (0..4_000_u32).step_by(40) {
        let cut = db.transact(async |mut tx: Tx| {
            tx.execute("INSERT INTO one (id) VALUES ($1) ON CONFLICT DO NOTHING", params![i64::from(micros)]).await?;
            tx.fetch_all("SELECT id FROM one", &[]).await
        });
        // Cut at any of its awaits.
        let _ = tokio::time::timeout(Duration::from_micros(u64::from(micros)), cut).await;
    }
    let all = futures::future::join_all((0..4).map(|_| async {
        let mut reader = db.read().await?;
        reader.fetch_opt("SELECT 1 AS id", &[]).await
    }));
    assert!(all.await.iter().all(Result::is_ok));
    recovered(&db, -1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_schema_is_a_database_of_its_own() {
    let server = Postgres::start();
    let (one, two) = (database(&config(&server)).await, database(&config(&server)).await);
    insert(&one, 1).await.expect("inserts");
    insert(&two, 1).await.expect("the same key, elsewhere");
    insert(&two, 2).await.expect("inserts");
    assert_eq!((ids(&one, "SELECT id FROM one").await.len(), ids(&two, "SELECT id FROM one").await.len()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_promise_durability_is_refused() {
    let server = Postgres::start();
    let config = Config { url: format!("{}?options[synchronous_commit]=off", server.url()), ..strict(&server) };
    let refused = open(&config, Context::system()).await.err().expect("refused").to_string();
    assert!(refused.contains("synchronous_commit"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_login_is_told_at_once_and_without_the_password() {
    let server = Postgres::start();
    let (login, rest) = server.url().rsplit_once('@').expect("a login");
    let password = login.rsplit_once(':').expect("a password").1;
    let start = Instant::now();
    for url in [format!("postgres://postgres:wrong-{password}@{rest}"), format!("postgres://nobody:{password}@{rest}")]
    {
        let refused = open(&Config { schema: None, ..limits(&url) }, Context::system()).await.err().expect("refused");
        assert!(matches!(refused, Error::Open { .. }), "{refused:?}");
        assert!(!format!("{refused:?}").contains(password), "the password is shown");
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("password");
    std::fs::write(&file, format!("{password}\n")).expect("writes");
    let config = Config { password_file: Some(file), ..limits(&format!("postgres://postgres@{rest}")) };
    open(&config, Context::system()).await.expect("takes the password from its file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_told_within_its_time() {
    let server = Postgres::private();
    let config = hasty(&server);
    server.kill();
    let start = Instant::now();
    let refused = open(&config, Context::system()).await.err().expect("nobody is there");
    assert!(refused.is_transient(), "{refused:?}");
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    server.restart();
    open(&config, Context::system()).await.expect("is there now");
}
