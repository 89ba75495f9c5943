//! Each role, mounted on the site: its store, its keys, its part of the configuration.

use std::path::Path;

use anyhow::Context as _;
use rpc::Trust;
use rpc::jose::SigningKey;
use rpc::keyring::{KeyRing, Options, OwnKey};
use rpc::tls::ServerIdentity;
use runtime::secret;

use crate::config::Public;
use crate::cores::{self, Door};
use crate::front::{self, Front};
use crate::site::Site;
use crate::{Role, sandbox as simulated};

/// Where a role keeps the list of everybody's public keys across restarts, beside its own keys.
const RING_FILE: &str = "ring.json";

/// The simulated departments and channels. They come first: where they listen is where the other roles find them.
pub(crate) async fn sandbox(site: &mut Site) -> anyhow::Result<()> {
    let running = ::sandbox::start(site.config.sandbox.systems.clone(), site.context.clone()).await?;
    site.sandbox = Some(running.addresses);
    site.config.sandbox.at = simulated::at(&running.addresses);
    Ok(())
}

/// Items, regions, routes.
pub(crate) fn catalog(site: &mut Site) -> anyhow::Result<()> {
    let mut config = site.config.catalog.clone();
    config.sandbox |= site.config.sandbox.enabled;
    let mounted = catalog::mount(&config, catalog::Deps { context: site.context.clone() })?;
    site.mounted(Role::Catalog, mounted)
}

/// People, entry points, tokens, keys.
pub(crate) async fn identity(site: &mut Site) -> anyhow::Result<()> {
    let mut config = site.config.identity.clone();
    if site.config.sandbox.enabled {
        config.sandbox_keys_dir = Some(simulated::client_keys_dir(&site.config));
    }
    let deps = identity::Deps {
        context: site.context.clone(),
        db: site.db(Role::Identity).await?,
        cache: site.cache.clone(),
        mesh: site.mesh(Role::Identity),
    };
    let mounted = identity::mount(config, deps).await?;
    site.mounted(Role::Identity, mounted)
}

/// Orders, refunds, the ledger.
pub(crate) async fn payments(site: &mut Site) -> anyhow::Result<()> {
    let config = if site.config.sandbox.enabled {
        simulated::wire_payments(&site.config, site.callbacks_at)?
    } else {
        site.config.payments.clone()
    };
    if let Some(directory) = config.payer_key_file.parent() {
        secret::create_private_dir(directory)?;
    }
    let directory = site.config.keys_dir(Role::Payments);
    secret::create_private_dir(&directory)?;
    let keys = key_ring(site, Role::Payments, &directory, Vec::new());
    let deps = payments::Deps { context: site.context.clone(), db: site.db(Role::Payments).await?, keys };
    let mounted = payments::mount(config, deps).await?;
    site.mounted(Role::Payments, mounted)
}

/// The departments' profiles, each a peer of its own.
pub(crate) fn adapter(site: &mut Site) -> anyhow::Result<()> {
    let mut config = site.config.adapter.clone();
    if site.config.sandbox.enabled {
        simulated::wire_adapter(&mut config, &site.config.sandbox.at);
    }
    secret::create_private_dir(&config.keys_dir)?;
    let deps = adapter::Deps { context: site.context.clone(), mesh: site.mesh(Role::Adapter) };
    let departments = adapter::mount(&config, &deps)?;
    if let Some(department) = departments.first() {
        site.ready(Role::Adapter, department.mounted.readiness.clone());
    }
    for department in departments {
        site.serve(&department.mesh_key, department.mounted.routes)?;
    }
    Ok(())
}

/// Everything that changes the world.
pub(crate) async fn cases(site: &mut Site) -> anyhow::Result<()> {
    let config = site.config.cases.clone();
    secret::create_private_dir(&config.keys_dir)?;
    let deps = cases::Deps {
        context: site.context.clone(),
        db: site.db(Role::Cases).await?,
        cache: site.cache.clone(),
        mesh: site.mesh(Role::Cases),
        keyring_file: Some(config.keys_dir.join(RING_FILE)),
    };
    let mounted = cases::mount(config, deps).await?;
    site.mounted(Role::Cases, mounted)
}

/// The public door: one thread per core.
pub(crate) async fn gateway(site: &mut Site) -> anyhow::Result<()> {
    let config = site.config.gateway.clone();
    let mesh = site.mesh(Role::Gateway);
    let directory = site.config.keys_dir(Role::Gateway);
    secret::create_private_dir(&directory)?;
    let signer = SigningKey::load_or_create(&directory.join("sign-1.pem"), &site.context.ids)?;
    let keys = key_ring(site, Role::Gateway, &directory, vec![OwnKey::sign(Role::Gateway.name(), &signer)]);
    let deps = gateway::Deps { context: site.context.clone(), mesh, keys, signer, cache: site.cache.clone() };
    let cores = cores::count(config.cores);
    let gateway = gateway::start(config, deps)?;
    let (standard, reporter) = front::standard(&site.context).await?;
    let front = |_| Ok(Front::new(gateway.proxy(site.core_mesh()?), standard.clone()));
    let fronts: Vec<Front> = (0..cores).map(front).collect::<anyhow::Result<_>>()?;
    let public = &site.config.public;
    let door = Door { trust: public_trust(public)?, limits: public.limits.listener(true) };
    let listen = site.config.listen.public.clone();
    let started = cores::start(&site.context, &listen, &door, fronts).await;
    site.cores = Some(started.with_context(|| format!("listen.public {listen}"))?);
    site.reporters.push(reporter);
    site.ready(Role::Gateway, gateway.readiness());
    Ok(())
}

/// The public keys of every role, as one role keeps them at hand; its own are registered under its name.
fn key_ring(site: &Site, role: Role, directory: &Path, own: Vec<OwnKey>) -> KeyRing {
    let options = Options { file: Some(directory.join(RING_FILE)), ..Options::default() };
    KeyRing::start(&site.mesh(role), &site.context, own, options)
}

/// TLS where a certificate is configured, else plain bytes.
fn public_trust(public: &Public) -> anyhow::Result<Trust> {
    if public.cert_file.as_os_str().is_empty() {
        return Ok(Trust::Plain);
    }
    let certificate = std::fs::read_to_string(&public.cert_file)
        .with_context(|| format!("public.cert_file {}", public.cert_file.display()))?;
    let key = secret::read_private_text(&public.key_file)?;
    Ok(Trust::Public(ServerIdentity::public(&certificate, &key)?))
}
