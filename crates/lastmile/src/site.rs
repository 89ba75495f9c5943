//! What the roles of one process are mounted on, and what they leave there: servers, readiness, endpoints.
//!
//! No role knows another: each gets the mesh in its own name. Where a peer is, in this process or elsewhere, is decided here alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Context as _;
use rpc::stack::{ClientOptions, Door, RetryOptions, Server, ServerOptions};
use rpc::tls::{ClientIdentity, RolePem};
use rpc::{Contract, Mesh, Mounted, RemoteOptions};
use runtime::Context;
use store::Db;
use store::cache::Cache;
use tokio::runtime::Handle;
use tonic_health::server::HealthReporter;

use crate::config::{Config, Tls};
use crate::cores::Cores;
use crate::ops::Probe;
use crate::{Role, mesh};

/// The ground on which the roles of a process stand.
pub(crate) struct Site {
    pub(crate) config: Config,
    pub(crate) context: Context,
    pub(crate) probes: Vec<Probe>,
    /// What may be lost: quotas, wake-ups.
    pub(crate) cache: Cache,
    pub(crate) callbacks: Option<axum::Router>,
    /// The callbacks listener's own address, for channels of this machine.
    pub(crate) callbacks_at: SocketAddr,
    pub(crate) servers: mesh::Servers,
    /// Health services of listeners that are already open.
    pub(crate) reporters: Vec<HealthReporter>,
    pub(crate) cores: Option<Cores>,
    /// Where the simulated systems listen, when they run here.
    pub(crate) sandbox: Option<::sandbox::Addresses>,
    contract: &'static Contract,
    mesh: Mesh,
    places: BTreeMap<String, Place>,
    identities: Vec<(Role, ClientIdentity)>,
}

/// Where a mesh key is.
#[derive(Clone)]
enum Place {
    Here(Server),
    There(String),
}

impl Site {
    /// Opens what roles share, and prepares the mesh with the peers of other processes.
    pub(crate) async fn open(config: &Config, context: Context, callbacks_at: SocketAddr) -> anyhow::Result<Self> {
        let config = config.placed();
        let contract = Contract::lastmile().context("the contract")?;
        let identities = identities(&config.tls, &config.roles())?;
        let mesh = Mesh::new(context.clone(), ClientOptions::default(), RemoteOptions::default());
        let cache = Cache::open(&config.cache, &context).await.context("the cache")?;
        let mut site = Self {
            cache,
            probes: Vec::new(),
            callbacks: None,
            callbacks_at,
            servers: mesh::Servers::default(),
            reporters: Vec::new(),
            cores: None,
            sandbox: None,
            contract,
            places: BTreeMap::new(),
            identities,
            mesh,
            config,
            context,
        };
        site.identify(&site.mesh);
        let here = site.config.roles();
        for (key, peer) in site.config.mesh.clone() {
            // One file may serve every process: what runs here is not reached over the network.
            if here.iter().any(|role| role.name() == key) {
                continue;
            }
            let address = peer.address().with_context(|| format!("mesh.{key}.endpoint"))?.to_owned();
            site.place(&key, Place::There(address))?;
        }
        Ok(site)
    }

    /// The mesh in the name of a role.
    pub(crate) fn mesh(&self, role: Role) -> Mesh {
        self.mesh.caller(role.into())
    }

    /// The gateway's wires for one core: connections and breakers of its own, and the only wires that retry.
    pub(crate) fn core_mesh(&self) -> anyhow::Result<Mesh> {
        let options =
            ClientOptions { retry: Some(RetryOptions::default()), traffic: "public", ..ClientOptions::default() };
        let mesh = Mesh::new(self.context.clone(), options, RemoteOptions::default());
        self.identify(&mesh);
        for (key, place) in &self.places {
            bind(&mesh, key, place)?;
        }
        Ok(mesh.caller(rpc::Role::Gateway))
    }

    /// Opens the database of a role.
    pub(crate) async fn db(&self, role: Role) -> anyhow::Result<Db> {
        let stores = self.config.stores();
        let (_, store) = stores.iter().find(|(owner, _)| *owner == role).context("a role without a store")?;
        store::open(store, self.context.clone()).await.with_context(|| format!("store.{role}"))
    }

    /// Takes in what a role mounted: its server under its mesh key, its readiness.
    pub(crate) fn mounted(&mut self, role: Role, mounted: Mounted) -> anyhow::Result<()> {
        self.serve(role.name(), mounted.routes)?;
        self.ready(role, mounted.readiness);
        if mounted.http.is_some() {
            self.callbacks = mounted.http;
        }
        Ok(())
    }

    /// Puts the server's stack around routes and binds them to a mesh key.
    pub(crate) fn serve(&mut self, key: &str, routes: tonic::service::Routes) -> anyhow::Result<()> {
        let options = ServerOptions::default();
        let server = rpc::stack::server(routes, Door::Mesh, self.contract, &self.context, &options);
        self.servers.add(key, server.clone());
        self.place(key, Place::Here(server))
    }

    /// Asks for the readiness of a role from now on.
    pub(crate) fn ready(&mut self, role: Role, readiness: rpc::Readiness) {
        self.probes.push(Probe::new(role.name(), move || readiness.check()));
    }

    fn place(&mut self, key: &str, place: Place) -> anyhow::Result<()> {
        bind(&self.mesh, key, &place)?;
        self.places.insert(key.to_owned(), place);
        Ok(())
    }

    fn identify(&self, mesh: &Mesh) {
        for (role, identity) in &self.identities {
            mesh.identify((*role).into(), identity.clone());
        }
    }
}

fn bind(mesh: &Mesh, key: &str, place: &Place) -> anyhow::Result<()> {
    match place {
        Place::Here(server) => mesh.bind(key, server.clone(), Some(Handle::current()))?,
        Place::There(address) => mesh.bind_remote(key, address)?,
    }
    Ok(())
}

fn identities(tls: &Tls, roles: &[Role]) -> anyhow::Result<Vec<(Role, ClientIdentity)>> {
    if !tls.is_configured() {
        return Ok(Vec::new());
    }
    let identity = |role: &Role| Ok((*role, ClientIdentity::new(&pem(tls, *role)?)?));
    roles.iter().map(identity).collect()
}

/// Reads the three files of a role.
pub(crate) fn pem(tls: &Tls, role: Role) -> anyhow::Result<RolePem> {
    let files = tls.files(role);
    RolePem::read(&files.ca, &files.cert, &files.key).with_context(|| format!("the certificate of {role}"))
}
