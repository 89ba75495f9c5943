use std::collections::BTreeMap;
use std::time::Duration;

use runtime::Timestamp;
use store::lease::{Lease, Leases, Spec};
use store::{Db, Error, Migration, Tx, params};

const TABLES: &[Migration] = &[Migration {
    version: 1,
    name: "jobs",
    sqlite: "CREATE TABLE job (id TEXT PRIMARY KEY, done INTEGER NOT NULL DEFAULT 0, due_at INTEGER, lease_owner TEXT,
            lease_until INTEGER NOT NULL DEFAULT 0, fence INTEGER NOT NULL DEFAULT 0) STRICT;
        CREATE INDEX job_due ON job (due_at)",
    postgres: "CREATE TABLE job (id TEXT PRIMARY KEY, done BIGINT NOT NULL DEFAULT 0, due_at BIGINT, lease_owner TEXT,
            lease_until BIGINT NOT NULL DEFAULT 0, fence BIGINT NOT NULL DEFAULT 0);
        CREATE INDEX job_due ON job (due_at)",
}];

const JOBS: Spec = Spec { table: "job", key: "id" };
const TTL: Duration = Duration::from_secs(10);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

async fn jobs(db: &Db, due: &[(&str, Option<i64>)]) -> Leases {
    db.migrate(TABLES).await.expect("migrates");
    for (id, due) in due {
        let due = due.map(at);
        let sql = "INSERT INTO job (id, due_at) VALUES ($1, $2)";
        db.transact(async |mut tx: Tx| tx.execute(sql, params![id, due]).await).await.expect("inserts");
    }
    Leases::new(db, &JOBS).expect("plain names")
}

async fn claim(db: &Db, leases: &Leases, owner: &str, now: i64, max: u32) -> Vec<Lease> {
    let claim = db.transact(async |mut tx: Tx| leases.claim_due(&mut tx, owner, at(now), TTL, max).await);
    claim.await.expect("claims")
}

fn keys(leases: &[Lease]) -> Vec<&str> {
    leases.iter().map(|lease| lease.key.as_str()).collect()
}

pub(crate) async fn due_rows_go_to_one_worker_each(db: &Db) {
    let ids: Vec<String> = (0..40).map(|index| format!("job{index:02}")).collect();
    let due: Vec<_> = ids.iter().map(|id| (id.as_str(), Some(1))).collect();
    let leases = jobs(db, &due).await;
    let workers = ["one", "two", "three", "four"].map(async |owner| {
        let mut mine = Vec::new();
        loop {
            let claimed = claim(db, &leases, owner, 5, 3).await;
            if claimed.is_empty() {
                return (owner, mine);
            }
            assert!(claimed.len() <= 3);
            mine.extend(claimed);
            tokio::task::yield_now().await;
        }
    });
    // A worker may find everything locked for a moment by the others and go home; nobody comes back, so look once more at the end.
    let mut all: Vec<_> = futures::future::join_all(workers).await.into_iter().flat_map(|(_, mine)| mine).collect();
    loop {
        let rest = claim(db, &leases, "last", 5, 3).await;
        if rest.is_empty() {
            break;
        }
        all.extend(rest);
    }
    let mut owners = BTreeMap::new();
    for lease in &all {
        assert_eq!(lease.fence, 1);
        assert!(owners.insert(lease.key.clone(), lease.owner.clone()).is_none(), "{} was claimed twice", lease.key);
    }
    assert_eq!(owners.len(), 40);
}

