//! One connection: its protocol, its first request, its age, its end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;

use bytes::BytesMut;
use http_body::Body;
use http2::{Authorization, Handler, PREFACE, Received};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::Io;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;
use tower::Service;

use super::{Inbound, Limits};
use crate::peer::Peer;

/// Of a stranger two hundred streams that are opened and reset at once are enough.
const RESET_COST: u32 = 10;
/// Most header fields of an HTTP/1 request.
const HEADERS_MAX: usize = 100;

pub(super) async fn run<S, B>(mut io: Io, peer: Peer, service: S, limits: &Limits, context: &runtime::Context)
where
    S: Service<http::Request<Inbound>, Response = http::Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + Unpin + 'static,
    B: Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let first = Arc::new(First::default());
    let stop = context.tasks.token();
    let age = crate::jitter(&context.ids, limits.connection_age_max);
    let age = pin!(tokio::time::sleep(age));
    // In a fixed order, here and below: a random one would not replay.
    let opened = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        opened = tokio::time::timeout(limits.first_request_timeout, opening(&mut io, limits.http1)) => opened,
    };
    let (read, is_http2) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return tracing::debug!(%error, "connection ended before it began"),
        Err(_) => return tracing::debug!(why = "silence", "connection dropped"),
    };
    let is_of_mesh = peer.role().is_some();
    let answering = Answering { service, peer, first: first.clone() };
    let go = async {
        tokio::select! {
            biased;
            () = stop.cancelled() => "stop",
            () = age => "age",
            () = first.missed(limits.first_request_timeout) => "silence",
        }
    };
    if is_http2 {
        let connection = http2::Connection::new(io, read, answering, http2_limits(limits, is_of_mesh));
        attend(connection, http2::Connection::graceful_shutdown, go, limits.drain_timeout).await;
    } else {
        let (reader, writer) = tokio::io::split(io);
        let io = tokio::io::join(io::Cursor::new(read).chain(reader), writer);
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.first_request_timeout)
            .max_headers(HEADERS_MAX)
            .max_buf_size(usize::try_from(limits.header_list_bytes_max).unwrap_or(usize::MAX).max(8 * 1024))
            .auto_date_header(false);
        let serve = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
            Authorization::take(&mut request);
            answering.call(request)
        });
        let connection = builder.serve_connection(TokioIo::new(io), serve);
        attend(connection, |connection| connection.graceful_shutdown(), go, limits.drain_timeout).await;
    }
}

/// Runs a connection to its end, which is asked for when `go` says why.
async fn attend<C, E>(
    connection: C,
    shut_down: impl Fn(Pin<&mut C>),
    go: impl Future<Output = &'static str>,
    drain_timeout: Duration,
) where
    C: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let mut connection = pin!(connection);
    let why = tokio::select! {
        biased;
        ended = connection.as_mut() => return note(ended),
        why = go => why,
    };
    tracing::debug!(why, "connection asked to go");
    shut_down(connection.as_mut());
    // A peer that never sent a request has nothing in hand to wait for.
    let grace = if why == "silence" { Duration::ZERO } else { drain_timeout };
    match tokio::time::timeout(grace, connection).await {
        Ok(ended) => note(ended),
        Err(_) => tracing::debug!(why, "connection dropped"),
    }
}

/// Reads until it is clear which protocol is spoken; true for HTTP/2.
async fn opening(io: &mut Io, http1: bool) -> io::Result<(BytesMut, bool)> {
    let mut read = BytesMut::with_capacity(PREFACE.len());
    while http1 && read.len() < PREFACE.len() {
        if !PREFACE.starts_with(&read) {
            return Ok((read, false));
        }
        if io.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let is_http2 = !http1 || read.starts_with(PREFACE);
    Ok((read, is_http2))
}

fn http2_limits(limits: &Limits, is_of_mesh: bool) -> http2::Limits {
    http2::Limits {
        streams_max: limits.streams_max,
        stream_window_bytes: limits.stream_window_bytes,
        connection_window_bytes: limits.connection_window_bytes,
        header_list_bytes_max: limits.header_list_bytes_max,
        keepalive_interval: limits.keepalive_interval,
        keepalive_timeout: limits.keepalive_timeout,
        // What a caller gives up its gateway gives up as well: to roles that is no offence, and others' calls are on the connection.
        reset_cost: if is_of_mesh { 0 } else { RESET_COST },
    }
}

/// A service as a connection asks it: the peer is on every request, and the first one is noted.
#[derive(Clone)]
struct Answering<S> {
    service: S,
    peer: Peer,
    first: Arc<First>,
}

impl<S, B> Answering<S>
where
    S: Service<http::Request<Inbound>, Response = http::Response<B>, Error = Infallible> + Clone + Send + 'static,
{
    fn call(&self, request: http::Request<impl Into<Inbound>>) -> S::Future {
        self.first.seen();
        let mut request = request.map(Into::into);
        request.extensions_mut().insert(self.peer.clone());
        let mut service = self.service.clone();
        // Our services are always ready; being asked keeps to tower's contract.
        let _ = service.poll_ready(&mut std::task::Context::from_waker(Waker::noop()));
        service.call(request)
    }
}

impl<S, B> Handler for Answering<S>
where
    S: Service<http::Request<Inbound>, Response = http::Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + Unpin + 'static,
    B: Body<Data = bytes::Bytes> + Send + Unpin + 'static,
{
    type Body = B;
    type Answer = futures::future::Map<S::Future, fn(Result<http::Response<B>, Infallible>) -> http::Response<B>>;

    fn answer(&self, request: http::Request<Received>) -> Self::Answer {
        let sure = |answered: Result<http::Response<B>, Infallible>| answered.unwrap_or_else(|never| match never {});
        futures::FutureExt::map(self.call(request), sure)
    }
}

/// Whether the first request has come.
#[derive(Default)]
struct First {
    seen: AtomicBool,
    came: Notify,
}

impl First {
    fn seen(&self) {
        if !self.seen.swap(true, Ordering::Relaxed) {
            self.came.notify_one();
        }
    }

    /// Resolves when `span` passed without a request; never after one came.
    async fn missed(&self, span: Duration) {
        if tokio::time::timeout(span, self.came.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    }
}

fn note<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}
