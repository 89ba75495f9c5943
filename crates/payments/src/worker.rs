//! Takes up what is due: orders and refunds that a channel has to be asked about, also those that a crash left in the middle, and days
//! that are to be reconciled or settled.

use std::sync::Arc;
use std::time::Duration;

use runtime::{Timestamp, crash};
use store::Tx;
use store::lease::Lease;
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::error::Error;
use crate::repo::work;
use crate::till::{Till, days, settle};

/// How often it is looked whether a day's bills are there, and how many breaks are open.
const PLAN_EVERY: Duration = Duration::from_secs(60);

/// Works until the stop. What is in hand then is finished by the tasks' drain; what is not stays due.
pub(crate) async fn run(till: Arc<Till>) {
    let stop = till.context.tasks.token();
    let hands = usize::try_from(till.config.worker.batch_max).unwrap_or(1);
    let slots = Arc::new(Semaphore::new(hands));
    let mut planned: Option<Timestamp> = None;
    while !stop.is_cancelled() {
        let now = till.context.clock.now();
        if planned.is_none_or(|at| now.since(at) >= PLAN_EVERY) {
            planned = Some(now);
            if let Err(error) = till.plan_days().await {
                tracing::warn!(%error, "the days to be reconciled cannot be noted; trying again");
            }
            if let Err(error) = till.plan_settlements().await {
                tracing::warn!(%error, "the day's settlements cannot be cut; trying again");
            }
        }
        let taken = match sweep(&till, &slots).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(%error, "due work cannot be claimed; trying again");
                0
            }
        };
        till.in_hand.set(i64::try_from(hands.saturating_sub(slots.available_permits())).unwrap_or(i64::MAX));
        // A full sweep may have left something behind.
        if taken > 0 && slots.available_permits() > 0 {
            continue;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = till.nudge.notified() => {}
            () = till.context.clock.sleep(till.config.worker.interval.get()) => {}
        }
    }
}

/// Claims what is due, as far as there are free slots, and sets to work on it; returns how much.
async fn sweep(till: &Arc<Till>, slots: &Arc<Semaphore>) -> Result<usize, Error> {
    let free = u32::try_from(slots.available_permits()).unwrap_or(u32::MAX);
    let now = till.context.clock.now();
    if free == 0 || !work::is_due(&mut till.db.read().await?, now).await? {
        return Ok(0);
    }
    let ttl = till.config.worker.lease.get();
    let leases = till
        .db
        .transact(async |mut tx: Tx| till.leases.claim_due(&mut tx, &till.owner, now, ttl, free).await)
        .await
        .map_err(|error: store::Error| Error::from(error))?;
    crash::point("payments.work.after_claim");
    let taken = leases.len();
    for lease in leases {
        let Ok(slot) = Arc::clone(slots).try_acquire_owned() else { break };
        let till = Arc::clone(till);
        till.clone().context.tasks.spawn("payments.work", async move {
            one(&till, &lease).instrument(tracing::info_span!("payments.work", subject = %lease.key)).await;
            drop(slot);
            till.nudge.notify_one();
        });
    }
    Ok(taken)
}

async fn one(till: &Till, lease: &Lease) {
    let done = match lease.key.as_str() {
        key if key.starts_with(days::PREFIX) => till.look_day(lease).await,
        key if key.starts_with(settle::PREFIX) => till.look_settlement(lease).await,
        _ => till.look(lease).await,
    };
    if let Err(error) = done {
        // The lease runs out by itself, and then it is looked at again.
        tracing::warn!(subject = %lease.key, error = %error, "open work could not be taken further");
    }
}