/// Worker one claims, falls asleep past its lease, and wakes up while worker two has the row.
pub(crate) async fn a_late_worker_finds_its_fence_old(db: &Db) {
    let leases = jobs(db, &[("a", Some(1))]).await;
    let mut early = claim(db, &leases, "one", 5, 10).await.remove(0);
    assert!(claim(db, &leases, "two", 14, 10).await.is_empty(), "the lease still runs");
    let late = claim(db, &leases, "two", 15, 10).await.remove(0);
    assert_eq!((early.fence, late.fence), (1, 2));
    // The work itself names the fence, as every write of a worker must.
    let work = async |lease: &Lease| {
        let sql = "UPDATE job SET done = done + 1 WHERE id = $1 AND fence = $2";
        db.transact(async |mut tx: Tx| {
            leases.hold(&mut tx, lease).await?;
            tx.execute(sql, params![lease.key, lease.fence]).await
        })
        .await
    };
    assert!(matches!(work(&early).await, Err(Error::LeaseLost)));
    assert_eq!(work(&late).await.expect("works"), 1);
    let renewed = async |lease: &mut Lease| {
        let mut copy = lease.clone();
        let answer = db
            .transact(async |mut tx: Tx| {
                let mut copy = copy.clone();
                leases.renew(&mut tx, &mut copy, at(16), TTL).await.map(|()| copy)
            })
            .await?;
        copy = answer;
        *lease = copy;
        Ok::<_, Error>(())
    };
    assert!(matches!(renewed(&mut early).await, Err(Error::LeaseLost)));
    let released = db.transact(async |mut tx: Tx| leases.release(&mut tx, &early, None).await).await;
    assert!(matches!(released, Err(Error::LeaseLost)));
    // Also when the same worker claims again under its own name, its older claim is over.
    let again = claim(db, &leases, "two", 25, 10).await.remove(0);
    assert_eq!(again.fence, 3);
    assert!(matches!(work(&late).await, Err(Error::LeaseLost)));
    assert_eq!(work(&again).await.expect("works"), 1);
}

pub(crate) async fn a_lease_is_renewed_and_released(db: &Db) {
    let leases = jobs(db, &[("a", Some(1))]).await;
    let first = claim(db, &leases, "one", 5, 10).await.remove(0);
    assert_eq!((first.until, first.due_at), (at(15), Some(at(1))));
    let renewed = db
        .transact(async |mut tx: Tx| {
            let mut lease = first.clone();
            leases.renew(&mut tx, &mut lease, at(14), TTL).await.map(|()| lease)
        })
        .await
        .expect("renews");
    assert_eq!(renewed.until, at(24));
    assert!(claim(db, &leases, "two", 20, 10).await.is_empty());
    let release = async |due| db.transact(async |mut tx: Tx| leases.release(&mut tx, &renewed, due).await).await;
    release(Some(at(30))).await.expect("releases");
    assert!(claim(db, &leases, "two", 29, 10).await.is_empty(), "it is not due yet");
    let next = claim(db, &leases, "two", 30, 10).await.remove(0);
    assert_eq!(next.fence, 2);
    assert!(matches!(release(None).await, Err(Error::LeaseLost)), "it was released before");
    db.transact(async |mut tx: Tx| leases.release(&mut tx, &next, None).await).await.expect("releases");
    assert!(claim(db, &leases, "two", 1_000, 10).await.is_empty(), "nothing is left to do");
}

pub(crate) async fn one_row_is_claimed_by_key(db: &Db) {
    let leases = jobs(db, &[("a", None), ("b", Some(1))]).await;
    let one = async |key: &str, owner: &str, now| {
        db.transact(async |mut tx: Tx| leases.claim_one(&mut tx, key, owner, at(now), TTL).await).await.expect("claims")
    };
    let lease = one("a", "one", 5).await.expect("is free, due or not");
    assert_eq!((lease.key.as_str(), lease.fence, lease.due_at), ("a", 1, None));
    assert_eq!(one("a", "two", 6).await, None, "another worker holds it");
    assert_eq!(one("nobody", "two", 6).await, None);
    assert_eq!(keys(&claim(db, &leases, "two", 6, 10).await), ["b"]);
}

pub(crate) async fn the_longest_due_go_first(db: &Db) {
    let leases = jobs(db, &[("a", Some(4)), ("b", Some(2)), ("c", Some(3)), ("d", Some(9)), ("e", None)]).await;
    assert_eq!(keys(&claim(db, &leases, "one", 5, 2).await), ["b", "c"]);
    assert_eq!(keys(&claim(db, &leases, "one", 5, 2).await), ["a"]);
    assert!(Leases::new(db, &Spec { table: "job; DROP", key: "id" }).is_err());
}
