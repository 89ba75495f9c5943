//! The wire between roles.
//!
//! One type, whether the peer is in this process or across a network: generated clients run on it unchanged, and no service knows
//! which it has. A wire never fails: what goes wrong on the way is a gRPC status with ErrorInfo, like any other answer.

mod local;
mod mesh;
mod remote;

pub use mesh::{Mesh, MeshError};
pub use remote::RemoteOptions;

pub(crate) use local::Local;
pub(crate) use remote::Remote;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::runtime::Handle as RuntimeHandle;
use tower::Service;

use crate::role::Role;
use crate::stack::chain::{Answering, Boxed, Request, Response};
use crate::stack::{self, ClientOptions, Server};

/// Names the mesh key that a call is for, so that one listener can serve several profiles. It is no proof of anything: what a
/// profile may do for a caller is in the assertion.
pub const MESH_KEY: http::HeaderName = http::HeaderName::from_static("lastmile-mesh-key");

/// A way to a peer. Clone it freely; clones share connections, breaker and limits.
///
/// Shape: `http::Request<tonic::body::Body>` → `http::Response<tonic::body::Body>`, infallible.
/// Errors: PEER_UNAVAILABLE (with its effect), DEADLINE_EXCEEDED, and what the peer answers.
#[derive(Clone)]
pub struct Wire {
    client: Boxed,
    name: Arc<str>,
}

impl Wire {
    /// A wire to a server in this process, for calls in the name of `caller`.
    ///
    /// Shape: with a `runtime` every call is handed to it, so that no service work runs on the caller's thread, and its answer comes back
    /// over a channel; without one (in a simulation) the call runs where it is awaited. Either way the server sees a request without
    /// extensions and the caller's role as its principal, exactly as over a network.
    pub fn local(
        name: &str,
        server: Server,
        runtime: Option<RuntimeHandle>,
        caller: Role,
        context: &runtime::Context,
        options: &ClientOptions,
    ) -> Self {
        Self::over(name, Arc::new(Local::new(server, runtime, caller)), context, options)
    }

    /// A wire to a server at `address` ("host:port"), over HTTP/2 connections of the context's network.
    ///
    /// Shape: connections are made when first needed, kept alive while idle, replaced with jitter when old, and retried with backoff.
    pub fn remote(
        name: &str,
        address: &str,
        tls: Option<crate::tls::ClientIdentity>,
        context: &runtime::Context,
        remote: RemoteOptions,
        options: &ClientOptions,
    ) -> Self {
        Self::over(name, Arc::new(Remote::new(name, address, tls, context, remote)), context, options)
    }

    pub(crate) fn over(
        name: &str,
        transport: Arc<dyn Transport>,
        context: &runtime::Context,
        options: &ClientOptions,
    ) -> Self {
        Self { client: stack::client(name, transport, context, options), name: name.into() }
    }

    /// Sends one request. The same as the tower service, without its ceremony.
    pub fn send(&self, request: Request) -> BoxFuture<'static, Response> {
        self.client.call(request)
    }

    /// The name of the peer: its mesh key.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wire({})", self.name)
    }
}

impl Service<Request> for Wire {
    type Response = Response;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Service::call(&mut self.client, request)
    }
}

/// What a transport tells while a call is on its way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flight(Arc<AtomicBool>);

impl Flight {
    /// From here on the peer may act. Returns whether it might before, for [`Flight::come_back`].
    pub(crate) fn leave(&self) -> bool {
        self.0.swap(true, Ordering::SeqCst)
    }

    /// The request came back unsent: all is as it was `before`, which an earlier try may have made uncertain.
    pub(crate) fn come_back(&self, before: bool) {
        self.0.store(before, Ordering::SeqCst);
    }

    /// What may have happened when nobody answers any more.
    pub(crate) fn effect(&self) -> crate::Effect {
        if self.0.load(Ordering::SeqCst) { crate::Effect::Possible } else { crate::Effect::None }
    }
}

/// What moves one request to the peer and its answer back.
pub(crate) trait Transport: Send + Sync {
    /// Shape: the answer's extensions are empty, and the body of a unary answer is whole.
    fn send<'a>(&'a self, request: Request, streaming: bool, flight: &'a Flight) -> BoxFuture<'a, Answer>;
}

/// An answer, and whether it was the wire that had to make it.
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// True when the peer could not be reached or broke off: the breaker counts these.
    pub(crate) failed: bool,
}

/// Longest unary answer, in bytes: a message of 4 MiB in its frame.
pub(crate) const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024 + 5;
