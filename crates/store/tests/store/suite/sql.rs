use std::time::Duration;

use store::{Db, Error, Migration, Reader, Tx, params};

const TABLES: &[Migration] = &[Migration {
    version: 1,
    name: "things",
    sqlite: "CREATE TABLE thing (
            id TEXT NOT NULL PRIMARY KEY, amount INTEGER, body BLOB, open INTEGER NOT NULL DEFAULT 1, rate REAL, note TEXT,
            owner TEXT, serial INTEGER, version INTEGER NOT NULL DEFAULT 0 CONSTRAINT version_grows CHECK (version >= 0),
            UNIQUE (owner, serial)) STRICT;
        CREATE UNIQUE INDEX one_open_per_note ON thing (note) WHERE open = 1;
        CREATE TABLE part (id INTEGER PRIMARY KEY, thing TEXT NOT NULL REFERENCES thing (id)) STRICT",
    postgres: "CREATE TABLE thing (
            id TEXT NOT NULL PRIMARY KEY, amount BIGINT, body BYTEA, open BOOLEAN NOT NULL DEFAULT TRUE, rate DOUBLE PRECISION,
            note TEXT, owner TEXT, serial BIGINT, version BIGINT NOT NULL DEFAULT 0 CONSTRAINT version_grows CHECK (version >= 0),
            UNIQUE (owner, serial));
        CREATE UNIQUE INDEX one_open_per_note ON thing (note) WHERE open;
        CREATE TABLE part (id BIGINT PRIMARY KEY, thing TEXT NOT NULL REFERENCES thing (id))",
}];

const INSERT: &str = "INSERT INTO thing (id, amount) VALUES ($1, $2)";

async fn tables(db: &Db) {
    db.migrate(TABLES).await.expect("migrates");
}

async fn reader(db: &Db) -> Reader {
    db.read().await.expect("a connection")
}

async fn insert(db: &Db, id: &str, amount: i64) {
    db.transact(async |mut tx: Tx| tx.execute(INSERT, params![id, amount]).await).await.expect("inserts");
}

async fn amount(db: &Db, id: &str) -> Option<i64> {
    let row = reader(db).await.fetch_opt("SELECT amount FROM thing WHERE id = $1", params![id]).await.expect("reads");
    row.map(|row| row.get("amount").expect("an amount"))
}

pub(crate) async fn values_come_back_as_they_went_in(db: &Db) {
    tables(db).await;
    let sql = "INSERT INTO thing (id, amount, body, open, rate, note) VALUES ($1, $2, $3, $4, $5, $6)";
    let long = "x".repeat(300_000);
    type Thing<'a> = (&'a str, Option<i64>, Option<&'a [u8]>, bool, Option<f64>, Option<&'a str>);
    let rows: [Thing<'_>; 4] = [
        ("low", Some(i64::MIN), Some(b""), false, Some(-0.5), Some("")),
        ("high", Some(i64::MAX), Some(&[0, 255, 0]), true, Some(1e300), Some("㐂𠮷 'quoted' \"twice\" $1 ?")),
        ("null", None, None, true, None, None),
        ("long", Some(0), Some(long.as_bytes()), true, Some(0.0), Some("long")),
    ];
    for (id, amount, body, open, rate, note) in rows {
        let values = params![id, amount, body, open, rate, note];
        assert_eq!(db.transact(async |mut tx: Tx| tx.execute(sql, values).await).await.expect("inserts"), 1);
    }
    for (id, amount, body, open, rate, note) in rows {
        let row = reader(db).await.fetch_opt("SELECT * FROM thing WHERE id = $1", params![id]).await.expect("reads");
        let row = row.expect("is there");
        assert_eq!(row.get::<Option<i64>>("amount").expect("amount"), amount);
        assert_eq!(row.get::<Option<Vec<u8>>>("body").expect("body").as_deref(), body);
        assert_eq!(row.get::<bool>("open").expect("open"), open);
        assert_eq!(row.get::<Option<f64>>("rate").expect("rate"), rate);
        assert_eq!(row.get::<Option<String>>("note").expect("note").as_deref(), note);
    }
    let sum = "SELECT CAST(COALESCE(SUM(amount), 0) AS BIGINT) AS total, COUNT(*) AS things FROM thing WHERE open = $1";
    let row = reader(db).await.fetch_opt(sum, params![true]).await.expect("reads").expect("a row");
    assert_eq!(row.get::<i64>("total").expect("a sum"), i64::MAX);
    assert_eq!(row.get::<i64>("things").expect("a count"), 3);
}

