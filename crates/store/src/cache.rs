//! What is shared while it lasts: used nonces, quotas, answers worth keeping, and word of what has changed.
//!
//! Behind one seam lie this process's memory and, where it is configured, Redis. Nothing here may ever be the only place of
//! something that matters: no lock, no money, no security decision. Redis loses acknowledged writes when it fails over, and may be
//! empty, slow or gone at any moment.
//!
//! **Every call answers, and soon.** A call waits for Redis at most [`Config::deadline`], 50 ms. The first one that waits in vain
//! switches the cache to this process's memory; from then on calls do not wait at all, and one background task tries to come back.
//! [`Cache::degraded`], the gauge `lastmile_store_cache_degraded_count` and [`Count::shared`] say that it is so.
//!
//! **Memory always takes part.** Every write goes to memory as well. So a process that loses Redis still refuses the nonces that it
//! saw itself, and goes on counting a quota from its own share.

mod hub;
mod memory;
mod remote;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration as Span;

use aws_lc_rs::digest::{SHA256, digest};
use runtime::config::{ByteSize, Duration, Problem};
use runtime::telemetry::{Counter, Family, Labels};
use runtime::{Context, Tasks};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use hub::{Notice, Subscription};

use crate::Error;
use crate::config::masked;
use hub::Hub;
use memory::Memory;
use remote::Remote;

/// Longer keys are replaced by their digest.
const KEY_BYTES_MAX: usize = 256;
/// Larger values are not kept, larger messages not sent.
pub const VALUE_BYTES_MAX: usize = 256 * 1024;

/// Where the shared cache is, and how much this process keeps by itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `redis://HOST:PORT/` or `rediss://…`; empty for this process's memory alone.
    #[serde(serialize_with = "masked")]
    pub url: String,
    /// A file that holds the Redis password and nothing else.
    pub password_file: Option<PathBuf>,
    /// What every key begins with: equal for all that share, different for what must not meet.
    pub prefix: String,
    /// How long a call may wait for Redis.
    pub deadline: Duration,
    /// How many entries memory keeps.
    pub entries_max: u32,
    /// How much the entries in memory may weigh, keys and values.
    pub memory_max: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: String::new(),
            password_file: None,
            prefix: "lastmile".to_owned(),
            deadline: Duration::from_millis(50),
            entries_max: 100_000,
            memory_max: ByteSize::from_mib(32),
        }
    }
}

impl Config {
    /// Notes everything that is wrong, each under its dotted path below `path`.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        let mut note = |key: &str, message: &str| problems.push(Problem::new(format!("{path}.{key}"), message));
        if !self.url.is_empty() && !["redis://", "rediss://"].iter().any(|scheme| self.url.starts_with(scheme)) {
            note("url", "must be empty or start with redis:// or rediss://");
        }
        if self.prefix.is_empty() || self.prefix.len() > 64 || self.prefix.contains(['{', '}', '*']) {
            note("prefix", "must be 1 to 64 bytes without {, } and *");
        }
        if !(Span::from_millis(1)..=Span::from_millis(50)).contains(&self.deadline.get()) {
            note("deadline", "must be from 1ms to 50ms");
        }
        if self.entries_max == 0 {
            note("entries_max", "must be at least 1");
        }
        if self.memory_max.bytes() < VALUE_BYTES_MAX {
            note("memory_max", "must be at least 256KiB");
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("url", &crate::config::mask(&self.url)).finish_non_exhaustive()
    }
}

/// A cache in memory and, where configured, Redis. Calls do not fail.
///
/// Shape: a cheap handle.
#[derive(Clone)]
pub struct Cache(Arc<Shared>);

struct Shared {
    memory: Memory,
    hub: Arc<Hub>,
    remote: Option<Arc<Remote>>,
    tasks: Tasks,
    calls: AtomicU64,
    asked: Family<Labels, Counter>,
}

/// A quota's state after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// What was counted in the window up to and including this call.
    pub value: u64,
    /// Whether that is everybody's count, or only this process's share of it.
    pub shared: bool,
}

impl Cache {
    /// Keeps everything in this process's memory. Starts no task, so a simulated host may have one.
    pub fn memory(config: &Config, context: &Context) -> Self {
        Self::build(config, context, None)
    }

    /// Opens the configured cache. It starts without Redis as well, and finds it later.
    ///
    /// Errors: [`Error::Open`] when the address or the password file is wrong.
    pub async fn open(config: &Config, context: &Context) -> Result<Self, Error> {
        if config.url.is_empty() {
            return Ok(Self::memory(config, context));
        }
        let hub = Arc::new(Hub::default());
        let remote = Remote::start(config, context, Arc::clone(&hub)).await?;
        Ok(Self::build(config, context, Some((remote, hub))))
    }

