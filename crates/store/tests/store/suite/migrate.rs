use store::{Db, Error, Migration};

const ONE: Migration = Migration {
    version: 1,
    name: "first",
    sqlite: "CREATE TABLE a (x INTEGER NOT NULL) STRICT; INSERT INTO a VALUES (1)",
    postgres: "CREATE TABLE a (x BIGINT NOT NULL); INSERT INTO a VALUES (1)",
};
const TWO: Migration = Migration {
    version: 2,
    name: "second",
    sqlite: "INSERT INTO a VALUES (2); CREATE TABLE b (y TEXT) STRICT",
    postgres: "INSERT INTO a VALUES (2); CREATE TABLE b (y TEXT)",
};

async fn rows(db: &Db) -> usize {
    db.read().await.expect("a connection").fetch_all("SELECT x FROM a", &[]).await.expect("reads").len()
}

fn problem(error: Error) -> String {
    match error {
        Error::Migration { problem, source } => {
            format!("{problem} {}", source.map(|cause| cause.to_string()).unwrap_or_default())
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn each_runs_once(db: &Db) {
    db.migrate(&[ONE]).await.expect("migrates");
    db.migrate(&[ONE]).await.expect("has nothing to do");
    assert_eq!(rows(db).await, 1);
    db.migrate(&[ONE, TWO]).await.expect("goes on");
    assert_eq!(rows(db).await, 2);
}

pub(crate) async fn a_newer_schema_is_refused(db: &Db) {
    db.migrate(&[ONE, TWO]).await.expect("migrates");
    let problem = problem(db.migrate(&[ONE]).await.expect_err("an old program"));
    assert!(problem.contains("at version 2 (second)") && problem.contains("only up to 1"), "{problem}");
}

pub(crate) async fn a_changed_file_is_refused(db: &Db) {
    db.migrate(&[ONE]).await.expect("migrates");
    let changed = Migration { sqlite: "CREATE TABLE a (x TEXT) STRICT", postgres: "CREATE TABLE a (x TEXT)", ..ONE };
    let problem = problem(db.migrate(&[changed, TWO]).await.expect_err("another file"));
    assert!(problem.contains("1 (first) was changed after it was applied"), "{problem}");
}

pub(crate) async fn a_missing_file_is_refused(db: &Db) {
    db.migrate(&[ONE, TWO]).await.expect("migrates");
    let three = Migration { version: 3, name: "third", ..ONE };
    let problem = problem(db.migrate(&[TWO, three]).await.expect_err("version 1 is gone"));
    assert!(problem.contains("has version 1 (first) where this program has 2 (second)"), "{problem}");
    let disorder = super::migrate::problem(db.migrate(&[TWO, ONE]).await.expect_err("not ascending"));
    assert!(disorder.contains("ascending"), "{disorder}");
}

pub(crate) async fn a_failing_one_leaves_nothing(db: &Db) {
    db.migrate(&[ONE]).await.expect("migrates");
    let broken = "INSERT INTO a VALUES (9); CREATE TABLE c (z TEXT); INSERT INTO nowhere VALUES (1)";
    let bad = Migration { version: 2, name: "broken", sqlite: broken, postgres: broken };
    let problem = problem(db.migrate(&[ONE, bad]).await.expect_err("breaks"));
    assert!(problem.contains("2 (broken)") && problem.contains("nowhere"), "{problem}");
    assert_eq!(rows(db).await, 1);
    db.migrate(&[ONE, TWO]).await.expect("the number is still free");
    assert_eq!(rows(db).await, 2);
}

pub(crate) async fn two_processes_migrate_at_once(db: &Db) {
    let files = [ONE, TWO];
    let both = futures::future::join_all((0..4).map(|_| db.migrate(&files))).await;
    assert!(both.iter().all(Result::is_ok), "{both:?}");
    assert_eq!(rows(db).await, 2);
}
