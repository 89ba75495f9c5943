//! What stands around every call, on both sides.
//!
//! The server's stack goes on the routes, not on a transport, so that a call over a local wire and one over a network meet the same
//! steps. Each line below is one step; the order is the meaning. ARCHITECTURE.md has the same table.

pub(crate) mod chain;

mod access;
mod authn;
mod breaker;
mod budget;
mod catch_panic;
mod deadline;
mod elements;
mod inject;
mod observe;
mod request_id;
mod retry;
mod shed;
mod strip;

pub use authn::{Authenticate, Door, Refused};
pub use breaker::BreakerOptions;
pub use chain::{Answering, Request, Response};
pub use deadline::{timeout_header, timeout_of};
pub use retry::{Idempotent, RetryOptions};

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;

use crate::contract::Contract;
use crate::wire::Transport;
use chain::{Boxed, Innermost, steps};

/// What a server's stack allows. Units: as the types say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Longest that a unary call may take, whatever its caller asks for.
    pub call_timeout_max: Duration,
    /// Longest life of an answer that streams; each draws its own, up to 10 % less.
    pub stream_age_max: Duration,
    /// Calls at once, streams not counted after their answer began; one more is refused with OVERLOADED.
    pub calls_max: usize,
    /// Longest request message, in bytes.
    pub request_bytes_max: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            call_timeout_max: Duration::from_secs(30),
            stream_age_max: Duration::from_secs(15 * 60),
            calls_max: 1_024,
            request_bytes_max: 1024 * 1024,
        }
    }
}

/// What a client's stack allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// For a call that neither names a deadline nor runs inside a call that has one.
    pub call_timeout: Duration,
    /// What a hop keeps for itself of the time that is left.
    pub hop_cost: Duration,
    /// When a wire stops trying.
    pub breaker: BreakerOptions,
    /// Retries, of requests that are marked [`Idempotent`]. A mesh gives them to the gateway's wires alone: one layer retries.
    pub retry: Option<RetryOptions>,
    /// What the calls are counted as: `public` for those that carry a request of the public port on, `internal` for all others.
    pub traffic: &'static str,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(10),
            hop_cost: Duration::from_millis(5),
            breaker: BreakerOptions::default(),
            retry: None,
            traffic: "internal",
        }
    }
}

/// Services with their stack around them: what a local wire calls and what an accept loop serves. Cheap to clone.
#[derive(Clone)]
pub struct Server(Boxed);

/// Puts the server stack around routes.
///
/// Shape: `door` says how callers are told apart; the mesh's own ([`Door::Mesh`]) takes the role that the transport proved.
pub fn server(
    routes: Routes,
    door: Door,
    contract: &'static Contract,
    context: &runtime::Context,
    options: &ServerOptions,
) -> Server {
    let observe = observe::Observe::server(contract, &context.metrics);
    let deadline = deadline::Deadline::new(contract, context.ids.clone(), options);
    let chain = steps()
        // Outermost, so that no panic of anything below unwinds into a local caller or ends a connection with other calls on it.
        .layer(catch_panic::CatchPanic)
        // Before anything looks at the request: what a network would not carry is gone, only the transport's word on the peer stays.
        .layer(strip::Strip)
        // Sees every call with its final code, refused ones too, and continues the caller's trace.
        .layer(observe)
        // Before the first step that can refuse, so that every refusal carries an id.
        .layer(request_id::RequestId::new(context.ids.clone()))
        // Bounds all that follows; work whose time is over is not begun.
        .layer(deadline)
        // Who is calling. From the transport or a verified token, never from a plain header.
        .layer(authn::Authn::new(door))
        // Whether that caller may call this method at all; before the handler can tell whether anything exists.
        .layer(access::AccessTable::new(contract))
        // Only calls that may run count against the limit; beyond it they are refused at once, not queued.
        .layer(shed::Shed::new(options.calls_max))
        // Innermost: the body is looked at only for calls that will be served, and before the decoder allocates for it.
        .layer(elements::Elements::new(contract, options.request_bytes_max))
        .over(Innermost(routes.prepare()));
    Server(Boxed::new(chain))
}

/// Puts the client stack around a transport.
pub(crate) fn client(
    name: &str,
    transport: Arc<dyn Transport>,
    context: &runtime::Context,
    options: &ClientOptions,
) -> Boxed {
    let chain = steps()
        // Outermost: the time that is left is one budget for everything below, retries included.
        .layer(budget::Budget::new(options))
        // Around the retries: one call of ours is one measurement, however often it was tried.
        .layer(observe::ObserveClient::new(name, options.traffic, &context.metrics))
        // Around the breaker, so that a retry is a new call to it. Does nothing but on the gateway's wires.
        .layer(retry::Retry::new(options.retry.clone(), context.ids.clone()))
        // Fails fast while the peer is known to be away; one probe finds out when it is back.
        .layer(breaker::Breaker::new(name, options.breaker.clone(), context))
        // Innermost: each try carries its own span and the remaining time as the peer will see it.
        .layer(inject::Inject::new(name))
        .over(inject::Send::new(transport));
    Boxed::new(chain)
}

impl Server {
    /// Answers one request. The same as the tower service, without its ceremony.
    pub fn handle(&self, mut request: Request) -> BoxFuture<'static, Response> {
        http2::Authorization::restore(&mut request);
        self.0.call(request)
    }
}

impl<B> Service<http::Request<B>> for Server
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        http2::Authorization::restore(&mut request);
        Service::call(&mut self.0, request.map(Body::new))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}
