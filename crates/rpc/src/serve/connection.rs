//! One connection: its protocol limits, its first request, its age, its end.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use runtime::Io;
use runtime::tasks::Executor;
use tokio::sync::Notify;
use tower::Service;

use super::Limits;
use crate::peer::Peer;

/// Most header fields of an HTTP/1 request.
const HEADERS_MAX: usize = 100;

pub(super) async fn run<S, B>(io: Io, peer: Peer, service: S, limits: &Limits, context: &runtime::Context)
where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let first = Arc::new(First::default());
    let answering = answering(service, peer, first.clone());
    let builder = builder(limits, context.tasks.executor("rpc.serve.stream"));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), answering));
    let stop = context.tasks.token();
    let age = crate::jitter(&context.ids, limits.connection_age_max);
    let go = async {
        tokio::select! {
            biased;
            () = stop.cancelled() => "stop",
            () = tokio::time::sleep(age) => "age",
            () = first.missed(limits.first_request_timeout) => "silence",
        }
    };
    // In a fixed order, here and above: a random one would not replay.
    let why = tokio::select! {
        biased;
        ended = connection.as_mut() => return note(ended),
        why = go => why,
    };
    tracing::debug!(why, "connection asked to go");
    connection.as_mut().graceful_shutdown();
    // A peer that never sent a request has nothing in hand to wait for.
    let grace = if why == "silence" { Duration::ZERO } else { limits.drain_timeout };
    match tokio::time::timeout(grace, connection).await {
        Ok(ended) => note(ended),
        Err(_) => tracing::debug!(why, "connection dropped"),
    }
}

fn builder(limits: &Limits, executor: Executor) -> auto::Builder<Executor> {
    let mut builder = auto::Builder::new(executor);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_header_list_size(limits.header_list_bytes_max)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        // The date is the system's; nobody needs it, and a simulation must not see it.
        .auto_date_header(false);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.first_request_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(usize::try_from(limits.header_list_bytes_max).unwrap_or(usize::MAX).max(8 * 1024))
        .auto_date_header(false);
    if limits.http1 { builder } else { builder.http2_only() }
}

/// Puts the peer on every request and notes that there was one.
fn answering<S, B>(
    service: S,
    peer: Peer,
    first: Arc<First>,
) -> impl hyper::service::Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible, Future: Send>
where
    S: Service<http::Request<Incoming>, Response = http::Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body,
{
    hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
        first.seen();
        request.extensions_mut().insert(peer.clone());
        let mut service = service.clone();
        async move {
            // Only readiness that the call itself takes: our services are always ready.
            let Ok(()) = std::future::poll_fn(|cx| service.poll_ready(cx)).await;
            service.call(request).await
        }
    })
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
