//! The link to Redis: up, or down and being tried.

use std::fs;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisError, Script, cmd};
use runtime::Context;
use runtime::telemetry::Gauge;
use tokio::sync::Notify;

use super::Config;
use super::hub::Hub;
use crate::Error;
use crate::error::Cause;

/// How long one attempt to connect, log in and write may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The pause between attempts, with as much again at random: two to four a second, from each process.
const CONNECT_PAUSE: Duration = Duration::from_millis(250);
/// How long opening waits for the first connection, so that a process which finds Redis does not begin without it.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// A link that carries nothing is asked for a sign of life this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
const NODE_DIGITS: usize = 16;

/// Counts within a window that begins with its first call. One script, so that no count is left without an end.
const INCR: &str = "local n = redis.call('INCRBY', KEYS[1], ARGV[1])
if n == tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return n";

pub(super) struct Remote {
    client: Client,
    prefix: String,
    /// What messages of this process begin with, so that it does not hear itself twice.
    node: String,
    deadline: Duration,
    context: Context,
    link: Mutex<Link>,
    /// Rung when the link is lost.
    lost: Notify,
    incr: Script,
    degraded: Gauge,
}

#[derive(Default)]
struct Link {
    conn: Option<MultiplexedConnection>,
    /// Grows with each connection, so that a late failure of an old one does not bring down its successor.
    generation: u64,
}

impl Remote {
    pub(super) async fn start(config: &Config, context: &Context, hub: Arc<Hub>) -> Result<Arc<Self>, Error> {
        let remote = Arc::new(Self::new(config, context)?);
        let connected = Arc::new(Notify::new());
        let (keeper, first) = (Arc::clone(&remote), Arc::clone(&connected));
        context.tasks.spawn("store.cache.link", async move { keeper.keep(&first).await });
        let listener = Arc::clone(&remote);
        context.tasks.spawn("store.cache.listen", async move { listener.listen(&hub).await });
        if context.clock.timeout(FIRST_WAIT, connected.notified()).await.is_err() {
            tracing::warn!("Redis does not answer; starting on local memory");
        }
        Ok(remote)
    }

