//! Cases: everything that changes the world.
//!
//! A case is a durable state machine: rows and an append-only history, one SQL transaction a step, the next action and its time in
//! columns, leased and fenced. So a case survives a kill at any moment, and it always ends: with the department's proof, with the
//! money back, or with nothing paid. The rules are pure ([`domain`]); `repo` stores them, `worker` carries them out through
//! `peers`, `service` opens, shows, cancels and decides.
//!
//! **An accepted case needs nobody any more.** OpenCase fetches the case grant before it stores anything: from then on the case acts
//! under the grant, which identity sealed to the profile for this case, item and operations, and not under the citizen's token.
//! A crash before the commit leaves a grant for a case that does not exist, and it opens nothing.
//!
//! **What never happens twice.** Each call carries a key made of the case and its step, so that repeating it is harmless; for a
//! department that cannot recognise a repetition, the settlement is noted before it leaves, and only an inquiry follows it.
//!
//! Cases never stores a raw identifier: the owner is a pseudonym, the citizen's input is sealed and erased when the case has ended,
//! the payer's name at the channel is erased once the order exists.

pub mod audit;
pub mod config;
pub mod domain;

mod caller;
mod convert;
mod engine;
mod error;
mod hints;
mod metrics;
mod peers;
mod repo;
mod seal;
mod service;
mod watch;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contracts::cases::v1::case_service_server::CaseServiceServer;
use rpc::jose::{AgreementKey, Curve, KeyError, SigningKey};
use rpc::keyring::{KeyRing, OwnKey};
use rpc::token::CASES;
use rpc::{Mesh, Mounted, Readiness, Role, keyring};
use runtime::{Context, Timestamp};
use store::{Cache, Db};

pub use config::Config;
pub use domain::Census;
pub use error::{Error, REASONS};
pub use seal::SealError;

/// The outside world of cases.
pub struct Deps {
    /// Time, ids, tasks, metrics, crash points.
    pub context: Context,
    /// The database of this service.
    pub db: Db,
    /// Carries hints between replicas.
    pub cache: Cache,
    /// Ways to payments, identity, the catalogue and the departments.
    pub mesh: Mesh,
    /// Where the list of public keys is kept across restarts; None keeps it in memory only.
    pub keyring_file: Option<PathBuf>,
}

/// Why cases cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A key file.
    #[error("a key of cases cannot be used")]
    Key(#[from] KeyError),
    /// The key for stored input.
    #[error("the key for stored input cannot be used")]
    Seal(#[from] SealError),
    /// The database.
    #[error("the database of cases cannot be used")]
    Store(#[from] store::Error),
}

/// The channel on which replicas tell each other that histories grew.
const HINTS: &str = "cases/histories";

/// The named points at which a drill kills the process: around every call and every commit.
pub const CRASH_POINTS: &[&str] = &[
    "cases.open.before_grant",
    "cases.open.after_grant",
    "cases.open.before_commit",
    "cases.open.after_commit",
    "cases.claim.after_commit",
    "cases.lock.before_send",
    "cases.lock.after_answer",
    "cases.order.before_send",
    "cases.order.after_answer",
    "cases.find_order.before_send",
    "cases.find_order.after_answer",
    "cases.refresh.before_send",
    "cases.refresh.after_answer",
    "cases.close.before_send",
    "cases.close.after_answer",
    "cases.release.before_send",
    "cases.release.after_answer",
    "cases.settle.before_note",
    "cases.settle.before_send",
    "cases.settle.after_answer",
    "cases.inquire.before_send",
    "cases.inquire.after_answer",
    "cases.post.before_send",
    "cases.post.after_answer",
    "cases.refund.before_send",
    "cases.refund.after_answer",
    "cases.find_refund.before_send",
    "cases.find_refund.after_answer",
    "cases.step.before_commit",
    "cases.step.after_commit",
    "cases.events.after_read",
    "cases.events.before_commit",
    "cases.events.after_commit",
    "cases.cancel.before_commit",
    "cases.cancel.after_commit",
    "cases.resolve.before_commit",
    "cases.resolve.after_commit",
];

/// Brings the schema up to date, starts the workers and returns the service.
///
/// Shape: work runs on the context's tasks until they are stopped; the same database may be mounted again after that.
/// Errors: keys or database that cannot be used.
pub async fn mount(config: Config, deps: Deps) -> Result<Mounted, BuildError> {
    let Deps { context, db, cache, mesh, keyring_file } = deps;
    let mesh = mesh.caller(Role::Cases);
    db.migrate(repo::MIGRATIONS).await?;
    cache.bridge(&db, HINTS);
    let signer = SigningKey::load_or_create(&config.keys_dir.join("sign.pem"), &context.ids)?;
    let opening = AgreementKey::load_or_create(&config.keys_dir.join("seal.pem"), Curve::X25519, &context.ids)?;
    let sealer = Arc::new(seal::Sealer::load_or_create(&config.keys_dir.join("rows.key"), &context.ids)?);
    let own = vec![OwnKey::sign(CASES, &signer), OwnKey::seal(CASES, &opening)];
    let options = keyring::Options { file: keyring_file, ..keyring::Options::default() };
    let ring = KeyRing::start(&mesh, &context, own, options);
    let callers = Arc::new(caller::Callers::new(ring.clone(), Arc::new(opening), &context.clock));
    let peers = Arc::new(peers::Peers::new(
        mesh,
        context.clone(),
        signer,
        sealer.clone(),
        config.calls.clone(),
        config.times.clone(),
    ));
    let engine = Arc::new(engine::Engine {
        leases: repo::leases(&db)?,
        policy: config.times.policy(),
        routes: Arc::new(peers::Routes::new(peers.clone(), context.clone())),
        hints: hints::Hints::new(),
        metrics: metrics::Metrics::new(&context.metrics),
        db,
        context,
        config,
        peers,
        sealer,
    });
    worker::start(&engine);
    let ready = engine.clone();
    let readiness = Readiness::new(move || match (ring.is_registered(), ready.routes.is_loaded()) {
        (true, true) => Ok(()),
        (false, _) => Err("identity does not list the keys of cases yet".to_owned()),
        (true, false) => Err("there is no routing snapshot yet".to_owned()),
    });
    let routes = tonic::service::Routes::new(CaseServiceServer::new(service::Service::new(engine, callers)));
    Ok(Mounted { routes, http: None, readiness })
}

/// Counts all cases of a database by who answers for them: accepted = terminal + open in time + with a clerk, and silent = 0.
///
/// Shape: `grace` is how late a case may be while its worker is on the way.
pub async fn census(db: &Db, now: Timestamp, grace: Duration) -> Result<Census, Error> {
    let mut reader = db.read().await?;
    repo::census(&mut reader, now, grace).await
}