pub(crate) async fn a_missing_row_is_none(db: &Db) {
    tables(db).await;
    assert_eq!(amount(db, "nobody").await, None);
    assert!(reader(db).await.fetch_all("SELECT id FROM thing", &[]).await.expect("reads").is_empty());
}

pub(crate) async fn a_wrong_column_is_named(db: &Db) {
    tables(db).await;
    insert(db, "a", 1).await;
    let row =
        reader(db).await.fetch_opt("SELECT id, amount, note FROM thing", &[]).await.expect("reads").expect("a row");
    assert!(matches!(row.get::<i64>("price"), Err(Error::Column { column: "price", problem: "is not in the answer" })));
    assert!(matches!(row.get::<i64>("id"), Err(Error::Column { column: "id", problem: "holds another type" })));
    assert!(matches!(row.get::<String>("note"), Err(Error::Column { column: "note", problem: "is null" })));
    assert!(matches!(row.get::<bool>("id"), Err(Error::Column { column: "id", .. })));
}

pub(crate) async fn changes_are_counted(db: &Db) {
    tables(db).await;
    for id in ["a", "b", "c"] {
        insert(db, id, 1).await;
    }
    let raised = "UPDATE thing SET amount = amount + $1 WHERE id < $2";
    let rows = db.transact(async |mut tx: Tx| tx.execute(raised, params![5_i64, "c"]).await).await.expect("updates");
    assert_eq!(rows, 2);
    let none = db.transact(async |mut tx: Tx| tx.execute(raised, params![5_i64, ""]).await).await.expect("updates");
    assert_eq!(none, 0);
    let back = "UPDATE thing SET amount = 0 WHERE id = $1 RETURNING id";
    let row = db.transact(async |mut tx: Tx| tx.fetch_opt(back, params!["a"]).await).await.expect("updates");
    assert_eq!(row.expect("a row").get::<String>("id").expect("an id"), "a");
}

pub(crate) async fn ok_commits_and_err_rolls_back(db: &Db) {
    tables(db).await;
    insert(db, "kept", 1).await;
    #[derive(Debug, PartialEq)]
    enum Refusal {
        Mine,
        Store,
    }
    impl From<Error> for Refusal {
        fn from(_: Error) -> Self {
            Self::Store
        }
    }
    let refused = db
        .transact(async |mut tx: Tx| {
            tx.execute(INSERT, params!["gone", 1_i64]).await?;
            Err::<(), _>(Refusal::Mine)
        })
        .await;
    assert_eq!(refused, Err(Refusal::Mine));
    assert_eq!(amount(db, "kept").await, Some(1));
    assert_eq!(amount(db, "gone").await, None);
}

pub(crate) async fn readers_see_only_what_is_committed(db: &Db) {
    tables(db).await;
    insert(db, "a", 1).await;
    let (to_change, changed) = tokio::sync::oneshot::channel();
    let (to_commit, commit) = tokio::sync::oneshot::channel::<()>();
    let channels = std::sync::Mutex::new(Some((to_change, commit)));
    let writing = db.transact(async |mut tx: Tx| {
        tx.execute("UPDATE thing SET amount = 2", &[]).await?;
        let taken = channels.lock().expect("not poisoned").take();
        let (to_change, commit) = taken.expect("runs once");
        to_change.send(()).expect("the reader waits");
        commit.await.expect("the reader answers");
        Ok::<_, Error>(())
    });
    let reading = async {
        changed.await.expect("the writer writes");
        // The simulated database has one connection: there a reader waits for the open transaction, or gives up.
        let seen = match db.read().await.expect("a handle").fetch_opt("SELECT amount FROM thing", &[]).await {
            Ok(row) => Some(row.expect("a row").get::<i64>("amount").expect("an amount")),
            Err(Error::Unavailable { .. }) => None,
            Err(error) => panic!("{error}"),
        };
        to_commit.send(()).expect("the writer waits");
        seen
    };
    let (written, seen) = tokio::join!(writing, reading);
    written.expect("commits");
    assert_ne!(seen, Some(2), "a reader saw what was not committed");
    assert_eq!(amount(db, "a").await, Some(2));
}

