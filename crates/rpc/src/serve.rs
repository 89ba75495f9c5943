//! The accept loop.
//!
//! tonic's transport server knows neither connection caps nor handshake deadlines nor jitter; with one connection and no limit on
//! streams it was taken from 34 to 1,417 MiB. So lastmile accepts by itself: every resource that a stranger can hold has a limit
//! here, before any step of the stack sees a request.

mod connection;
mod count;
mod inbound;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use runtime::{Io, Listener};
use tower::Service;

use crate::peer::Peer;
use crate::role::Role;
use crate::tls::ServerIdentity;
use count::Count;
pub use inbound::Inbound;

/// What one listener allows. The defaults are those of the mesh. Source: Envoy's advice for edges; measured on a bare server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; one more is closed at once.
    pub connections_max: usize,
    /// Open connections from one address.
    pub connections_per_ip_max: usize,
    /// For the TLS handshake.
    pub handshake_timeout: Duration,
    /// From the connection to the head of its first request.
    pub first_request_timeout: Duration,
    /// Silence after which the peer is probed.
    pub keepalive_interval: Duration,
    /// How long the probe may take.
    pub keepalive_timeout: Duration,
    /// Age at which a connection is asked to go (GOAWAY); each draws its own within ±10 %.
    pub connection_age_max: Duration,
    /// For calls in hand after the GOAWAY, at a connection's age and at the server's end.
    pub drain_timeout: Duration,
    /// Streams at once on one connection.
    pub streams_max: u32,
    /// HTTP/2 window of one stream, bytes.
    pub stream_window_bytes: u32,
    /// HTTP/2 window of one connection, bytes.
    pub connection_window_bytes: u32,
    /// All header fields of one request together, bytes.
    pub header_list_bytes_max: u32,
    /// Whether HTTP/1 is answered too; the public listener has plain endpoints.
    pub http1: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            connections_per_ip_max: 256,
            handshake_timeout: Duration::from_secs(5),
            first_request_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            connection_age_max: Duration::from_secs(30 * 60),
            drain_timeout: Duration::from_secs(10),
            streams_max: 100,
            stream_window_bytes: 64 * 1024,
            connection_window_bytes: 1024 * 1024,
            header_list_bytes_max: 16 * 1024,
            http1: false,
        }
    }
}

/// Shorter than the deadlines of calls, and too long to cost anything.
const BEAT: Duration = Duration::from_millis(100);

/// How a listener learns which role is at the other end.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Mutual TLS: the role in the client's certificate.
    Mutual(ServerIdentity),
    /// TLS that asks for no client certificate; no caller has a role.
    Public(ServerIdentity),
    /// Plain bytes; no caller has a role.
    Plain,
    /// Plain bytes, and roles by address. For a simulated network alone, where an address cannot be forged.
    Addresses(BTreeMap<IpAddr, Role>),
}

/// Serves connections until the tasks' stop, then drains.
///
/// Shape: `service` answers `http::Request<Inbound>`, which carries the [`Peer`] as an extension; a [`crate::Server`] fits. Returns when
/// every connection is gone or the drain is over. Each connection is a task of the context.
/// Errors: only those of a listener that cannot go on.
pub async fn serve<S, B>(
    listener: Listener,
    trust: Trust,
    service: S,
    limits: Limits,
    context: runtime::Context,
) -> std::io::Result<()>
where
    S: Service<http::Request<Inbound>, Response = http::Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + Unpin + 'static,
    B: Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stop = context.tasks.token();
    let count = Count::new(&limits, &listener.local_addr().to_string(), &context.metrics);
    let shared = Arc::new(Shared { trust, limits, context });
    let outcome = loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (io, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => break Err(error),
        };
        // No place: closing is the answer. Nothing is read, so nothing is spent on it.
        let Some(place) = count.enter(address.ip()) else { continue };
        let (one, service) = (shared.clone(), service.clone());
        shared.context.tasks.spawn("rpc.serve.connection", async move {
            one.connection(io, address, service).await;
            drop(place);
        });
    };
    drop(listener);
    count.empty(shared.limits.drain_timeout).await;
    outcome
}

/// Does `work`, which is all that its thread does, under a beat: for a core of the data path.
///
/// A deadline before the thread's next wake makes tokio wake the thread, by a write to an eventfd, also where it is this thread that
/// sets it; and every call has such deadlines. Under a beat that is always due before them there is none.
pub async fn with_beat<T>(work: impl Future<Output = T>) -> T {
    let mut work = Box::pin(work);
    loop {
        if let Ok(done) = tokio::time::timeout(BEAT, work.as_mut()).await {
            return done;
        }
    }
}

struct Shared {
    trust: Trust,
    limits: Limits,
    context: runtime::Context,
}

impl Shared {
    /// One connection, from its first byte to its last.
    async fn connection<S, B>(&self, io: Io, address: SocketAddr, service: S)
    where
        S: Service<http::Request<Inbound>, Response = http::Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + Unpin + 'static,
        B: Body<Data = bytes::Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some((io, peer)) = self.identify(io, address).await else { return };
        connection::run(io, peer, service, &self.limits, &self.context).await;
    }

    async fn identify(&self, io: Io, address: SocketAddr) -> Option<(Io, Peer)> {
        let identity = match &self.trust {
            Trust::Plain => return Some((io, Peer::remote(address, None))),
            Trust::Addresses(roles) => return Some((io, Peer::remote(address, roles.get(&address.ip()).copied()))),
            Trust::Mutual(identity) | Trust::Public(identity) => identity,
        };
        match tokio::time::timeout(self.limits.handshake_timeout, identity.accept(io)).await {
            Ok(Ok((io, role))) => Some((io, Peer::remote(address, role))),
            Ok(Err(error)) => {
                tracing::debug!(%error, "handshake refused");
                None
            }
            Err(_) => {
                tracing::debug!("handshake deadline passed");
                None
            }
        }
    }
}
