//! The server: HTTP/1 and HTTP/2 on one listener, where a slow, greedy or silent client costs a bounded amount and nothing more.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ::http::{Request, Response, StatusCode, header};
use axum::body::Body;
use axum::extract::ConnectInfo;
use futures::FutureExt;
use http_body::Body as _;
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt;

use crate::config::{ByteSize, Duration, Problem};
use crate::tasks::Executor;
use crate::{Clock, Io, Listener, Tasks, crash};

const H2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
const H1_BUFFER_BYTES_MIN: usize = 8 * 1024;
const HEADERS_MAX: usize = 100;

/// What one plain HTTP listener allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open connections on the listener; a further one is closed at once.
    pub connections_max: u32,
    /// Open connections from one address.
    pub connections_per_ip_max: u32,
    /// From the connection to its first complete request head.
    pub first_request_timeout: Duration,
    /// From the end of one request to the next one's complete head, on HTTP/1; silence on HTTP/2 before it is probed.
    pub idle_timeout: Duration,
    /// For one request, from its head to the reply's head.
    pub request_timeout: Duration,
    /// All header fields of one request together.
    pub header_bytes_max: ByteSize,
    /// The body of one request.
    pub body_bytes_max: ByteSize,
    /// Concurrent requests on one HTTP/2 connection.
    pub streams_max: u32,
    /// How long one connection is used before it is asked to close.
    pub connection_age_max: Duration,
    /// For what is in hand on a connection that was asked to close.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            connections_per_ip_max: 256,
            first_request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            header_bytes_max: ByteSize::from_kib(16),
            body_bytes_max: ByteSize::from_mib(1),
            streams_max: 100,
            connection_age_max: Duration::from_secs(15 * 60),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// Reports values that would make the listener useless.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        let mut positive = |field: &str, is_positive: bool| {
            if !is_positive {
                problems.push(Problem::new(format!("{path}.{field}"), "must be more than zero"));
            }
        };
        positive("connections_max", self.connections_max > 0);
        positive("connections_per_ip_max", self.connections_per_ip_max > 0);
        positive("streams_max", self.streams_max > 0);
        positive("header_bytes_max", self.header_bytes_max.bytes() > 0);
        for (field, span) in [
            ("first_request_timeout", self.first_request_timeout),
            ("idle_timeout", self.idle_timeout),
            ("request_timeout", self.request_timeout),
            ("connection_age_max", self.connection_age_max),
        ] {
            positive(field, !span.get().is_zero());
        }
    }
}

/// Serves `app` on `listener` until the tasks' stop, then finishes what is in hand.
///
/// Shape: returns when every connection is closed, at the latest after the drain timeout. The handlers find the peer's address as
/// `ConnectInfo<SocketAddr>`. A handler that panics answers 500, one that takes too long 504.
/// Errors: what the listener's accept gives up on.
pub async fn serve(
    listener: Listener,
    app: axum::Router,
    limits: Limits,
    tasks: Tasks,
    clock: Clock,
) -> std::io::Result<()> {
    let stop = tasks.token();
    let slots = Arc::new(Semaphore::new(limits.connections_max as usize));
    let per_ip = PerIp::new(limits.connections_per_ip_max);
    let server = Arc::new(Server { app, limits, tasks: tasks.clone(), clock });
    loop {
        let (io, peer) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted?,
        };
        let (Ok(slot), Some(seat)) = (slots.clone().try_acquire_owned(), per_ip.sit(peer.ip())) else {
            tracing::debug!(listener = %listener.local_addr(), "connection refused: limit reached");
            continue;
        };
        tasks.spawn("http connection", server.clone().connection(io, peer, (slot, seat)));
    }
    drop(listener);
    let all = server.limits.connections_max;
    let _ = server.clock.timeout(server.limits.drain_timeout.get(), slots.acquire_many(all)).await;
    Ok(())
}

struct Server {
    app: axum::Router,
    limits: Limits,
    tasks: Tasks,
    clock: Clock,
}

