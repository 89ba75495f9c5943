//! Every role's own listener, as it is served: who meets it with a certificate finds out whether it is well, and what it speaks.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use lastmile::Role;
use lastmile_tests::{Cluster, Topology};
use rpc::tls::{ClientIdentity, RolePem};
use rpc::{ClientOptions, RemoteOptions, Wire};
use runtime::Context;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::contract::{reflected_v1, reflected_v1alpha};

/// A role, and another of whose certificate it is asked under.
const ROLES: [(Role, Role); 6] = [
    (Role::Identity, Role::Cases),
    (Role::Catalog, Role::Gateway),
    (Role::Payments, Role::Adapter),
    (Role::Adapter, Role::Payments),
    (Role::Cases, Role::Catalog),
    (Role::Gateway, Role::Identity),
];

#[test]
fn every_role_is_asked_for_its_health_and_its_services() {
    assert_eq!(ROLES.len() + 1, Role::ALL.len(), "the world outside has no listener of the mesh, everybody else has");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let cluster = Box::pin(Cluster::builder(Topology::Split).build()).await.expect("a cluster");
        for (role, caller) in ROLES {
            asked(&cluster, role, caller).await.with_context(|| role.name()).expect("answers");
        }
        cluster.stop().await.expect("stops");
    });
}

async fn asked(cluster: &Cluster, role: Role, caller: Role) -> anyhow::Result<()> {
    let config = cluster.config(caller);
    let peer = config.mesh.get(role.name()).context("a peer")?;
    let address = peer.endpoint.strip_prefix("https://").context("TLS")?;
    let files = config.tls.files(caller);
    let identity = ClientIdentity::new(&RolePem::read(&files.ca, &files.cert, &files.key)?)?;
    let context = Context::system();
    let wire = |identity: Option<ClientIdentity>| {
        let (remote, client) = (RemoteOptions::default(), ClientOptions::default());
        Wire::remote(role.name(), address, identity, &context, remote, &client)
    };
    let trusted = wire(Some(identity));
    let mut health = HealthClient::new(trusted.clone());
    let check = HealthCheckRequest { service: String::new() };
    // What is ready is told at the next look.
    let serves = async {
        while health.check(check.clone()).await?.into_inner().status() != ServingStatus::Serving {
            context.clock.sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    context.clock.timeout(Duration::from_secs(20), serves).await.context("it does not serve")??;
    let services = reflected_v1(trusted.clone()).await;
    for service in
        ["lastmile.cases.v1.CaseService", "lastmile.department.v1.DepartmentService", "grpc.health.v1.Health"]
    {
        ensure!(services.iter().any(|known| known == service), "{services:?}");
    }
    ensure!(reflected_v1alpha(trusted).await == services, "older clients see the same");
    let stranger = HealthClient::new(wire(None)).check(check).await;
    ensure!(stranger.is_err(), "it answers whoever has no certificate");
    context.tasks.abort();
    Ok(())
}