pub(crate) async fn a_conflict_names_its_index(db: &Db) {
    tables(db).await;
    let sql = "INSERT INTO thing (id, owner, serial, note) VALUES ($1, $2, $3, $4)";
    let first = params!["a", "me", 7_i64, "n"];
    db.transact(async |mut tx: Tx| tx.execute(sql, first).await).await.expect("inserts");
    let part = "INSERT INTO part (id, thing) VALUES ($1, $2)";
    db.transact(async |mut tx: Tx| tx.execute(part, params![1_i64, "a"]).await).await.expect("inserts");
    for (sql, values, name) in [
        (sql, params!["a", "you", 1_i64, "other"], "thing_pkey"),
        (sql, params!["b", "me", 7_i64, "other"], "thing_owner_serial_key"),
        (sql, params!["b", "you", 1_i64, "n"], "one_open_per_note"),
        (part, params![1_i64, "a"], "part_pkey"),
    ] {
        // Twice: SQLite's names are looked up once and remembered.
        for _ in 0..2 {
            let refused = db.transact(async |mut tx: Tx| tx.execute(sql, values).await).await.expect_err("conflicts");
            assert_eq!(refused.conflict(), Some(name), "{refused:?}");
            assert!(refused.had_no_effect() && !refused.is_transient());
        }
    }
}

pub(crate) async fn a_refused_row_names_its_rule(db: &Db) {
    tables(db).await;
    for (sql, rule) in [
        ("INSERT INTO thing (id, version) VALUES ('a', -1)", "version_grows"),
        ("INSERT INTO thing (id, open) VALUES ('a', NULL)", "thing"),
        ("INSERT INTO part (id, thing) VALUES (1, 'nobody')", ""),
    ] {
        let refused = db.transact(async |mut tx: Tx| tx.execute(sql, &[]).await).await.expect_err("refused");
        assert!(matches!(&refused, Error::Refused { rule: found } if found.contains(rule)), "{refused:?}");
    }
}

pub(crate) async fn a_failed_statement_ends_its_transaction(db: &Db) {
    tables(db).await;
    insert(db, "a", 1).await;
    // Without this rule the closure would commit on SQLite and fail on PostgreSQL.
    let ended = db
        .transact(async |mut tx: Tx| {
            tx.execute(INSERT, params!["b", 1_i64]).await?;
            let conflict = tx.execute(INSERT, params!["a", 1_i64]).await.expect_err("conflicts");
            assert_eq!(conflict.conflict(), Some("thing_pkey"));
            let after = tx.execute(INSERT, params!["c", 1_i64]).await.expect_err("is over");
            assert!(matches!(after, Error::Failed));
            Ok::<_, Error>(())
        })
        .await;
    assert!(matches!(ended, Err(Error::Failed)));
    assert_eq!((amount(db, "b").await, amount(db, "c").await), (None, None));
}

pub(crate) async fn an_expected_conflict_goes_on(db: &Db) {
    tables(db).await;
    insert(db, "a", 1).await;
    let sql = "INSERT INTO thing (id, amount) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let rows = db
        .transact(async |mut tx: Tx| {
            let taken = tx.execute(sql, params!["a", 9_i64]).await?;
            let free = tx.execute(sql, params!["b", 9_i64]).await?;
            Ok::<_, Error>((taken, free))
        })
        .await;
    assert_eq!(rows.expect("commits"), (0, 1));
    assert_eq!((amount(db, "a").await, amount(db, "b").await), (Some(1), Some(9)));
}

