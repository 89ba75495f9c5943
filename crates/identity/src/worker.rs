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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use runtime::{Context, Timestamp};

    use super::*;
    use crate::repo::{GrantRow, MIGRATIONS};

    const ENDS: Timestamp = Timestamp::from_micros(1_000_000_000);

    async fn used(db: &Db, number: u32) -> bool {
        let digest = rpc::digest::sha256(&number.to_be_bytes());
        db.transact(async |mut tx: Tx| repo::use_jti(&mut tx, &digest, ENDS).await).await.expect("asks")
    }

    #[tokio::test]
    async fn the_purge_takes_what_has_ended_in_bites_and_nothing_else() {
        let db = Db::simulated().expect("opens");
        db.migrate(MIGRATIONS).await.expect("migrates");
        // More than one transaction takes away.
        for number in 0..1_200 {
            assert!(used(&db, number).await);
        }
        let grant = GrantRow {
            digest: vec![1],
            token_digest: vec![2],
            person: vec![3],
            sealed: "sealed".to_owned(),
            expires_at: ENDS.plus(Duration::from_secs(1)),
        };
        let add = async |mut tx: Tx| repo::add_grant(&mut tx, "case_1", &grant, ENDS).await;
        assert_eq!(db.transact(add).await.expect("adds"), grant);

        let (clock, hand) = Clock::manual(ENDS);
        purge(&db, &clock).await.expect("purges");
        assert!(!used(&db, 7).await, "what ends now has not ended");
        hand.advance(Duration::from_micros(1));
        purge(&db, &clock).await.expect("purges");
        for number in [0, 7, 1_199] {
            assert!(used(&db, number).await, "{number} is gone");
        }
        let kept = async || repo::grant(&mut db.read().await.expect("reads"), "case_1").await.expect("reads");
        assert_eq!(kept().await, Some(grant.clone()));
        hand.advance(Duration::from_secs(2));
        purge(&db, &clock).await.expect("purges");
        assert_eq!(kept().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn another_replicas_key_is_seen_within_a_poll() {
        let context = Context::system();
        let db = Db::simulated().expect("opens");
        db.migrate(MIGRATIONS).await.expect("migrates");
        let here = KeyList::load(db.clone(), context.clock.clone()).await.expect("loads");
        let there = KeyList::load(db.clone(), context.clock.clone()).await.expect("loads");
        start(&Config::default(), &context, &db, &here);
        let key = rpc::jose::SigningKey::generate(&context.ids).expect("a key");
        let public = rpc::keyring::PublicKey::Verify(key.verifying_key());
        there.keep("cases", public).await.expect("keeps");
        assert_eq!(here.list().keys.verify_key("cases", key.kid()), None);
        context.clock.sleep(Duration::from_millis(1_100)).await;
        assert_eq!(here.list().keys.verify_key("cases", key.kid()), Some(key.verifying_key()));
        context.tasks.abort();
    }
}
