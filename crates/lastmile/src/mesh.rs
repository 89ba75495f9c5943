//! The mesh listener: what other processes call, over mutual TLS.
//!
//! One listener serves every role of the process. The path says which role a call is for, and for adapters the wire says which profile;
//! the stack of that role decides the rest. grpc.health.v1 and reflection answer for the process.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Request};
use rpc::stack::{Door, Response, Server, ServerOptions};
use rpc::tls::ServerIdentity;
use rpc::{Contract, MESH_KEY, Trust};
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use tower::Service;

use crate::config::Tls;
use crate::{Role, site};

/// The servers of a process by mesh key.
#[derive(Clone, Default)]
pub(crate) struct Servers(BTreeMap<String, Server>);

impl Servers {
    pub(crate) fn add(&mut self, key: &str, server: Server) {
        self.0.insert(key.to_owned(), server);
    }
}

/// Hands each call to the server that it is for.
#[derive(Clone)]
pub(crate) struct MeshService(Arc<Shared>);

struct Shared {
    servers: BTreeMap<String, Server>,
    standard: Server,
}

impl Shared {
    fn server(&self, path: &str, headers: &HeaderMap) -> &Server {
        let named = headers.get(MESH_KEY).and_then(|key| key.to_str().ok());
        let found = match role_of_path(path) {
            // Only an adapter's path says nothing of the profile.
            Some(Role::Adapter) => named.and_then(|key| self.servers.get(key)).or_else(|| self.only_adapter()),
            Some(role) => self.servers.get(role.name()),
            None => None,
        };
        found.unwrap_or(&self.standard)
    }

    /// The adapter that is meant when there is one only.
    fn only_adapter(&self) -> Option<&Server> {
        let mut adapters = self.servers.iter().filter(|(key, _)| key.starts_with(Role::Adapter.name()));
        let (_, server) = adapters.next()?;
        adapters.next().is_none().then_some(server)
    }
}

/// The role that serves a method, by the package in its path.
fn role_of_path(path: &str) -> Option<Role> {
    let package = path.strip_prefix("/lastmile.")?;
    match package.split('.').next()? {
        "identity" => Some(Role::Identity),
        "catalog" => Some(Role::Catalog),
        "payments" => Some(Role::Payments),
        "cases" => Some(Role::Cases),
        "department" => Some(Role::Adapter),
        _ => None,
    }
}

impl Service<Request<rpc::Inbound>> for MeshService {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<rpc::Inbound>) -> Self::Future {
        let server = self.0.server(request.uri().path(), request.headers()).clone();
        let answer = async move { Ok(server.handle(request.map(tonic::body::Body::new)).await) };
        Box::pin(answer)
    }
}

/// Who is trusted on the mesh listener: whoever shows a certificate of the internal CA.
pub(crate) fn trust(tls: &Tls, roles: &[Role]) -> anyhow::Result<Trust> {
    let pems = roles.iter().map(|role| Ok(((*role).into(), site::pem(tls, *role)?)));
    let pems: Vec<_> = pems.collect::<anyhow::Result<_>>()?;
    Ok(Trust::Mutual(ServerIdentity::mutual_for(&pems)?))
}

/// The service of the mesh listener, and what tells its health.
pub(crate) async fn service(
    servers: Servers,
    context: &runtime::Context,
) -> anyhow::Result<(MeshService, HealthReporter)> {
    let (routes, reporter) = rpc::standard(Routes::default()).await?;
    let contract = Contract::lastmile().context("the contract")?;
    let standard = rpc::stack::server(routes, Door::Mesh, contract, context, &ServerOptions::default());
    Ok((MeshService(Arc::new(Shared { servers: servers.0, standard })), reporter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_whose_it_is() {
        let role = |path| role_of_path(path).map(Role::name);
        assert_eq!(role("/lastmile.cases.v1.CaseService/OpenCase"), Some("cases"));
        assert_eq!(role("/lastmile.department.v1.DepartmentService/Query"), Some("adapter"));
        assert_eq!(role("/grpc.health.v1.Health/Check"), None);
        assert_eq!(role("/lastmile.audit.v1.AuditService/GetCheckpoint"), None);
    }
}
