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

use rpc::jose::SigningKey;
use rpc::keyring::KeyRing;

pub use config::Config;
pub use error::{REASONS, Refusal};
pub use proxy::Proxy;

use shared::Shared;

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
}

/// A gateway whose snapshots are being followed.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

/// Starts to follow the catalogue.
///
/// Errors: a contract that cannot be served.
pub fn start(config: Config, deps: Deps) -> Result<Gateway, &'static rpc::ContractError> {
    let plans = policy::Plans::new(rpc::Contract::lastmile()?);
    let shared = Arc::new(Shared::new(config, deps.context.clone(), deps.keys, deps.signer, plans));
    deps.context.tasks.spawn("gateway.routes", feed::follow(Arc::clone(&shared), deps.mesh.wire("catalog")));
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
