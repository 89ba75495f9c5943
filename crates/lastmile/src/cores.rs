//! The public listener: one thread with a runtime of its own per core, all behind one address.
//!
//! The kernel spreads connections over the threads (SO_REUSEPORT). A thread runs policy and moves bytes; what a call asks of a role in
//! this process is handed to the service runtime. Threads share nothing but the gateway's snapshots.

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use rpc::{Limits, Trust};
use runtime::{Context, Listener};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// Threads of the data path at most.
const CORES_MAX: usize = 256;

/// How the public listener treats connections.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) trust: Trust,
    pub(crate) limits: Limits,
}

/// The threads that serve the public listener.
#[derive(Debug)]
pub(crate) struct Cores {
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

/// What a thread serves with; the gateway's proxy of one core.
pub(crate) trait Public:
    tower::Service<
        http::Request<rpc::Inbound>,
        Response = http::Response<tonic::body::Body>,
        Error = std::convert::Infallible,
        Future: Send + Unpin + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Public for S where
    S: tower::Service<
            http::Request<rpc::Inbound>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
            Future: Send + Unpin + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// How many threads: as configured, else one per core of the machine.
pub(crate) fn count(configured: usize) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    (if configured == 0 { cores() } else { configured }).clamp(1, CORES_MAX)
}

/// Starts one thread per service, all listening on `address`; with port 0 the first takes a free port for all.
///
/// Errors: the address cannot be had. Threads that were started before end with the context's tasks.
pub(crate) async fn start<S>(context: &Context, address: &str, door: &Door, services: Vec<S>) -> anyhow::Result<Cores>
where
    S: Public,
{
    let mut at = address.to_owned();
    if !at.ends_with(":0") {
        // A shared port would be shared with another lastmile of this user as well: nobody may have it now.
        drop(context.net.bind(&at).await?);
    }
    let mut threads = Vec::new();
    let mut bound = None;
    for (index, service) in services.into_iter().enumerate() {
        let (tell, told) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (context_of_core, door, address) = (context.clone(), door.clone(), at.clone());
        let thread = std::thread::Builder::new().name(format!("gateway-{index}"));
        let work = move || end.send(run(&context_of_core, &address, door, service, tell)).unwrap_or_default();
        threads.push(thread.spawn(work).context("starting a thread of the data path")?);
        let listening = told.await.map_err(|_| anyhow!("a thread of the data path ended at its start"))??;
        at = listening.to_string();
        bound = Some(listening);
        context.tasks.spawn_critical("public listener", async move {
            ended.await.unwrap_or_else(|_| Err(io::Error::other("a thread of the data path panicked")))
        });
    }
    let address = bound.context("the data path has no threads")?;
    Ok(Cores { address, threads })
}

/// Serves on this thread until the context's tasks stop and the connections have drained.
fn run<S: Public>(
    context: &Context,
    address: &str,
    door: Door,
    service: S,
    tell: oneshot::Sender<io::Result<SocketAddr>>,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener: Listener = match context.net.bind_reuse_port(address).await {
            Ok(listener) => listener,
            Err(error) => {
                // Nobody waits any more only when the start was given up.
                let _ = tell.send(Err(error));
                return Ok(());
            }
        };
        let _ = tell.send(Ok(listener.local_addr()));
        rpc::with_beat(rpc::serve(listener, door.trust, service, door.limits, context.clone())).await
    })
}

impl Cores {
    /// Where the public listener is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the threads, after the stop.
    pub(crate) async fn join(self) {
        let join = || self.threads.into_iter().for_each(|thread| drop(thread.join()));
        // A thread that panicked was told by its critical task.
        let _ = tokio::task::spawn_blocking(join).await;
    }
}
