//! Who is calling, who the citizen is, and what a department may know of them.
//!
//! An entry point proves itself with a signed assertion and says who its user is with another, sealed to identity. What comes back is
//! a short-lived token under which the citizen is a different stranger to every entry point and every department: each profile
//! addressed finds in it, sealed for itself alone, the attributes that its items need. A case, which outlives the token, gets a grant.
//!
//! Identity stores no name, no document number and no account id: people and accounts are HMACs under a pepper that is in no database,
//! and what it must remember of a citizen travels in the token, sealed to identity itself. That every assertion counts once is a unique
//! row in SQL; a cache that remembers it spares SQL a flood of one assertion, and may forget. It also keeps the public keys of all roles.
//! It calls nobody.

pub mod config;
pub mod domain;
pub mod error;
pub mod keys;
pub mod registry;

mod convert;
mod grants;
mod issue;
mod keylist;
mod mint;
mod repo;
mod service;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use contracts::identity::v1::identity_service_server::IdentityServiceServer;
use rpc::{Mesh, Mounted, Readiness};
use runtime::Context;
use store::{Cache, Db};
use tonic::service::Routes;

pub use config::Config;
pub use error::{Error, REASONS};
pub use repo::MIGRATIONS;
pub use service::Service;

use grants::Grants;
use issue::Desk;
use keylist::KeyList;
use keys::{KeysError, OwnKeys};
use mint::Mint;
use registry::{Registry, RegistryError};
use service::Counts;

/// With the store silent for longer, identity is not ready: it could not tell a replay.
const STORE_SILENCE_MAX: Duration = Duration::from_secs(30);

/// What identity needs of the world outside.
#[derive(Clone)]
pub struct Deps {
    /// Time, ids, sockets, tasks.
    pub context: Context,
    /// Its own database.
    pub db: Db,
    /// What remembers used assertions for a first refusal; SQL decides.
    pub cache: Cache,
    /// The way to peers; identity calls none.
    pub mesh: Mesh,
}

/// Why identity cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Its private keys.
    #[error("identity's own keys cannot be used")]
    Keys(#[from] KeysError),
    /// The clients' keys.
    #[error("the registry of clients cannot be built")]
    Registry(#[from] RegistryError),
    /// The store.
    #[error("identity's store cannot be used")]
    Store(#[from] store::Error),
    /// The store's people were counted under a pepper that is not the one at hand.
    #[error(
        "the people in identity's store were counted under another pepper than {}: restore that one from the backup of identity.keys_dir",
        path.display()
    )]
    OtherPepper {
        /// The directory of the keys.
        path: PathBuf,
    },
    /// A key of its own belongs to another role in the store.
    #[error("identity's own keys cannot be registered")]
    Register(#[source] Error),
}

/// Reads or makes the keys. A pepper is made only for a store that has seen none, and only the one it has seen is taken: with another,
/// everybody would be a stranger, and nobody would notice.
async fn own_keys(dir: &Path, context: &Context, db: &Db) -> Result<OwnKeys, BuildError> {
    let other = || BuildError::OtherPepper { path: dir.to_owned() };
    if !keys::has_pepper(dir) && repo::pepper(&mut db.read().await?).await?.is_some() {
        return Err(other());
    }
    let keys = OwnKeys::load_or_create(dir, &context.ids)?;
    let fingerprint = *keys.pepper().fingerprint();
    let work = |mut tx: store::Tx| async move { repo::keep_pepper(&mut tx, &fingerprint).await };
    let kept = db.transact(work).await?;
    if kept.as_deref() != Some(fingerprint.as_slice()) {
        return Err(other());
    }
    Ok(keys)
}

/// Whether the pepper of a key directory is the one that the people of a store were counted under. For a look from outside: it changes
/// nothing.
///
/// Errors: when the store has no tables of identity yet.
pub async fn pepper_fits(db: &Db, keys_dir: &Path) -> Result<bool, BuildError> {
    let kept = repo::pepper(&mut db.read().await?).await?;
    let at_hand = keys::fingerprint(keys_dir)?;
    Ok(kept.is_none() || at_hand.map(Vec::from) == kept)
}

/// Migrates the store, reads or makes the keys, registers them, and starts the background work.
pub async fn mount(config: Config, deps: Deps) -> Result<Mounted, BuildError> {
    let Deps { context, db, cache, mesh: _ } = deps;
    let config = Arc::new(config);
    db.migrate(MIGRATIONS).await?;
    let keys = Arc::new(own_keys(&config.keys_dir, &context, &db).await?);
    let registry = Registry::build(&config, &context.ids)?;
    let keylist = KeyList::load(db.clone(), context.clock.clone()).await?;
    for own in keys.public() {
        keylist.keep(&own.owner, own.key).await.map_err(BuildError::Register)?;
    }
    worker::start(&config, &context, &db, &keylist);
    let mint = Arc::new(Mint { keys, config: config.clone(), context: context.clone() });
    let desk = Desk::new(&config, registry, mint.clone(), keylist.clone(), (db.clone(), cache), &context);
    let grants = Grants::new(mint, keylist.clone(), db);
    let service = Service {
        desk: Arc::new(desk),
        grants: Arc::new(grants),
        keylist: keylist.clone(),
        clock: context.clock.clone(),
        counts: Counts::new(&context.metrics),
    };
    let readiness = Readiness::new(move || match keylist.age() {
        age if age > STORE_SILENCE_MAX => Err(format!("the store has not answered for {} s", age.as_secs())),
        _ => Ok(()),
    });
    Ok(Mounted { routes: Routes::new(IdentityServiceServer::new(service)), http: None, readiness })
}
