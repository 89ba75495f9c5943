use std::collections::BTreeMap;

use store::{At, Db, Error, Fault, Faults, Migration, Tx, params};

use crate::held::{Told, assert_held};

const TABLES: &[Migration] = &[Migration {
    version: 1,
    name: "notes",
    sqlite: "CREATE TABLE note (id TEXT PRIMARY KEY) STRICT",
    postgres: "CREATE TABLE note (id TEXT PRIMARY KEY)",
}];

const INSERT: &str = "INSERT INTO note (id) VALUES ($1)";

/// Writes two rows in one transaction through a handle with one armed fault, then checks through a sound handle what is there.
async fn write(db: &Db, fault: Fault, at: At) -> (Result<(), Error>, usize) {
    db.migrate(TABLES).await.expect("migrates");
    let faults = Faults::new();
    faults.arm(fault, at);
    let faulty = db.with_faults(&faults);
    let answer = faulty
        .transact(async |mut tx: Tx| {
            tx.execute(INSERT, params!["a"]).await?;
            tx.execute(INSERT, params!["b"]).await?;
            Ok(())
        })
        .await;
    assert_eq!(faults.struck(), 1, "the fault was not hit");
    let rows = db.read().await.expect("a connection").fetch_all("SELECT id FROM note", &[]).await.expect("reads").len();
    // Whatever happened, the store works on.
    db.transact(async |mut tx: Tx| tx.execute(INSERT, params!["after"]).await).await.expect("inserts");
    faulty.transact(async |mut tx: Tx| tx.execute(INSERT, params!["later"]).await).await.expect("the fault is spent");
    let told = [("a", Told::from(&answer)), ("b", Told::from(&answer)), ("after", Told::Done), ("later", Told::Done)];
    let told: BTreeMap<_, _> = told.map(|(id, told)| (id.to_owned(), told)).into();
    let kept = db.read().await.expect("a connection").fetch_all("SELECT id FROM note", &[]).await.expect("reads");
    let kept: Vec<String> = kept.iter().map(|row| row.get("id").expect("an id")).collect();
    assert_held(&told, &kept).await;
    (answer, rows)
}

fn nothing_happened((answer, rows): (Result<(), Error>, usize)) {
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");
    assert_eq!(rows, 0);
}

fn nobody_knows((answer, rows): (Result<(), Error>, usize), expected: usize) {
    let error = answer.expect_err("the answer is lost");
    assert!(matches!(error, Error::CommitUnknown { .. }), "{error:?}");
    assert!(!error.had_no_effect());
    assert_eq!(rows, expected);
}

pub(crate) async fn a_failing_statement_leaves_nothing(db: &Db) {
    nothing_happened(write(db, Fault::Fail, At::Statement(2)).await);
}

pub(crate) async fn a_torn_statement_leaves_nothing(db: &Db) {
    nothing_happened(write(db, Fault::Tear, At::Statement(2)).await);
}

pub(crate) async fn a_hanging_statement_ends(db: &Db) {
    nothing_happened(write(db, Fault::Hang, At::Statement(1)).await);
}

pub(crate) async fn a_transaction_that_cannot_begin_says_so(db: &Db) {
    nothing_happened(write(db, Fault::Fail, At::Begin).await);
}

pub(crate) async fn a_commit_that_fails_for_certain(db: &Db) {
    nothing_happened(write(db, Fault::Fail, At::BeforeCommit).await);
}

pub(crate) async fn a_commit_lost_before_it_arrived(db: &Db) {
    let unknown = db.meter().counts().unknown;
    nobody_knows(write(db, Fault::Tear, At::BeforeCommit).await, 0);
    assert_eq!(db.meter().counts().unknown, unknown + 1);
}

pub(crate) async fn a_commit_whose_answer_is_lost(db: &Db) {
    nobody_knows(write(db, Fault::Hang, At::AfterCommit).await, 2);
}