impl Server {
    /// Runs one connection to its end; the seats are given back with it.
    async fn connection(self: Arc<Self>, io: Io, peer: SocketAddr, _seats: (OwnedSemaphorePermit, Seat)) {
        let spoke = Arc::new(AtomicBool::new(false));
        let heard = spoke.clone();
        let server = self.clone();
        let service = service_fn(move |request| {
            heard.store(true, Ordering::Relaxed);
            server.clone().answer(request, peer)
        });
        let builder = self.builder();
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
        let stop = self.tasks.token();
        let mut first_request = std::pin::pin!(self.clock.sleep(self.limits.first_request_timeout.get()));
        let mut is_new = true;
        let mut is_draining = false;
        let mut end_of_use = std::pin::pin!(async {
            let _ = self.clock.timeout(self.limits.connection_age_max.get(), stop.cancelled()).await;
        });
        let mut end_of_drain = std::pin::pin!(futures::future::OptionFuture::default());
        loop {
            tokio::select! {
                // A fixed order: tokio would draw one, and a simulation could not be replayed.
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(error, "connection ended early");
                    }
                    return;
                }
                () = first_request.as_mut(), if is_new => {
                    is_new = false;
                    if !spoke.load(Ordering::Relaxed) {
                        tracing::debug!("connection closed: no request in time");
                        return;
                    }
                }
                () = end_of_use.as_mut(), if !is_draining => {
                    is_draining = true;
                    connection.as_mut().graceful_shutdown();
                    end_of_drain.set(Some(self.clock.sleep(self.limits.drain_timeout.get())).into());
                }
                Some(()) = end_of_drain.as_mut(), if is_draining => return,
            }
        }
    }

    fn builder(&self) -> auto::Builder<Executor> {
        let limits = &self.limits;
        let header_bytes_max = limits.header_bytes_max.bytes();
        let mut builder = auto::Builder::new(self.tasks.executor("http stream"));
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.idle_timeout.get())
            .max_headers(HEADERS_MAX)
            .max_buf_size(header_bytes_max.max(H1_BUFFER_BYTES_MIN))
            // The date is the system's; nobody needs it, and a simulation must not see it.
            .auto_date_header(false);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(limits.idle_timeout.get())
            .keep_alive_timeout(limits.idle_timeout.get())
            .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(limits.streams_max)
            .max_header_list_size(u32::try_from(header_bytes_max).unwrap_or(u32::MAX))
            .auto_date_header(false);
        builder
    }

    /// Answers one request under the body cap and the deadline.
    async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Result<Response<Body>, HangUp> {
        let body_bytes_max = self.limits.body_bytes_max.bytes();
        if request.body().size_hint().lower() > body_bytes_max as u64 {
            return Ok(closing(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let mut request = request.map(|body| Body::new(Limited::new(body, body_bytes_max)));
        request.extensions_mut().insert(ConnectInfo(peer));
        let handled = AssertUnwindSafe(self.app.clone().oneshot(request)).catch_unwind();
        Ok(match self.clock.timeout(self.limits.request_timeout.get(), handled).await {
            Ok(Ok(Ok(response))) if response.extensions().get::<HangUp>().is_some() => return Err(HangUp),
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(never))) => match never {},
            Ok(Err(payload)) if crash::is_crash(payload.as_ref()) => std::panic::resume_unwind(payload),
            Ok(Err(_)) => {
                tracing::error!("handler panicked");
                closing(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Err(_) => closing(StatusCode::GATEWAY_TIMEOUT),
        })
    }
}

/// Put into the extensions of a response, it closes the connection without an answer (on HTTP/2 it resets the stream).
///
/// The sandbox plays back ends with it that die after they took a request.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("hung up on purpose")]
pub struct HangUp;

/// An empty answer after which the connection ends: the rest of the request is not read.
fn closing(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}

/// Counts open connections by address.
#[derive(Clone)]
struct PerIp {
    open: Arc<Mutex<BTreeMap<IpAddr, u32>>>,
    max: u32,
}

struct Seat {
    per_ip: PerIp,
    ip: IpAddr,
}

impl PerIp {
    fn new(max: u32) -> Self {
        Self { open: Arc::default(), max }
    }

    fn sit(&self, ip: IpAddr) -> Option<Seat> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(ip).or_insert(0);
        if *count >= self.max {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Seat { per_ip: self.clone(), ip })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.per_ip.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.ip) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.ip);
            }
        }
    }
}
