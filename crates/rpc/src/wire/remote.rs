//! The wire to a server across a network.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Extensions, Version};
use http2::{CallError, Caller, Lost, Received, Wanted};
use runtime::Io;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::body::Body;

use super::{ANSWER_BYTES_MAX, Answer, Flight, Transport};
use crate::Effect;
use crate::fault::{Common, status};
use crate::frames::{Holding, answer};
use crate::role::role_of_key;
use crate::stack::chain::{Request, Response};
use crate::tls::ClientIdentity;

/// How remote wires connect. The defaults are those of the mesh; tests shorten them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteOptions {
    /// For the TCP connection.
    pub connect_timeout: Duration,
    /// For the TLS and HTTP/2 handshakes after it.
    pub handshake_timeout: Duration,
    /// Silence after which the peer is probed, also while nothing is under way.
    pub keepalive_interval: Duration,
    /// How long the probe may take before the connection is given up.
    pub keepalive_timeout: Duration,
    /// Age at which a connection takes no new calls; each draws its own within ±10 %.
    pub connection_age_max: Duration,
    /// Connections to one peer.
    pub connections_max: usize,
    /// Calls at once on one connection; at most what the peer's accept loop allows.
    pub streams_max: usize,
    /// First pause after a failed connection; it doubles up to `backoff_max`.
    pub backoff_min: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(2),
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            connection_age_max: Duration::from_secs(600),
            connections_max: 4,
            streams_max: 100,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
        }
    }
}

const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// How often a request that provably was not sent is tried on another connection.
const UNSENT_TRIES_MAX: usize = 3;

pub(crate) struct Remote {
    name: String,
    address: String,
    authority: Option<Authority>,
    tls: Option<ClientIdentity>,
    context: runtime::Context,
    options: RemoteOptions,
    state: Mutex<State>,
    /// One connection is made at a time; the others wait for it within their own deadlines.
    connecting: tokio::sync::Mutex<()>,
    in_flight: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    connections: Vec<Connection>,
    failures: u32,
    retry_at: Option<Instant>,
}

#[derive(Clone)]
struct Connection {
    caller: Caller<Body>,
    streams: Arc<AtomicUsize>,
    retire_at: Instant,
}

/// Why a call was not made. The peer has done nothing.
#[derive(Clone, Debug, thiserror::Error)]
enum ConnectError {
    #[error("waiting after a failed connection")]
    Backoff { left: Duration },
    #[error("cannot connect")]
    Io(#[source] Arc<io::Error>),
    #[error("as many calls under way as the wire takes")]
    Full,
    /// It was sent, and by the protocol's promise it was not looked at.
    #[error("the peer refused the request unseen")]
    Refused,
}

impl Remote {
    pub(crate) fn new(
        name: &str,
        address: &str,
        tls: Option<ClientIdentity>,
        context: &runtime::Context,
        options: RemoteOptions,
    ) -> Self {
        let in_flight = Arc::new(Semaphore::new(options.connections_max * options.streams_max));
        Self {
            name: name.to_owned(),
            authority: Authority::try_from(address).ok(),
            address: address.to_owned(),
            tls,
            context: context.clone(),
            options,
            state: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            in_flight,
        }
    }

    async fn exchange(&self, mut request: Request, streaming: bool, flight: &Flight) -> Result<Response, Common> {
        let permit = self.in_flight.clone().try_acquire_owned().map_err(|_| self.refuse(ConnectError::Full))?;
        let wanted = if streaming { Wanted::Pieces } else { Wanted::Whole { bytes_max: ANSWER_BYTES_MAX } };
        for _ in 0..UNSENT_TRIES_MAX {
            let connection = self.connection().await.map_err(|error| self.refuse(error))?;
            let lease = Lease::take(&connection);
            let before = flight.leave();
            match connection.caller.call(request, wanted).await {
                Ok(response) => return Ok(self.finish(response, (lease, permit))),
                // The connection was closing: the peer has seen nothing of this request.
                Err(CallError::Unsent(unsent)) => {
                    flight.come_back(before);
                    request = *unsent;
                }
                Err(CallError::Refused) => return Err(self.refuse(ConnectError::Refused)),
                // The same request would bring the same answer, and a local wire says the same.
                Err(CallError::Lost(Lost::TooLong)) => return Err(Common::Internal),
                Err(CallError::Lost(how)) => return Err(lost(&self.name, Some(Arc::new(how)))),
            }
        }
        Err(self.refuse(ConnectError::Full))
    }

    fn finish(&self, response: http::Response<Received>, guard: impl Send + Unpin + 'static) -> Response {
        response.map(|body| match body {
            whole @ Received::Whole { .. } => Body::new(whole),
            pieces @ Received::Pieces(_) => {
                let name = self.name.clone();
                let map_error = move |_| crate::status(&lost(&name, None));
                Body::new(Holding { body: Some(Body::new(pieces)), guard: Some(guard), map_error })
            }
        })
    }

