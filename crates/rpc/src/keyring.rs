//! The public keys of every role, kept at hand.
//!
//! Each role that signs or opens something registers its public keys with identity and keeps the list of all keys in memory, so that
//! verifying a token or sealing to a department costs no call. The list is polled every two seconds and kept on disk, so a role
//! starts and serves while identity is down. Start order is free: until identity answers, the ring tries again with a growing pause.

mod file;
mod keys;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use contracts::identity::v1::identity_service_client::IdentityServiceClient;
use contracts::identity::v1::{ListKeysRequest, RegisterKeyRequest};
use futures::FutureExt;
use futures::future::BoxFuture;
use runtime::clock::Elapsed;
use runtime::{Context, Timestamp, watch};
use tokio::sync::Notify;

pub use keys::{Key, Keys, OwnKey, PublicKey};

use crate::jose::{AgreementPublicKey, VerifyingKey};
use crate::{Mesh, RemoteFault, Wire, token};

type Client = IdentityServiceClient<Wire>;

/// How much of a pause is drawn at random, so that many replicas do not ask in step.
const JITTER_DIVISOR: u32 = 4;
/// The first pause after a failure; doubled each time.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The least time between two rounds, however many hints arrive: anybody can show a token with a key that nobody has.
const HINT_GAP: Duration = Duration::from_millis(500);
/// How long a verifier that met an unknown key waits for a newer list.
const RENEWED_WITHIN: Duration = Duration::from_secs(1);
/// What "never refreshed" looks like in the atomic.
const NEVER: i64 = i64::MIN;

/// How the ring keeps itself up to date.
#[derive(Clone, Debug)]
pub struct Options {
    /// The time between two polls, before jitter (up to a quarter more).
    pub poll: Duration,
    /// How long one call to identity may take.
    pub call_timeout: Duration,
    /// The longest pause after failures.
    pub backoff_max: Duration,
    /// Where the last list is kept across restarts; `None` keeps it in memory only.
    pub file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(2),
            call_timeout: Duration::from_secs(2),
            backoff_max: Duration::from_secs(5),
            file: None,
        }
    }
}

/// The keys in force, by owner.
///
/// Shape: a cheap handle; clones share one list. Reading takes no lock and makes no call.
#[derive(Clone)]
pub struct KeyRing(Arc<Shared>);

struct Shared {
    keys: ArcSwap<Keys>,
    /// µs since 1970 of the last answer of identity; [`NEVER`] before the first.
    refreshed: AtomicI64,
    hint: Notify,
    changes: watch::Sender<State>,
    own: Vec<OwnKey>,
    options: Options,
    context: Context,
}

/// What waiters wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    version: i64,
    registered: bool,
    /// Rounds that were begun, and the last one that identity answered. A round that began after a question answers it.
    begun: u64,
    answered: u64,
}

/// Why a round brought nothing. Logged, never handed out: the ring tries again by itself.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("identity refused or is away: {0}")]
    Call(RemoteFault),
    #[error("identity did not answer in time")]
    Late(#[from] Elapsed),
}

impl KeyRing {
    /// Starts a ring for the role that the mesh calls for; it works on the context's tasks until they are stopped.
    ///
    /// Shape: `own` are registered as soon as identity answers, and again whenever its list lacks one. What `options.file` holds is
    /// in force at once.
    pub fn start(mesh: &Mesh, context: &Context, own: Vec<OwnKey>, options: Options) -> Self {
        let (keys, refreshed) = match options.file.as_deref().and_then(file::load) {
            Some(saved) => (saved.keys, saved.saved_at.micros()),
            None => (Keys::default(), NEVER),
        };
        let ring = Self::new(keys, refreshed, own, options, context.clone());
        let (worker, client) = (ring.clone(), Client::new(mesh.wire("identity")));
        context.tasks.spawn("keyring", async move { worker.run(client).await });
        ring
    }

    /// A ring that never changes and asks nobody. For tests and tools that have the list.
    pub fn fixed(keys: Keys, context: Context) -> Self {
        let now = context.clock.now().micros();
        Self::new(keys, now, Vec::new(), Options::default(), context)
    }

    fn new(keys: Keys, refreshed: i64, own: Vec<OwnKey>, options: Options, context: Context) -> Self {
        let state = State { version: keys.version(), registered: keys.missing(&own).is_empty(), ..State::default() };
        Self(Arc::new(Shared {
            keys: ArcSwap::from_pointee(keys),
            refreshed: AtomicI64::new(refreshed),
            hint: Notify::new(),
            changes: watch::Sender::new(state),
            own,
            options,
            context,
        }))
    }

    /// Returns the list as it is now. Hold it for one request, not longer.
    pub fn keys(&self) -> Guard<Arc<Keys>> {
        self.0.keys.load()
    }

    /// Finds the key that verifies a signature of `owner`.
    pub fn verify_key(&self, owner: &str, kid: &str) -> Option<VerifyingKey> {
        self.keys().verify_key(owner, kid)
    }

    /// Finds the newest key that seals to `owner`.
    pub fn seal_key(&self, owner: &str) -> Option<AgreementPublicKey> {
        self.keys().seal_key(owner)
    }

    /// Returns how long ago identity last answered; `None` before its first answer. A list from disk has the age of its file.
    pub fn age(&self) -> Option<Duration> {
        match self.0.refreshed.load(Ordering::Acquire) {
            NEVER => None,
            micros => Some(self.0.context.clock.now().since(Timestamp::from_micros(micros))),
        }
    }

