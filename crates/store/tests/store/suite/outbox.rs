use std::time::Duration;

use runtime::Clock;
use store::outbox::{self, Event};
use store::{Db, Error, Tx};

async fn append(db: &Db, stream: &str, key: &str) -> i64 {
    db.transact(async |mut tx: Tx| outbox::append(&mut tx, stream, key, key.as_bytes()).await).await.expect("appends")
}

async fn read(db: &Db, stream: &str, after: i64, max: u32) -> Vec<Event> {
    let mut reader = db.read().await.expect("a connection");
    outbox::read_after(&mut reader, stream, after, max).await.expect("reads")
}

pub(crate) async fn numbers_are_dense_and_in_order(db: &Db) {
    db.migrate(&[]).await.expect("migrates");
    let before = db.clock().now();
    for (index, key) in ["a", "b", "a"].into_iter().enumerate() {
        assert_eq!(append(db, "s", key).await, i64::try_from(index).expect("small") + 1);
    }
    let events = read(db, "s", 0, 10).await;
    let seen: Vec<_> = events.iter().map(|event| (event.seq, event.key.as_str())).collect();
    assert_eq!(seen, [(1, "a"), (2, "b"), (3, "a")]);
    assert!(events.iter().all(|event| event.payload == event.key.as_bytes() && event.at >= before));
    assert_eq!(read(db, "s", 1, 1).await, events[1..2]);
    assert!(read(db, "s", 3, 10).await.is_empty());
    let head = outbox::head(&mut db.read().await.expect("a connection"), "s").await.expect("reads");
    assert_eq!(head, 3);
}

pub(crate) async fn a_rollback_takes_its_number_back(db: &Db) {
    db.migrate(&[]).await.expect("migrates");
    append(db, "s", "a").await;
    let refused = db
        .transact(async |mut tx: Tx| {
            assert_eq!(outbox::append(&mut tx, "s", "gone", b"").await?, 2);
            Err::<(), _>(Error::Failed)
        })
        .await;
    assert!(refused.is_err());
    assert_eq!(append(db, "s", "b").await, 2);
    assert_eq!(read(db, "s", 0, 10).await.iter().map(|event| event.key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

pub(crate) async fn streams_are_apart(db: &Db) {
    db.migrate(&[]).await.expect("migrates");
    assert_eq!((append(db, "one", "a").await, append(db, "two", "b").await, append(db, "one", "c").await), (1, 1, 2));
    assert_eq!(read(db, "two", 0, 10).await.len(), 1);
    let head = outbox::head(&mut db.read().await.expect("a connection"), "three").await.expect("reads");
    assert_eq!(head, 0);
}

/// A reader follows while eight appenders commit in an order of their own. What it saw once must be all there ever was up to there.
pub(crate) async fn concurrent_appenders_leave_no_gap_behind_a_reader(db: &Db) {
    const EACH: i64 = 25;
    db.migrate(&[]).await.expect("migrates");
    let appenders = (0..8_i64).map(|appender| async move {
        for index in 0..EACH {
            let key = format!("{appender}");
            db.transact(async |mut tx: Tx| {
                outbox::append(&mut tx, "s", &key, &index.to_be_bytes()).await?;
                // Between drawing the number and committing it: here a sequence would let a later number overtake.
                for _ in 0..(appender * 3) {
                    tokio::task::yield_now().await;
                }
                Ok::<_, Error>(())
            })
            .await
            .expect("appends");
        }
    });
    let follower = async {
        let mut seen: Vec<Event> = Vec::new();
        let mut wake = db.wake().waiter();
        while seen.len() < 8 * usize::try_from(EACH).expect("small") {
            let cursor = seen.last().map_or(0, |event| event.seq);
            let events = read(db, "s", cursor, 7).await;
            if events.is_empty() {
                wake.wait(db.clock(), Duration::from_millis(50)).await;
            }
            seen.extend(events);
        }
        seen
    };
    let (_, seen) = tokio::join!(futures::future::join_all(appenders), follower);
    let numbers: Vec<_> = seen.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=8 * EACH).collect::<Vec<_>>(), "the reader passed over an event");
    for appender in 0..8 {
        let own = seen.iter().filter(|event| event.key == appender.to_string());
        let order: Vec<_> =
            own.map(|event| i64::from_be_bytes(event.payload[..].try_into().expect("8 bytes"))).collect();
        assert_eq!(order, (0..EACH).collect::<Vec<_>>(), "one key's events are out of order");
    }
}

async fn woken(waiter: &mut store::outbox::Waiter, clock: &Clock) -> bool {
    let start = tokio::time::Instant::now();
    waiter.wait(clock, Duration::from_millis(300)).await;
    start.elapsed() < Duration::from_millis(250)
}

pub(crate) async fn a_commit_wakes_and_a_rollback_does_not(db: &Db) {
    db.migrate(&[]).await.expect("migrates");
    let (mut waiter, mut commits) = (db.wake().waiter(), db.wake().commits());
    let refused = db
        .transact(async |mut tx: Tx| {
            outbox::append(&mut tx, "s", "gone", b"").await?;
            Err::<(), _>(Error::Failed)
        })
        .await;
    assert!(refused.is_err());
    assert!(!woken(&mut waiter, db.clock()).await, "a rollback woke a reader");
    // The commit comes before the waiting: the hint must not be lost.
    append(db, "s", "a").await;
    assert!(woken(&mut waiter, db.clock()).await, "a commit did not wake");
    assert!(woken(&mut commits, db.clock()).await);
    assert!(!woken(&mut waiter, db.clock()).await, "one commit woke twice");
    db.wake().hint();
    assert!(woken(&mut waiter, db.clock()).await);
    assert!(!woken(&mut commits, db.clock()).await, "a hint from outside is no commit of ours");
}

pub(crate) async fn old_events_are_trimmed(db: &Db) {
    db.migrate(&[]).await.expect("migrates");
    for key in ["a", "b", "c"] {
        append(db, "s", key).await;
    }
    let soon = db.clock().now().plus(Duration::from_secs(60));
    let trim = async |up_to, before| {
        db.transact(async |mut tx: Tx| outbox::trim(&mut tx, "s", up_to, before).await).await.expect("trims")
    };
    assert_eq!(trim(3, store_epoch()).await, 0, "nothing is that old");
    assert_eq!(trim(2, soon).await, 2);
    assert_eq!(read(db, "s", 0, 10).await.len(), 1);
    assert_eq!(append(db, "s", "d").await, 4, "numbers are never used again");
}

fn store_epoch() -> runtime::Timestamp {
    runtime::Timestamp::from_micros(0)
}