    /// Returns the connection with the fewest calls, making one where there is none or all are full.
    async fn connection(&self) -> Result<Connection, ConnectError> {
        if let Some(connection) = self.pick()? {
            return Ok(connection);
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(connection) = self.pick()? {
            return Ok(connection);
        }
        let connected = self.connect().await;
        let mut state = self.state();
        match connected {
            Ok(connection) => {
                state.failures = 0;
                state.retry_at = None;
                state.connections.push(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                let pause = self.backoff(state.failures);
                state.failures = state.failures.saturating_add(1);
                state.retry_at = Some(Instant::now() + pause);
                Err(error)
            }
        }
    }

    fn pick(&self) -> Result<Option<Connection>, ConnectError> {
        let now = Instant::now();
        let mut state = self.state();
        // A retired connection ends by itself when its last call does.
        state.connections.retain(|connection| connection.caller.is_open() && now < connection.retire_at);
        let open = state.connections.len();
        let best = state.connections.iter().min_by_key(|connection| connection.streams.load(Ordering::Relaxed));
        if let Some(connection) = best {
            let most = connection.caller.calls_max().min(self.options.streams_max);
            let has_room = connection.streams.load(Ordering::Relaxed) < most;
            if has_room {
                return Ok(Some(connection.clone()));
            }
            if open >= self.options.connections_max {
                return Err(ConnectError::Full);
            }
        }
        match state.retry_at {
            Some(at) if now < at => Err(ConnectError::Backoff { left: at - now }),
            _ => Ok(None),
        }
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        let RemoteOptions { connect_timeout, handshake_timeout, .. } = self.options;
        let io_error = |error| ConnectError::Io(Arc::new(error));
        let io = self.context.net.connect(&self.address, connect_timeout).await.map_err(io_error)?;
        let late = || io_error(io::Error::new(io::ErrorKind::TimedOut, "handshake deadline passed"));
        tokio::time::timeout(handshake_timeout, self.handshake(io)).await.map_err(|_| late())?
    }

    async fn handshake(&self, io: Io) -> Result<Connection, ConnectError> {
        let io = match (&self.tls, role_of_key(&self.name)) {
            (None, _) => io,
            (Some(tls), Some(role)) => {
                tls.connect(role, io).await.map_err(|error| ConnectError::Io(Arc::new(error)))?
            }
            (Some(_), None) => {
                let error = io::Error::new(io::ErrorKind::InvalidInput, "the peer's name is no role");
                return Err(ConnectError::Io(Arc::new(error)));
            }
        };
        let tasks = &self.context.tasks;
        let limits = http2::Limits {
            streams_max: u32::try_from(self.options.streams_max).unwrap_or(u32::MAX),
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: CONNECTION_WINDOW_BYTES,
            header_list_bytes_max: HEADER_LIST_BYTES_MAX,
            keepalive_interval: self.options.keepalive_interval,
            keepalive_timeout: self.options.keepalive_timeout,
            // A server opens nothing.
            reset_cost: 0,
        };
        let (caller, calls) = http2::connect(io, limits);
        let name = self.name.clone();
        tasks.attend("rpc.wire.connection", async move {
            if let Err(error) = calls.await {
                tracing::debug!(peer = name, %error, "connection ended");
            }
        });
        let retire_at = Instant::now() + crate::jitter(&self.context.ids, self.options.connection_age_max);
        Ok(Connection { caller, streams: Arc::default(), retire_at })
    }

    fn backoff(&self, failures: u32) -> Duration {
        let doubled = self.options.backoff_min.saturating_mul(1 << failures.min(10));
        crate::jitter(&self.context.ids, doubled.min(self.options.backoff_max))
    }

    fn refuse(&self, error: ConnectError) -> Common {
        let retry_after = match &error {
            ConnectError::Backoff { left } => *left,
            ConnectError::Io(_) | ConnectError::Full | ConnectError::Refused => self.options.backoff_min,
        };
        let peer = self.name.clone();
        Common::Peer { peer, effect: Effect::None, retry_after, source: Some(Arc::new(error)) }
    }

    fn address(&self, request: &mut Request) {
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority.clone_from(&self.authority);
        parts.path_and_query = Some(path);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = Version::HTTP_2;
        *request.extensions_mut() = Extensions::new();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for Remote {
    fn send<'a>(&'a self, mut request: Request, streaming: bool, flight: &'a Flight) -> BoxFuture<'a, Answer> {
        self.address(&mut request);
        Box::pin(async move {
            match self.exchange(request, streaming, flight).await {
                Ok(response) => Answer { response, failed: false },
                // A peer that says too much is there.
                Err(fault @ Common::Internal) => Answer { response: answer(status(&fault)), failed: false },
                Err(fault) => Answer { response: answer(status(&fault)), failed: true },
            }
        })
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({} at {})", self.name, self.address)
    }
}

/// The answer broke off: the peer had the request.
fn lost(peer: &str, how: Option<Arc<Lost>>) -> Common {
    let (retry_after, source) = (RemoteOptions::default().backoff_min, how.map(|how| how as Arc<_>));
    Common::Peer { peer: peer.to_owned(), effect: Effect::Possible, retry_after, source }
}

/// One call on a connection.
struct Lease(Arc<AtomicUsize>);

impl Lease {
    fn take(connection: &Connection) -> Self {
        connection.streams.fetch_add(1, Ordering::Relaxed);
        Self(connection.streams.clone())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
