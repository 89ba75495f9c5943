//! What runs by itself: due cases are worked on, payments' events are applied, the catalogue is followed, the census is taken.

mod feed;
mod steps;

use std::sync::Arc;

use runtime::telemetry;
use store::Tx;
use store::lease::Lease;
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::domain::Event;
use crate::engine::{Engine, Standing};
use crate::error::Error;
use crate::repo::{self, File};

/// How many steps a worker takes with one case before others get their turn.
const STEPS_MAX: usize = 32;
/// How late a case may be before the census calls it silent: its worker is on the way.
const GRACE_LEASES: u32 = 2;

/// Starts everything.
pub(crate) fn start(engine: &Arc<Engine>) {
    let tasks = &engine.context.tasks;
    // Without these no case goes on: when one of them ends, the process does, and the next start goes on from the store.
    tasks.spawn_critical("cases worker", work(engine.clone()));
    tasks.spawn_critical("cases feed", feed::run(engine.clone()));
    tasks.spawn("cases routes", engine.routes.clone().follow());
    tasks.spawn("cases census", census(engine.clone()));
}

/// Claims due cases and works on them, a bounded number at once.
async fn work(engine: Arc<Engine>) -> Result<(), Error> {
    let (clock, stop) = (engine.context.clock.clone(), engine.context.tasks.token());
    let settings = engine.config.worker.clone();
    let owner = owner(&engine);
    let hands = usize::try_from(settings.cases_max).unwrap_or(1);
    let permits = Arc::new(Semaphore::new(hands));
    let mut returned = settings.name.is_empty();
    while !stop.is_cancelled() {
        if !returned {
            // What this replica held before it was restarted is nobody's now.
            returned = logged("take back", repo::give_back(&engine.db, &owner).await).is_some();
        }
        let free = u32::try_from(permits.available_permits()).unwrap_or(0);
        let claimed = if free == 0 {
            Vec::new()
        } else {
            logged("claim", claim(&engine, &owner, free).await).unwrap_or_default()
        };
        let full = claimed.len() == usize::try_from(free).unwrap_or(0);
        for lease in claimed {
            // There are as many permits as were counted free: only this loop takes them.
            let Ok(permit) = permits.clone().try_acquire_owned() else { break };
            let (engine, next) = (engine.clone(), engine.clone());
            engine.context.tasks.spawn("cases case", async move {
                logged("case", Box::pin(one(&next, lease)).await);
                drop(permit);
                next.hints.due();
            });
        }
        engine.metrics.in_hand(hands - permits.available_permits());
        if !full || free == 0 {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = engine.hints.due_within(&clock, settings.poll.get()) => {}
            }
        }
    }
    Ok(())
}

/// The name under which cases are leased.
fn owner(engine: &Engine) -> String {
    match engine.config.worker.name.as_str() {
        "" => format!("cases-{}", engine.context.ids.hex(16)),
        name => name.to_owned(),
    }
}

async fn claim(engine: &Engine, owner: &str, max: u32) -> Result<Vec<Lease>, Error> {
    let now = engine.context.clock.now();
    // Looking first keeps the writer of an idle service free.
    let mut reader = engine.db.read().await?;
    let due = repo::any_due(&mut reader, now).await?;
    drop(reader);
    if !due {
        return Ok(Vec::new());
    }
    let ttl = engine.config.worker.lease.get();
    let leases: Vec<Lease> = engine
        .db
        .transact(async |mut tx: Tx| Ok::<_, Error>(engine.leases.claim_due(&mut tx, owner, now, ttl, max).await?))
        .await?;
    engine.context.crash.point("cases.claim.after_commit");
    Ok(leases)
}

/// Works on one case until it is not due any more.
async fn one(engine: &Engine, lease: Lease) -> Result<(), Error> {
    let Ok(id) = lease.key.parse() else { return Err(Error::Corrupt("case_id")) };
    let mut reader = engine.db.read().await?;
    let file = repo::load(&mut reader, id).await?;
    drop(reader);
    let Some(file) = file.filter(|file| file.is_leased_by(&lease)) else { return Ok(()) };
    let span = tracing::info_span!("cases.work", case_id = %id);
    if let Some(opened) = &file.about.trace {
        telemetry::go_on(&span, opened);
    }
    Box::pin(go_through(engine, &lease, file)).instrument(span).await
}

/// Takes step after step.
async fn go_through(engine: &Engine, lease: &Lease, file: File) -> Result<(), Error> {
    let stop = engine.context.tasks.token();
    let mut held = Some(file);
    for _ in 0..STEPS_MAX {
        let Some(file) = held.take() else { return Ok(()) };
        if stop.is_cancelled() {
            held = Some(file);
            break;
        }
        held = match step(engine, lease, &file).await? {
            Standing::Mine(file) => Some(*file),
            Standing::Released | Standing::Lost => None,
        };
    }
    match held {
        Some(file) => give_back(engine, lease, &file).await,
        None => Ok(()),
    }
}

/// Takes one step: the deadline first, else the next action.
async fn step(engine: &Engine, lease: &Lease, file: &File) -> Result<Standing, Error> {
    let now = engine.context.clock.now();
    let over = file.case.resolve_by.is_some_and(|by| by <= now);
    let Some(next) = file.case.next.filter(|_| !over) else {
        return engine.advance(lease, file.case.id, &Event::Tick).await;
    };
    if next.at > now {
        // It became due by its deadline alone, and the deadline has moved since.
        return engine.advance(lease, file.case.id, &Event::Tick).await;
    }
    steps::act(engine, lease, file, next.action).await
}

/// Gives a case back that is still due, for the next worker.
async fn give_back(engine: &Engine, lease: &Lease, file: &File) -> Result<(), Error> {
    let due_at = file.case.due_at();
    let given = engine
        .db
        .transact(async |mut tx: Tx| Ok::<_, Error>(engine.leases.release(&mut tx, lease, due_at).await?))
        .await;
    match given {
        Err(Error::Store(store::Error::LeaseLost)) => Ok(()),
        other => other,
    }
}

/// Takes the census for the metrics.
async fn census(engine: Arc<Engine>) {
    let (clock, stop) = (engine.context.clock.clone(), engine.context.tasks.token());
    while !stop.is_cancelled() {
        if let Some(census) = logged("census", counted(&engine).await) {
            if census.silent() != 0 {
                tracing::error!(silent = census.silent(), "cases that nobody answers for");
            }
            engine.metrics.counted(&census);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = clock.sleep(engine.config.worker.census.get()) => {}
        }
    }
}

async fn counted(engine: &Engine) -> Result<crate::domain::Census, Error> {
    let grace = engine.config.worker.lease.get() * GRACE_LEASES;
    let mut reader = engine.db.read().await?;
    repo::census(&mut reader, engine.context.clock.now(), grace).await
}

/// Logs what went wrong in the background; the next round tries again.
fn logged<T>(what: &'static str, done: Result<T, Error>) -> Option<T> {
    done.inspect_err(|error| {
        let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        tracing::warn!(what, %error, source, "cases work did not go through");
    })
    .ok()
}
