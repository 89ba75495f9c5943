//! The composition: from a configuration and bound listeners to running roles, and down again.

use std::net::SocketAddr;

use anyhow::Context as _;
use runtime::lifecycle::{self, Ending, Signals};
use runtime::{Context, Listener, crash, http};

use crate::config::{Config, Listen};
use crate::data::DataDir;
use crate::ops::{self, Probe};

/// The bound addresses. Passed in, so that a test binds port 0 and knows what it got.
#[derive(Debug)]
pub struct Listeners {
    /// Health and metrics.
    pub operations: Listener,
}

impl Listeners {
    /// Binds what the configuration names.
    pub async fn bind(context: &Context, listen: &Listen) -> anyhow::Result<Self> {
        let operations = context.net.bind(&listen.operations).await;
        Ok(Self { operations: operations.with_context(|| format!("listen.operations {}", listen.operations))? })
    }
}

/// Where a running process can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Health and metrics.
    pub operations: SocketAddr,
}

/// A process with its roles running.
#[derive(Debug)]
pub struct App {
    context: Context,
    addresses: Addresses,
    drain_timeout: std::time::Duration,
    _data: DataDir,
}

impl App {
    /// Opens the stores, mounts the roles, and begins to answer.
    ///
    /// Shape: work that was started before an error is stopped by the caller through the context's tasks.
    pub async fn build(config: &Config, context: Context, data: DataDir, listeners: Listeners) -> anyhow::Result<Self> {
        arm(config)?;
        let addresses = Addresses { operations: listeners.operations.local_addr() };
        let probes: Vec<Probe> = Vec::new();
        let operations = ops::router(probes, context.metrics.clone(), context.tasks.clone());
        context.tasks.spawn_critical(
            "operations listener",
            http::serve(
                listeners.operations,
                operations,
                config.operations.limits.clone(),
                context.tasks.clone(),
                context.clock.clone(),
            ),
        );
        Ok(Self { context, addresses, drain_timeout: config.serve.drain_timeout.get(), _data: data })
    }

    /// Where this process can be reached.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Runs until a signal or the failure of a critical task, then drains.
    pub async fn run(self, signals: Signals) -> Ending {
        lifecycle::run(signals, &self.context.tasks, self.drain_timeout).await
    }
}

/// Arms the crash point of a drill. Only the configuration can.
fn arm(config: &Config) -> anyhow::Result<()> {
    if !config.drill.crash.is_empty() {
        tracing::warn!(plan = config.drill.crash, "a drill is armed: this process will kill itself");
        crash::arm(config.drill.crash.parse()?);
    }
    Ok(())
}