    fn build(config: &Config, context: &Context, remote: Option<(Arc<Remote>, Arc<Hub>)>) -> Self {
        let (remote, hub) = match remote {
            Some((remote, hub)) => (Some(remote), hub),
            None => (None, Arc::default()),
        };
        let entries_max = usize::try_from(config.entries_max).unwrap_or(usize::MAX);
        let memory = Memory::new(entries_max, config.memory_max.bytes(), context.clock.clone());
        let asked = context.metrics.counter("lastmile_store_cache_calls", "Calls by operation and by who answered");
        Self(Arc::new(Shared { memory, hub, remote, tasks: context.tasks.clone(), calls: AtomicU64::new(0), asked }))
    }

    /// Returns what was put under `key`, if it is still there.
    pub async fn get(&self, key: &str) -> Option<Vec<u8>> {
        let key = fit(key);
        match self.ask("get", self.remote().map(|remote| remote.get(&key))).await {
            Some(answer) => answer,
            None => self.0.memory.get(&key),
        }
    }

    /// Keeps `value` under `key` for `ttl`. A value over [`VALUE_BYTES_MAX`] is not kept, and what was there is forgotten.
    pub async fn put(&self, key: &str, value: &[u8], ttl: Span) {
        if value.len() > VALUE_BYTES_MAX {
            return self.remove(key).await;
        }
        let key = fit(key);
        self.0.memory.put(&key, value, ttl);
        self.ask("put", self.remote().map(|remote| remote.put(&key, value, ttl))).await;
    }

    /// Keeps `value` under `key` for `ttl` unless there is something already; tells whether it was kept.
    ///
    /// For used nonces, as a first, cheap refusal: "kept" is no proof that the nonce was never used. A value over [`VALUE_BYTES_MAX`] is
    /// kept empty.
    pub async fn put_if_absent(&self, key: &str, value: &[u8], ttl: Span) -> bool {
        let (key, value) = (fit(key), if value.len() > VALUE_BYTES_MAX { &[] } else { value });
        // What this process saw is there, whatever Redis has lost since.
        if !self.0.memory.put_if_absent(&key, value, ttl) {
            self.count("put_if_absent", "local");
            return false;
        }
        let asked = self.remote().map(|remote| remote.put_if_absent(&key, value, ttl));
        let kept = self.ask("put_if_absent", asked).await.unwrap_or(true);
        if !kept {
            // Another process has it, for a time of its own, which memory must not outlast.
            self.0.memory.remove(&key);
        }
        kept
    }

    /// Forgets `key`.
    pub async fn remove(&self, key: &str) {
        let key = fit(key);
        self.0.memory.remove(&key);
        self.ask("remove", self.remote().map(|remote| remote.remove(&key))).await;
    }

    /// Adds `by` to the count under `key`, which begins at nothing with the first call after a `window` has passed.
    pub async fn incr(&self, key: &str, by: u32, window: Span) -> Count {
        let key = fit(key);
        let local = self.0.memory.incr(&key, u64::from(by), window);
        match self.ask("incr", self.remote().map(|remote| remote.incr(&key, by, window))).await {
            Some(value) => Count { value, shared: true },
            None => Count { value: local, shared: self.0.remote.is_none() },
        }
    }

    /// Tells the subscribers of `channel`, here and in every process that shares the cache. A hint: it may be lost.
    pub async fn publish(&self, channel: &str, message: &[u8]) {
        if message.len() > VALUE_BYTES_MAX {
            return tracing::warn!(channel, bytes = message.len(), "message too large to publish");
        }
        self.0.hub.deliver(channel, message);
        self.ask("publish", self.remote().map(|remote| remote.publish(channel, message))).await;
    }

    /// Listens to `channel` from now on.
    pub fn subscribe(&self, channel: &str) -> Subscription {
        self.0.hub.subscribe(channel)
    }

    /// Tells whether Redis is configured and away.
    pub fn degraded(&self) -> bool {
        self.0.remote.as_ref().is_some_and(|remote| !remote.is_up())
    }

    /// Returns how many calls were made, so that a test can prove that a path makes none.
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }

    /// Carries the outbox hints of `db` to and from the other processes on `channel`.
    pub fn bridge(&self, db: &crate::Db, channel: &'static str) {
        hub::bridge(self.clone(), db, channel, &self.0.tasks);
    }

    fn remote(&self) -> Option<&Remote> {
        self.0.remote.as_deref()
    }

    /// Asks Redis; None when it is not configured, away, or does not answer in time.
    async fn ask<T>(&self, operation: &'static str, call: Option<impl Future<Output = Option<T>>>) -> Option<T> {
        let answer = match call {
            Some(call) => call.await,
            None => None,
        };
        self.count(operation, if answer.is_some() { "shared" } else { "local" });
        answer
    }

    fn count(&self, operation: &'static str, by: &'static str) {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        let labels = vec![("operation", Cow::Borrowed(operation)), ("answered", Cow::Borrowed(by))];
        self.0.asked.get_or_create(&labels).inc();
    }
}

/// Brings a key of any length to one that every store takes.
fn fit(key: &str) -> Cow<'_, str> {
    if key.len() <= KEY_BYTES_MAX {
        return Cow::Borrowed(key);
    }
    Cow::Owned(format!("sha256:{}", hex::encode(digest(&SHA256, key.as_bytes()))))
}