    fn new(config: &Config, context: &Context) -> Result<Self, Error> {
        let bad = |error: RedisError| Error::open("the address of the cache", Cause::new(error.category()));
        let mut info = config.url.as_str().into_connection_info().map_err(bad)?;
        if let Some(path) = &config.password_file {
            let password = fs::read_to_string(path).map_err(|error| {
                Error::open(format!("{} cannot be read", path.display()), Cause::new(error.to_string()))
            })?;
            let settings = info.redis_settings().clone().set_password(password.trim_end_matches(['\r', '\n']));
            info = info.set_redis_settings(settings);
        }
        let degraded = context.metrics.gauge("lastmile_store_cache_degraded_count", "Shared caches that are away");
        let degraded = degraded.get_or_create(&Vec::new()).clone();
        degraded.inc();
        Ok(Self {
            client: Client::open(info).map_err(bad)?,
            prefix: config.prefix.clone(),
            node: context.ids.hex(NODE_DIGITS),
            deadline: config.deadline.get(),
            context: context.clone(),
            link: Mutex::default(),
            lost: Notify::new(),
            incr: Script::new(INCR),
            degraded,
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.locked(|link| link.conn.is_some())
    }

    pub(super) async fn get(&self, key: &str) -> Option<Option<Vec<u8>>> {
        let key = self.key(key);
        self.call(async |mut conn| cmd("GET").arg(key).query_async(&mut conn).await).await
    }

    pub(super) async fn put(&self, key: &str, value: &[u8], ttl: Duration) -> Option<()> {
        let key = self.key(key);
        self.call(async |mut conn| {
            cmd("SET").arg(key).arg(value).arg("PX").arg(millis(ttl)).query_async(&mut conn).await
        })
        .await
    }

    pub(super) async fn put_if_absent(&self, key: &str, value: &[u8], ttl: Duration) -> Option<bool> {
        let key = self.key(key);
        let kept: Option<Option<String>> = self
            .call(async |mut conn| {
                cmd("SET").arg(key).arg(value).arg("NX").arg("PX").arg(millis(ttl)).query_async(&mut conn).await
            })
            .await;
        kept.map(|kept| kept.is_some())
    }

    pub(super) async fn remove(&self, key: &str) -> Option<()> {
        let key = self.key(key);
        self.call(async |mut conn| cmd("DEL").arg(key).query_async::<u64>(&mut conn).await.map(|_| ())).await
    }

    pub(super) async fn incr(&self, key: &str, by: u32, window: Duration) -> Option<u64> {
        let mut call = self.incr.prepare_invoke();
        call.key(self.key(key)).arg(by).arg(millis(window));
        self.call(async |mut conn| call.invoke_async(&mut conn).await).await
    }

    pub(super) async fn publish(&self, channel: &str, message: &[u8]) -> Option<()> {
        let (channel, message) = (self.channel(channel), [self.node.as_bytes(), message].concat());
        self.call(async |mut conn| {
            cmd("PUBLISH").arg(channel).arg(message).query_async::<u64>(&mut conn).await.map(|_| ())
        })
        .await
    }

    /// Makes one call under the deadline. Any failure takes the link down: the next call does not find out again.
    async fn call<T, Fut>(&self, call: impl FnOnce(MultiplexedConnection) -> Fut) -> Option<T>
    where
        Fut: Future<Output = Result<T, RedisError>>,
    {
        let (conn, generation) = self.locked(|link| Some((link.conn.clone()?, link.generation)))?;
        match self.context.clock.timeout(self.deadline, call(conn)).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => self.lose(generation, error.category()),
            Err(_) => self.lose(generation, "no answer in time"),
        }
        None
    }

    fn lose(&self, generation: u64, why: &str) {
        let was_up = self.locked(|link| link.generation == generation && link.conn.take().is_some());
        if was_up {
            self.degraded.inc();
            self.lost.notify_one();
            tracing::warn!(why, "lost Redis; going on with local memory");
        }
    }

    /// Keeps the link: connects, looks after it, connects again.
    async fn keep(&self, first: &Notify) {
        let token = self.context.tasks.token();
        let work = async {
            loop {
                while let Err(why) = self.connect().await {
                    tracing::debug!(why, "Redis cannot be reached");
                    self.pause().await;
                }
                first.notify_one();
                tracing::info!("Redis is there");
                self.watch().await;
                self.pause().await;
            }
        };
        token.run_until_cancelled(work).await;
    }

    async fn connect(&self) -> Result<(), String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT));
        let probe = self.key("probe");
        let connecting = async {
            let mut conn = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            // A write, because a replica, a full server and one that is still loading answer a mere PING.
            cmd("SET").arg(probe).arg(1).arg("PX").arg(1).query_async::<()>(&mut conn).await?;
            Ok::<_, RedisError>(conn)
        };
        let conn = self.context.clock.timeout(CONNECT_TIMEOUT, connecting).await;
        let conn = conn.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.category().to_owned())?;
        self.locked(|link| {
            link.conn = Some(conn);
            link.generation = link.generation.wrapping_add(1);
        });
        self.degraded.dec();
        Ok(())
    }

    /// Returns when the link is lost; finds out by itself when nobody calls.
    async fn watch(&self) {
        while self.is_up() {
            if self.context.clock.timeout(SIGN_OF_LIFE, self.lost.notified()).await.is_err() {
                self.call(async |mut conn| cmd("PING").query_async::<String>(&mut conn).await).await;
            }
        }
    }

    /// Hears what other processes publish, on a connection of its own: waiting for messages must not stand in the way of calls.
    async fn listen(&self, hub: &Hub) {
        let token = self.context.tasks.token();
        let work = async {
            loop {
                let subscribed = self.context.clock.timeout(CONNECT_TIMEOUT, self.subscribe()).await;
                if let Ok(Ok(pubsub)) = subscribed {
                    // What was published before this moment, nobody here heard.
                    hub.gap();
                    self.hear(pubsub, hub).await;
                    hub.gap();
                }
                self.pause().await;
            }
        };
        token.run_until_cancelled(work).await;
    }

    async fn subscribe(&self) -> Result<PubSub, RedisError> {
        let mut pubsub = self.client.get_async_pubsub().await?;
        pubsub.psubscribe(self.channel("*")).await?;
        Ok(pubsub)
    }

    async fn hear(&self, pubsub: PubSub, hub: &Hub) {
        let prefix = self.channel("");
        let (mut sink, mut messages) = pubsub.split();
        loop {
            match self.context.clock.timeout(SIGN_OF_LIFE, messages.next()).await {
                Ok(None) => return,
                Ok(Some(message)) => {
                    let (Some(channel), Some((node, payload))) = (
                        message.get_channel_name().strip_prefix(&prefix),
                        message.get_payload_bytes().split_at_checked(NODE_DIGITS),
                    ) else {
                        continue;
                    };
                    if node != self.node.as_bytes() {
                        hub.deliver(channel, payload);
                    }
                }
                Err(_) => {
                    let alive = self.context.clock.timeout(CONNECT_TIMEOUT, sink.ping::<redis::Value>()).await;
                    if !matches!(alive, Ok(Ok(_))) {
                        return;
                    }
                }
            }
        }
    }

    async fn pause(&self) {
        let jitter = self.context.ids.below(u64::try_from(CONNECT_PAUSE.as_micros()).unwrap_or(0));
        self.context.clock.sleep(CONNECT_PAUSE + Duration::from_micros(jitter)).await;
    }

    fn key(&self, key: &str) -> String {
        format!("{}:k:{key}", self.prefix)
    }

    fn channel(&self, channel: &str) -> String {
        format!("{}:c:{channel}", self.prefix)
    }

    fn locked<T>(&self, act: impl FnOnce(&mut Link) -> T) -> T {
        act(&mut self.link.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Redis takes whole milliseconds, at least one.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 2).max(1)
}
