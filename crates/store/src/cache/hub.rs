use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use runtime::Tasks;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Cache;
use crate::Db;

/// How many messages wait for a slow subscriber; what comes after them is lost to it, and it is told.
const WAITING_MAX: usize = 256;
/// Commits that follow each other this closely are told to the other processes once.
const BRIDGE_PAUSE: Duration = Duration::from_millis(5);
/// The bridge looks whether it should end at least this often.
const BRIDGE_POLL: Duration = Duration::from_secs(1);

/// What a subscriber hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Somebody published this.
    Message(Vec<u8>),
    /// Something may have been missed: look for yourself.
    Gap,
}

/// The subscribers of this process.
#[derive(Default)]
pub(super) struct Hub(Mutex<BTreeMap<String, broadcast::Sender<Notice>>>);

/// One subscriber's place.
pub struct Subscription(broadcast::Receiver<Notice>);

impl Hub {
    pub(super) fn subscribe(&self, channel: &str) -> Subscription {
        let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Channels come from code, but their subscribers come and go.
        channels.retain(|_, sender| sender.receiver_count() > 0);
        let sender = channels.entry(channel.to_owned()).or_insert_with(|| broadcast::Sender::new(WAITING_MAX));
        Subscription(sender.subscribe())
    }

    pub(super) fn deliver(&self, channel: &str, message: &[u8]) {
        let channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = channels.get(channel) {
            // Nobody listening is fine.
            let _ = sender.send(Notice::Message(message.to_vec()));
        }
    }

    /// Tells everybody that messages may have been missed.
    pub(super) fn gap(&self) {
        for sender in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let _ = sender.send(Notice::Gap);
        }
    }
}

impl Subscription {
    /// Waits for the next message, or for word that some may have been missed.
    pub async fn next(&mut self) -> Notice {
        match self.0.recv().await {
            Ok(notice) => notice,
            Err(RecvError::Lagged(_)) => Notice::Gap,
            // The cache is gone, and with it everybody who could publish.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Tells other processes of this one's commits, and this one's waiters of theirs.
pub(super) fn bridge(cache: Cache, db: &Db, channel: &'static str, tasks: &Tasks) {
    let (mut theirs, wake, token) = (cache.subscribe(channel), db.wake().clone(), tasks.token());
    tasks.spawn("store.wake.in", async move {
        while let Some(_notice) = token.run_until_cancelled(theirs.next()).await {
            wake.hint();
        }
    });
    let (mut ours, clock, token) = (db.wake().commits(), db.clock().clone(), tasks.token());
    tasks.spawn("store.wake.out", async move {
        while !token.is_cancelled() {
            if ours.wait(&clock, BRIDGE_POLL).await {
                cache.publish(channel, b"").await;
                clock.sleep(BRIDGE_PAUSE).await;
            }
        }
    });
}
