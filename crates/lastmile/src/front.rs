//! The public listener's service: the gateway's proxy, and beside it the standard services, which belong to every server.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Request};
use rpc::stack::{Authenticate, Door, Refused, Response, Server, ServerOptions};
use rpc::{Contract, Peer, Principal};
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use tower::Service;

/// grpc.health.v1 and the reflection services; nothing else of `grpc.` is served.
const STANDARD: &str = "/grpc.";

/// What one core serves on the public listener.
#[derive(Clone)]
pub(crate) struct Front {
    proxy: gateway::Proxy,
    standard: Server,
}

impl Front {
    pub(crate) fn new(proxy: gateway::Proxy, standard: Server) -> Self {
        Self { proxy, standard }
    }
}

/// Health and reflection for strangers, and what tells the health.
pub(crate) async fn standard(context: &runtime::Context) -> anyhow::Result<(Server, HealthReporter)> {
    let (routes, reporter) = rpc::standard(Routes::default()).await?;
    let contract = Contract::lastmile().context("the contract")?;
    let door = Door::Custom(Arc::new(Stranger));
    Ok((rpc::stack::server(routes, door, contract, context, &ServerOptions::default()), reporter))
}

/// Nobody is asked who they are: what stands behind this door is for everybody.
struct Stranger;

impl Authenticate for Stranger {
    fn authenticate(&self, _: &HeaderMap, _: Option<&Peer>) -> Result<Principal, Refused> {
        Ok(Principal::Anonymous)
    }
}

impl Service<Request<rpc::Inbound>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<rpc::Inbound>) -> Self::Future {
        if request.uri().path().starts_with(STANDARD) {
            let server = self.standard.clone();
            return Box::pin(async move { Ok(server.handle(request.map(tonic::body::Body::new)).await) });
        }
        self.proxy.call(request)
    }
}
