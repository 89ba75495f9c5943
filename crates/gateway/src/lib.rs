//! The gateway: the public door.
//!
//! Reads pass through, writes are cases. It owns no data: routes come from the catalogue's stream, keys from the key ring, and both stay
//! in force while their source is away. On the query path it calls nobody but the adapter: no SQL, no Redis, no other service. It
//! has no department knowledge; what it knows of a request is its path, its token, and item and region of its envelope.
//!
//! Each core of the data path has a [`Proxy`] of its own over its own wires, behind one listening address; cores share nothing but
//! snapshots and counters. [`policy::decide`] is what it decides, as a function.

mod cache;
mod config;
mod error;
mod feed;
mod known;
mod observe;
mod plain;
mod proxy;
mod quota;
mod shared;

pub mod peek;
pub mod policy;

use std::sync::Arc;
use std::time::Duration;

use rpc::jose::SigningKey;
use rpc::keyring::KeyRing;

pub use config::Config;
pub use error::{REASONS, Refusal};
pub use proxy::Proxy;

use shared::Shared;

/// How often quotas are settled with the other replicas.
const SETTLE_EVERY: Duration = Duration::from_secs(1);
/// How long a shared count is kept: its window and the next.
const QUOTA_TTL: Duration = Duration::from_secs(120);

/// The gateway's whole outside world.
pub struct Deps {
    /// Time, ids and tasks of the service runtime.
    pub context: runtime::Context,
    /// The mesh in the gateway's name, for the background work.
    pub mesh: rpc::Mesh,
    /// Public keys of all roles; the gateway's own key must be among those it registers.
    pub keys: KeyRing,
    /// The key with which assertions are signed.
    pub signer: SigningKey,
    /// Where replicas share their quotas.
    pub cache: store::cache::Cache,
}

/// A gateway whose snapshots are being followed.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

/// Starts to follow the catalogue and to settle quotas.
///
/// Errors: a contract that cannot be served.
pub fn start(config: Config, deps: Deps) -> Result<Gateway, &'static rpc::ContractError> {
    let plans = policy::Plans::new(rpc::Contract::lastmile()?);
    let shared = Arc::new(Shared::new(config, deps.context.clone(), deps.keys, deps.signer, plans));
    deps.context.tasks.spawn("gateway.routes", feed::follow(Arc::clone(&shared), deps.mesh.wire("catalog")));
    deps.context.tasks.spawn("gateway.quotas", settle(Arc::clone(&shared), deps.cache));
    Ok(Gateway { shared })
}

impl Gateway {
    /// The service of one core, over that core's own wires. Give it to [`rpc::serve()`].
    pub fn proxy(&self, mesh: rpc::Mesh) -> Proxy {
        Proxy::new(Arc::clone(&self.shared), mesh)
    }

    /// Whether calls can be served.
    pub fn readiness(&self) -> rpc::Readiness {
        let shared = Arc::clone(&self.shared);
        rpc::Readiness::new(move || shared.ready())
    }
}

/// Adds what was admitted here to the counts of all replicas, once a second.
async fn settle(shared: Arc<Shared>, cache: store::cache::Cache) {
    let stop = shared.context.tasks.token();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = shared.context.clock.sleep(SETTLE_EVERY) => {}
        }
        for unsettled in shared.quotas.unsettled() {
            let key = format!("quota/{}/{}/{}", unsettled.key.0, unsettled.key.1, unsettled.window);
            let count = u32::try_from(unsettled.count).unwrap_or(u32::MAX);
            let used = cache.incr(&key, count, QUOTA_TTL).await;
            shared.quotas.settle(&unsettled, used.value);
        }
    }
}
