//! What only the simulated database must do: answer inside one poll, survive its host's crash, and replay.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use runtime::{Context, Timestamp};
use store::{Db, Error, Migration, Tx, outbox, params};

use crate::held::{Told, assert_held};

crate::conformance_of!(crate::engines::simulated, #[tokio::test(start_paused = true)]);

const TABLES: &[Migration] = &[Migration {
    version: 1,
    name: "rows",
    sqlite: "CREATE TABLE one (id INTEGER PRIMARY KEY, host TEXT NOT NULL) STRICT",
    postgres: "",
}];

const INSERT: &str = "INSERT INTO one (id, host) VALUES ($1, $2)";

/// No runtime, no timer, no second poll.
#[test]
fn every_call_answers_inside_one_poll() {
    let db = Db::simulated().expect("opens");
    db.migrate(TABLES).now_or_never().expect("one poll").expect("migrates");
    for id in 0..500_i64 {
        let insert = db.transact(async |mut tx: Tx| {
            tx.execute(INSERT, params![id, "h"]).await?;
            outbox::append(&mut tx, "s", "k", b"").await
        });
        assert_eq!(insert.now_or_never().expect("one poll").expect("inserts"), id + 1);
    }
    let reading = async {
        let mut reader = db.read().await?;
        reader.fetch_all("SELECT id FROM one", &[]).await
    };
    assert_eq!(reading.now_or_never().expect("one poll").expect("reads").len(), 500);
}

/// What every writer was told, by host and row.
type Answers = Arc<Mutex<BTreeMap<String, Told>>>;

/// Plays a host that writes in bursts, waits in the middle of transactions, crashes and restarts, beside two that write on another
/// database; returns everything that happened with its virtual time.
fn play(seed: u64) -> Vec<String> {
    let mut sim = turmoil::Builder::new().rng_seed(seed).simulation_duration(Duration::from_secs(60)).build();
    let (trace, answers) = (Arc::new(Mutex::new(Vec::new())), Answers::default());
    let (crashing, steady) = (Db::simulated().expect("opens"), Db::simulated().expect("opens"));
    for (name, db) in [("a", &crashing), ("b", &steady), ("c", &steady)] {
        let (trace, answers, db) = (Arc::clone(&trace), Arc::clone(&answers), db.clone());
        sim.host(name, move || host(name, seed, db.clone(), Arc::clone(&trace), Arc::clone(&answers)));
    }
    let mut committed = 0;
    for step in 0..400_u32 {
        sim.step().expect("steps");
        if step % 61 == 60 {
            sim.crash("a");
            // What the host had acknowledged is there; what was open is gone, and the next start can write.
            let seen = count(&crashing).now_or_never().expect("nobody holds the database").expect("reads");
            assert!(seen >= committed);
            committed = seen;
            trace.lock().expect("not poisoned").push(format!("crash with {seen} rows"));
            sim.bounce("a");
        }
    }
    ["a", "b", "c"].into_iter().for_each(|name| sim.crash(name));
    let kept = [&crashing, &steady].map(|db| written(db).now_or_never().expect("free").expect("reads"));
    let answers = answers.lock().expect("not poisoned").clone();
    assert_held(&answers, &kept.concat()).now_or_never().expect("waits for nothing");
    let mut trace = std::mem::take(&mut *trace.lock().expect("not poisoned"));
    let rows = count(&crashing).now_or_never().expect("free").expect("reads");
    trace.push(format!("{rows} rows, {:?}", crashing.meter().counts()));
    trace
}

/// Every row, as its writer names it.
async fn written(db: &Db) -> Result<Vec<String>, Error> {
    let rows = db.read().await?.fetch_all("SELECT id, host FROM one", &[]).await?;
    rows.iter().map(|row| Ok(name_of(&row.get::<String>("host")?, row.get("id")?))).collect()
}

fn name_of(host: &str, id: i64) -> String {
    format!("{host}/{id}")
}

async fn count(db: &Db) -> Result<i64, Error> {
    let row = db.read().await?.fetch_opt("SELECT COUNT(*) AS n FROM one", &[]).await?;
    row.map_or(Ok(0), |row| row.get("n"))
}

async fn host(
    name: &'static str,
    seed: u64,
    db: Db,
    trace: Arc<Mutex<Vec<String>>>,
    answers: Answers,
) -> Result<(), Box<dyn std::error::Error>> {
    let started = Timestamp::from_micros(0).plus(turmoil::sim_elapsed().unwrap_or_default());
    let points = runtime::crash::Points::simulated(|_| {});
    let seed = seed.wrapping_mul(1_000_003) ^ u64::from(name.as_bytes()[0]) ^ (started.micros().unsigned_abs() << 8);
    let context = Context::simulated(started, seed, runtime::Net::system(), points);
    let (db, clock, ids) = (db.with_context(context.clone()), context.clock, context.ids);
    db.migrate(TABLES).await?;
    let note = |what: String| {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        trace.lock().expect("not poisoned").push(format!("{:>9} {name} {what}", at.as_micros()));
    };
    note("starts".to_owned());
    loop {
        let id = i64::try_from(ids.below(1 << 40))?;
        let pause = Duration::from_micros(ids.below(3_000));
        let tell = |told| {
            answers.lock().expect("not poisoned").insert(name_of(name, id), told);
        };
        tell(Told::Unknown);
        let answer = db
            .transact(async |mut tx: Tx| {
                tx.execute(INSERT, params![id, name]).await?;
                // A crash may come here, with the transaction open.
                clock.sleep(pause).await;
                outbox::append(&mut tx, "s", name, &id.to_be_bytes()).await
            })
            .await;
        tell(Told::from(&answer));
        note(format!("{id} {answer:?}"));
        clock.sleep(pause).await;
    }
}

#[test]
fn one_seed_gives_one_trace() {
    let first = play(7);
    assert!(first.len() > 100 && first.iter().any(|line| line.starts_with("crash")), "{first:?}");
    assert!(!first.iter().any(|line| line.contains("Err")), "{first:#?}");
    assert_eq!(first, play(7));
    assert_ne!(first, play(8));
}

/// The outbox of the crashed host has no hole: its numbers were taken back with its transactions.
#[test]
fn an_open_transaction_ends_with_its_host() {
    let mut sim = turmoil::Builder::new().build();
    let db = Db::simulated().expect("opens");
    db.migrate(TABLES).now_or_never().expect("one poll").expect("migrates");
    let before = db.meter().counts();
    let lent = db.clone();
    sim.host("a", move || {
        let db = lent.clone();
        async move {
            db.transact(async |mut tx: Tx| {
                let next = count_in(&mut tx).await?;
                tx.execute(INSERT, params![next, "a"]).await?;
                outbox::append(&mut tx, "s", "k", b"").await?;
                std::future::pending::<Result<(), Error>>().await
            })
            .await?;
            Ok(())
        }
    });
    for round in 1..=20 {
        sim.step().expect("steps");
        let counts = db.meter().counts();
        let open = counts.transactions - before.transactions - (counts.commits - before.commits);
        assert_eq!(open, round, "the host has a transaction open");
        sim.crash("a");
        let insert = db.transact(async |mut tx: Tx| outbox::append(&mut tx, "s", "k", b"").await);
        insert.now_or_never().expect("the crash freed the database").expect("writes");
        sim.bounce("a");
    }
    sim.crash("a");
    assert_eq!(count(&db).now_or_never().expect("free").expect("reads"), 0);
    let head = async { outbox::head(&mut db.read().await?, "s").await };
    assert_eq!(head.now_or_never().expect("free").expect("reads"), 20);
}

async fn count_in(tx: &mut Tx) -> Result<i64, Error> {
    let row = tx.fetch_opt("SELECT COUNT(*) AS n FROM one", &[]).await?;
    row.map_or(Ok(0), |row| row.get("n"))
}
