//! What identity does without being asked: it looks for other replicas' keys, and it purges what has ended.

use runtime::{Clock, Context};
use store::{Db, Tx};

use crate::config::Config;
use crate::keylist::KeyList;
use crate::repo;

/// Starts both; they end with the context's tasks.
pub(crate) fn start(config: &Config, context: &Context, db: &Db, keylist: &KeyList) {
    let (stop, clock, keylist) = (context.tasks.token(), context.clock.clone(), keylist.clone());
    let every = config.keys_poll.get();
    context.tasks.spawn("identity-keys", async move {
        while pause(&clock, &stop, every).await {
            if let Err(error) = keylist.refresh().await {
                tracing::warn!(%error, "the key list could not be read; the one in memory stays in force");
            }
        }
    });
    let (stop, clock, db) = (context.tasks.token(), context.clock.clone(), db.clone());
    let every = config.purge_interval.get();
    context.tasks.spawn("identity-purge", async move {
        while pause(&clock, &stop, every).await {
            if let Err(error) = purge(&db, &clock).await {
                tracing::warn!(%error, "ended assertions and grants could not be purged; they are tried again");
            }
        }
    });
}

/// Takes away everything that has ended.
pub(crate) async fn purge(db: &Db, clock: &Clock) -> Result<(), store::Error> {
    let now = clock.now();
    while db.transact(async |mut tx: Tx| repo::purge(&mut tx, now).await).await? {}
    Ok(())
}

/// Waits; false when it is time to stop.
async fn pause(clock: &Clock, stop: &tokio_util::sync::CancellationToken, span: std::time::Duration) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        () = clock.sleep(span) => true,
    }
}