/// Reads, computes and writes with the version that it saw; tells whether the write found its row.
async fn raise(db: &Db) -> Result<bool, Error> {
    db.transact(async |mut tx: Tx| {
        let row = tx.fetch_opt("SELECT amount, version FROM thing WHERE id = 'a'", &[]).await?.ok_or(Error::Failed)?;
        let (amount, version): (i64, i64) = (row.get("amount")?, row.get("version")?);
        tokio::task::yield_now().await;
        let sql = "UPDATE thing SET amount = $1, version = version + 1 WHERE id = 'a' AND version = $2";
        Ok(tx.execute(sql, params![amount + 1, version]).await? == 1)
    })
    .await
}

pub(crate) async fn no_update_is_lost(db: &Db) {
    tables(db).await;
    insert(db, "a", 0).await;
    let raisers = (0..8).map(|_| async {
        for _ in 0..10 {
            while !raise(db).await.expect("no error") {}
        }
    });
    futures::future::join_all(raisers).await;
    assert_eq!(amount(db, "a").await, Some(80));
}

pub(crate) async fn unchecked_updates_queue_up(db: &Db) {
    tables(db).await;
    insert(db, "a", 0).await;
    let sql = "UPDATE thing SET amount = amount + 1 WHERE id = 'a'";
    let raise = || db.transact(async |mut tx: Tx| tx.execute(sql, &[]).await);
    let done = futures::future::join_all((0..64).map(|_| raise())).await;
    assert!(done.into_iter().all(|rows| matches!(rows, Ok(1))));
    assert_eq!(amount(db, "a").await, Some(64));
}

pub(crate) async fn a_caller_that_goes_away_leaves_nothing(db: &Db) {
    tables(db).await;
    for round in 0..20 {
        let id = format!("gone{round}");
        let cut = db.transact(async |mut tx: Tx| {
            tx.execute(INSERT, params![id, 1_i64]).await?;
            // The caller goes away here, with the transaction open.
            std::future::pending::<()>().await;
            Ok::<_, Error>(())
        });
        let cut = tokio::time::timeout(Duration::from_millis(30), cut).await;
        assert!(cut.is_err(), "the closure never ends by itself");
        assert_eq!(amount(db, &id).await, None);
    }
    insert(db, "next", 1).await;
    assert_eq!(amount(db, "next").await, Some(1));
}

pub(crate) async fn a_handle_that_is_given_away_cannot_commit(db: &Db) {
    tables(db).await;
    let kept = std::sync::Mutex::new(None);
    let escaped = db
        .transact(async |mut tx: Tx| {
            tx.execute(INSERT, params!["a", 1_i64]).await?;
            *kept.lock().expect("not poisoned") = Some(tx);
            Ok::<_, Error>(())
        })
        .await;
    assert!(matches!(escaped, Err(Error::Escaped)));
    drop(kept);
    insert(db, "b", 1).await;
    assert_eq!((amount(db, "a").await, amount(db, "b").await), (None, Some(1)));
}

pub(crate) async fn too_long_a_list_is_refused(db: &Db) {
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10001) SELECT i FROM n";
    let refused = reader(db).await.fetch_all(many, &[]).await.expect_err("too many");
    assert!(matches!(refused, Error::TooManyRows { max: store::ROWS_MAX }));
    let few = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) SELECT i FROM n";
    assert_eq!(reader(db).await.fetch_all(few, &[]).await.expect("fits").len(), 10_000);
}

pub(crate) async fn nothing_is_asked_uncounted(db: &Db) {
    tables(db).await;
    let before = db.meter().counts();
    insert(db, "a", 1).await;
    amount(db, "a").await;
    let after = db.meter().counts();
    assert_eq!(after.statements - before.statements, 2);
    assert_eq!(after.transactions - before.transactions, 1);
    assert_eq!(after.commits - before.commits, 1);
    assert_eq!(db.meter().counts(), after);
}
