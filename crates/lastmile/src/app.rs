//! The composition: from a configuration and bound listeners to running roles, and down again.

use std::net::SocketAddr;

use anyhow::Context as _;
use runtime::lifecycle::{self, Ending, Signals};
use runtime::{Context, Listener, crash, http};

use crate::config::{Config, Listen};
use crate::data::DataDir;
use crate::ops::{self, Probe};
use crate::site::Site;
use crate::{Role, mesh, mount, serving};

/// How long work that was dropped may take to be gone.
const HARD_STOP_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// The bound addresses. Passed in, so that a test binds port 0 and knows what it got. The public listener is not among them: each
/// thread of the data path binds its own.
#[derive(Debug)]
pub struct Listeners {
    /// Callbacks of payment channels.
    pub callbacks: Listener,
    /// Health and metrics.
    pub operations: Listener,
    /// Calls of other processes; none where every role runs here.
    pub mesh: Option<Listener>,
}

impl Listeners {
    /// Binds what the configuration names.
    pub async fn bind(context: &Context, listen: &Listen) -> anyhow::Result<Self> {
        let bind = async |name: &str, address: &str| {
            context.net.bind(address).await.with_context(|| format!("listen.{name} {address}"))
        };
        let mesh = match listen.mesh.as_str() {
            "" => None,
            address => Some(bind("mesh", address).await?),
        };
        Ok(Self {
            callbacks: bind("callbacks", &listen.callbacks).await?,
            operations: bind("operations", &listen.operations).await?,
            mesh,
        })
    }
}

/// Where a running process can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC, token endpoint and keys; where the gateway runs here.
    pub public: Option<SocketAddr>,
    /// Callbacks of payment channels; where payments runs here.
    pub callbacks: Option<SocketAddr>,
    /// Health and metrics.
    pub operations: SocketAddr,
    /// Calls of other processes; where there are any.
    pub mesh: Option<SocketAddr>,
    /// The simulated systems; where they run here.
    pub sandbox: Option<::sandbox::Addresses>,
}

/// A process with its roles running.
#[derive(Debug)]
pub struct App {
    context: Context,
    addresses: Addresses,
    probes: Vec<Probe>,
    cores: Option<crate::cores::Cores>,
    drain_timeout: std::time::Duration,
    _data: DataDir,
}

impl App {
    /// Opens the stores, mounts the roles, and begins to answer.
    ///
    /// Shape: work that was started before an error is stopped by the caller through the context's tasks. Roles may still wait for each
    /// other when it returns; see [`App::ready`].
    pub async fn build(config: &Config, context: Context, data: DataDir, listeners: Listeners) -> anyhow::Result<Self> {
        arm(config)?;
        let mut site = Site::open(config, context.clone(), listeners.callbacks.local_addr()).await?;
        for role in config.roles() {
            let mounted = match role {
                Role::Sandbox => mount::sandbox(&mut site).await,
                Role::Identity => mount::identity(&mut site).await,
                Role::Catalog => mount::catalog(&mut site),
                Role::Payments => mount::payments(&mut site).await,
                Role::Adapter => mount::adapter(&mut site),
                Role::Cases => mount::cases(&mut site).await,
                Role::Gateway => mount::gateway(&mut site).await,
            };
            mounted.with_context(|| format!("role {role}"))?;
        }
        let addresses = Addresses {
            public: site.cores.as_ref().map(crate::cores::Cores::address),
            callbacks: site.callbacks.is_some().then(|| listeners.callbacks.local_addr()),
            operations: listeners.operations.local_addr(),
            mesh: listeners.mesh.as_ref().map(Listener::local_addr),
            sandbox: site.sandbox,
        };
        let cores = site.cores.take();
        let probes = site.probes.clone();
        listen(site, listeners).await?;
        let drain_timeout = config.serve.drain_timeout.get();
        Ok(Self { context, addresses, probes, cores, drain_timeout, _data: data })
    }

    /// Where this process can be reached.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Waits until every role is ready, at most `within`.
    ///
    /// Errors: what is missing.
    pub async fn ready(&self, within: std::time::Duration) -> Result<(), Vec<String>> {
        serving::ready(&self.probes, within, &self.context).await
    }

    /// Runs until a signal or the failure of a critical task, then drains.
    pub async fn run(self, signals: Signals) -> Ending {
        let ending = lifecycle::run(signals, &self.context.tasks, self.drain_timeout).await;
        self.finish().await;
        ending
    }

    /// Stops without a signal, for whoever embeds a process: drains as [`App::run`] does.
    pub async fn stop(self) -> bool {
        self.context.tasks.stop();
        let drained = self.context.tasks.wait(self.drain_timeout).await;
        self.context.tasks.abort();
        self.context.tasks.wait(HARD_STOP_MAX).await;
        self.finish().await;
        drained
    }

    async fn finish(self) {
        if let Some(cores) = self.cores {
            cores.join().await;
        }
    }
}

/// Opens the listeners, once everything behind them stands.
async fn listen(site: Site, listeners: Listeners) -> anyhow::Result<()> {
    let (config, context) = (&site.config, &site.context);
    let operations = ops::router(site.probes.clone(), context.metrics.clone(), context.tasks.clone());
    plain(context, "operations listener", listeners.operations, operations, config.operations.limits.clone());
    if let Some(callbacks) = site.callbacks {
        plain(context, "callbacks listener", listeners.callbacks, callbacks, config.callbacks.limits.clone());
    }
    let mut reporters = site.reporters;
    if let Some(listener) = listeners.mesh {
        let (service, reporter) = mesh::service(site.servers, context).await?;
        reporters.push(reporter);
        let trust = mesh::trust(&config.tls, &config.roles())?;
        let limits = config.mesh_listener.limits.listener(false);
        let serving = rpc::serve(listener, trust, service, limits, context.clone());
        context.tasks.spawn_critical("mesh listener", serving);
    }
    context.tasks.spawn("health", serving::report(site.probes, reporters, context.clone()));
    Ok(())
}

fn plain(context: &Context, name: &'static str, listener: Listener, router: axum::Router, limits: http::Limits) {
    let serving = http::serve(listener, router, limits, context.tasks.clone(), context.clock.clone());
    context.tasks.spawn_critical(name, serving);
}

/// Arms the crash points of a drill. Only the configuration can.
fn arm(config: &Config) -> anyhow::Result<()> {
    if !config.drill.crash.is_empty() {
        tracing::warn!(plan = config.drill.crash, "a drill is armed: this process will kill itself");
        crash::arm(config.drill.crash.parse()?);
    }
    if !config.drill.stop.is_empty() {
        tracing::warn!(plans = ?config.drill.stop, "a drill is armed: this process will stand still");
        crash::stop_at(config.drill.stop.iter().map(|plan| plan.parse()).collect::<Result<_, _>>()?);
    }
    Ok(())
}