    /// Tells whether identity lists all of the caller's own keys.
    pub fn is_registered(&self) -> bool {
        self.0.changes.borrow().registered
    }

    /// Asks for a poll soon, because a key was met that the list lacks. Cheap; hints within half a second of a poll share one.
    pub fn hint(&self) {
        self.0.hint.notify_one();
    }

    /// Waits until identity lists all of the caller's own keys (or, without any, until there is a list).
    ///
    /// Errors: Elapsed after `within`.
    pub async fn registered(&self, within: Duration) -> Result<(), Elapsed> {
        self.wait(within, |state| state.registered && state.version > 0).await
    }

    /// Waits for a list newer than `version`.
    ///
    /// Errors: Elapsed after `within`.
    pub async fn newer_than(&self, version: i64, within: Duration) -> Result<(), Elapsed> {
        self.wait(within, |state| state.version > version).await
    }

    /// Waits for a list that was asked for after this call: what is in force then holds every key registered before it. Rounds are
    /// shared and at least half a second apart, so many callers cost identity no more than one.
    ///
    /// Errors: Elapsed after `within`; what is in force stays so.
    pub async fn read_anew(&self, within: Duration) -> Result<(), Elapsed> {
        let begun = self.0.changes.borrow().begun;
        self.hint();
        self.wait(within, |state| state.answered > begun).await
    }

    async fn wait(&self, within: Duration, until: impl Fn(&State) -> bool) -> Result<(), Elapsed> {
        let mut changes = self.0.changes.subscribe();
        let waited = self.0.context.clock.timeout(within, changes.wait_for(|state| until(state))).await?;
        waited.map_err(|_| Elapsed)
    }

    async fn run(self, mut client: Client) {
        let shared = &self.0;
        let (stop, clock) = (shared.context.tasks.token(), shared.context.clock.clone());
        let mut failures = 0_u32;
        loop {
            // Hints given up to here are answered by the round that follows.
            let _ = shared.hint.notified().now_or_never();
            shared.changes.send_modify(|state| state.begun += 1);
            let began = tokio::time::Instant::now();
            let round = self.round(&mut client).await;
            failures = match &round {
                Ok(()) => {
                    shared.changes.send_modify(|state| state.answered = state.begun);
                    0
                }
                Err(error) => {
                    tracing::warn!(%error, failures, "the key list was not refreshed");
                    failures.saturating_add(1)
                }
            };
            let pause = self.pause(failures);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = clock.sleep(pause) => continue,
                // While identity fails, a hint must not undo the growing pause.
                () = shared.hint.notified(), if failures == 0 => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = clock.sleep(HINT_GAP.saturating_sub(began.elapsed())) => {}
            }
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        let options = &self.0.options;
        let base = match failures.checked_sub(1) {
            None => options.poll,
            Some(doublings) => options.backoff_max.min(BACKOFF_FIRST.saturating_mul(1 << doublings.min(16))),
        };
        let spread = u64::try_from((base / JITTER_DIVISOR).as_micros()).unwrap_or(0);
        base + Duration::from_micros(self.0.context.ids.below(spread))
    }

    /// Reads the list; where it lacks an own key, registers it and reads again.
    async fn round(&self, client: &mut Client) -> Result<(), RoundError> {
        self.list(client).await?;
        let missing = self.keys().missing(&self.0.own);
        if missing.is_empty() {
            return Ok(());
        }
        for key in missing {
            let request = RegisterKeyRequest {
                owner: key.owner.clone(),
                r#use: key.key.key_use().into(),
                jwk_json: key.key.to_json(),
            };
            let call = client.register_key(request);
            self.0
                .context
                .clock
                .timeout(self.0.options.call_timeout, call)
                .await?
                .map_err(|status| RoundError::Call(status.into()))?;
        }
        self.list(client).await
    }

    async fn list(&self, client: &mut Client) -> Result<(), RoundError> {
        let known_version = self.keys().version();
        let call = client.list_keys(ListKeysRequest { known_version });
        let answer = self.0.context.clock.timeout(self.0.options.call_timeout, call).await?;
        let answer = answer.map_err(|status| RoundError::Call(status.into()))?.into_inner();
        let now = self.0.context.clock.now();
        if answer.version != known_version {
            self.publish(Keys::read(&answer), now);
        }
        self.0.refreshed.store(now.micros(), Ordering::Release);
        Ok(())
    }

    fn publish(&self, keys: Keys, now: Timestamp) {
        if let Some(path) = &self.0.options.file
            && let Err(error) = file::save(path, &keys, now)
        {
            tracing::warn!(%error, path = %path.display(), "the key list could not be kept on disk");
        }
        let (version, registered) = (keys.version(), keys.missing(&self.0.own).is_empty());
        self.0.keys.store(Arc::new(keys));
        self.0.changes.send_modify(|state| {
            state.version = version;
            state.registered = registered;
        });
    }
}

/// A ring is what verifiers of tokens look keys up in: always the newest list, and a hint when a key is not in it.
impl token::Keys for KeyRing {
    fn find(&self, kid: &str) -> Option<token::Key> {
        let found = self.keys().find(kid);
        if found.is_none() {
            self.hint();
        }
        found
    }

    fn renewed(&self) -> BoxFuture<'_, ()> {
        let version = self.keys().version();
        self.hint();
        // With or without a newer list: whoever waits looks again.
        Box::pin(async move {
            let _ = self.newer_than(version, RENEWED_WITHIN).await;
        })
    }
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRing").field("version", &self.keys().version()).field("age", &self.age()).finish()
    }
}

#[cfg(test)]
mod tests;
