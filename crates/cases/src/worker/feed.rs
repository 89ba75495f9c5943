//! Payments' events, applied once: the cursor moves in the transaction of what they did.

use std::sync::Arc;
use std::time::Duration;

use contracts::ids::CaseId;
use runtime::Timestamp;
use store::Tx;

use crate::convert::peers::money_event;
use crate::domain::{Event, Kind, MoneyEvent};
use crate::engine::{Engine, Moved};
use crate::error::Error;
use crate::peers::MoneyNews;
use crate::repo::{self, File, Hand};

/// Events in one transaction.
const EVENTS_MAX: i32 = 64;
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Follows payments' stream until the stop.
pub(super) async fn run(engine: Arc<Engine>) -> Result<(), Error> {
    let stop = engine.context.tasks.token();
    let mut failures = 0_u32;
    while !stop.is_cancelled() {
        let round = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            round = round(&engine) => round,
        };
        failures = if super::logged("events", round).is_some() { 0 } else { failures.saturating_add(1) };
        if failures > 0 {
            let pause = PAUSE_FIRST.saturating_mul(1 << failures.min(10)).min(PAUSE_MAX);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = engine.context.clock.sleep(pause) => {}
            }
        }
    }
    Ok(())
}

/// Asks for what is new, and applies it.
async fn round(engine: &Engine) -> Result<(), Error> {
    let mut reader = engine.db.read().await?;
    let cursor = repo::cursor(&mut reader).await?;
    drop(reader);
    let news = engine.peers.events(cursor, EVENTS_MAX).await;
    let news = news.map_err(|fault| Error::Peer { peer: "payments", source: Some(Box::new(fault)) })?;
    let Some(last) = news.last().map(|event| event.sequence) else { return Ok(()) };
    if news.first().is_some_and(|first| first.sequence <= cursor) || !news.is_sorted_by_key(|event| event.sequence) {
        return Err(Error::Corrupt("events"));
    }
    engine.context.crash.point("cases.events.after_read");
    let applied = engine.db.transact(async |mut tx: Tx| apply(engine, &mut tx, cursor, last, &news).await).await;
    match applied {
        Ok(moved) => {
            engine.context.crash.point("cases.events.after_commit");
            engine.announce(&moved);
            Ok(())
        }
        // Another replica was first, or a case moved meanwhile: the next round reads anew.
        Err(error) if error.is_raced() => Ok(()),
        Err(error) => Err(error),
    }
}

async fn apply(engine: &Engine, tx: &mut Tx, cursor: i64, last: i64, news: &[MoneyNews]) -> Result<Vec<Moved>, Error> {
    let now = engine.context.clock.now();
    // First, so that two replicas with the same events do not both work them out.
    repo::move_cursor(tx, cursor, last).await?;
    let mut moved = Vec::new();
    for event in news {
        let money = money_event(event.kind);
        let files = concerned(tx, event, money).await?;
        if files.is_empty() {
            tracing::error!(order = event.order_id, "an event of payments has no case here");
            engine.metrics.orphan();
        }
        for file in files {
            moved.push(one(engine, tx, file, money, &event.order_id, now).await?);
        }
    }
    engine.store_history(tx, &moved, now).await?;
    engine.context.crash.point("cases.events.before_commit");
    Ok(moved)
}

/// The cases that an event is for: the order's own, and for hints also the one that returns its late money.
async fn concerned(tx: &mut Tx, event: &MoneyNews, money: MoneyEvent) -> Result<Vec<File>, Error> {
    let mut files = repo::by_order(tx, &event.order_id).await?;
    let own = |file: &File| file.case.kind == Kind::Pay;
    if !files.iter().any(own)
        && let Some(case) = event.case
    {
        // The answer that told of the order was lost; payments knows whose it is.
        files.extend(own_case(tx, case).await?);
    }
    if money != MoneyEvent::Moved {
        files.retain(own);
    }
    Ok(files)
}

async fn own_case(tx: &mut Tx, case: CaseId) -> Result<Option<File>, Error> {
    Ok(repo::load(tx, case).await?.filter(|file| file.case.kind == Kind::Pay))
}

async fn one(
    engine: &Engine,
    tx: &mut Tx,
    file: File,
    money: MoneyEvent,
    order_id: &str,
    now: Timestamp,
) -> Result<Moved, Error> {
    let event = Event::Money { money, order_id: order_id.to_owned() };
    let moved = engine.move_case(tx, file, &event, now).await?;
    engine.store_rows(tx, &moved, Hand::Free, now).await?;
    Ok(moved)
}
