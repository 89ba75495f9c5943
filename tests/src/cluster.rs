//! Whole clusters in this process, for tests.
//!
//! **Single** is one process with every role on embedded SQLite. **Split** is one process a role: each an [`App`] with a context, a data
//! directory and a mesh listener of its own, which meets the others over loopback with mutual TLS, on PostgreSQL and Redis. Every
//! port is free, the sandbox is the world outside. A test that asks which of the two it is in is a bug: it gets a [`Cluster`] and
//! speaks to its public port.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use invariants::{Journals, World, check_all};
use lastmile::app::Listeners;
use lastmile::config::{At, Peer};
use lastmile::data::DataDir;
use lastmile::{App, Config, Role, ca};
use runtime::Context;
use store::Db;

use crate::servers::{Postgres, Redis};

const READY_WITHIN: Duration = Duration::from_secs(30);
const CERTIFICATE_DAYS: u32 = 2;
/// What every cluster that had a case is judged by. What its clients saw (I2, I8) and whose data they sent (I10) is known to the tests of
/// the contract, which judge by it themselves; I9 is of processes, and here all share one: drills judge it.
const BOOKS: [&str; 5] = ["I1", "I3", "I4", "I5", "I6"];

/// How the roles are spread over processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Every role in one process, on SQLite.
    Single,
    /// A process a role, on PostgreSQL and Redis.
    Split,
}

/// A running cluster. Its directory stays when a test fails.
pub struct Cluster {
    nodes: Vec<Node>,
    place: tempfile::TempDir,
    /// Keep the servers running as long as the cluster.
    _servers: Option<(Postgres, Redis)>,
}

struct Node {
    roles: Vec<Role>,
    app: App,
    context: Context,
    config: Config,
}

/// What a cluster is to be.
pub struct Builder {
    topology: Topology,
    #[expect(clippy::type_complexity, reason = "a list of changes")]
    changes: Vec<Box<dyn Fn(&mut Config) + Send + Sync>>,
}

impl Builder {
    /// Changes the configuration of every process before it is used.
    #[must_use]
    pub fn configure(mut self, change: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Starts every process and waits until all of them are ready.
    pub async fn build(self) -> anyhow::Result<Cluster> {
        let place = tempfile::Builder::new().prefix("lastmile-cluster-").tempdir()?;
        let servers = match self.topology {
            Topology::Single => None,
            Topology::Split => Some(tokio::task::spawn_blocking(|| (Postgres::start(), Redis::start())).await?),
        };
        let mut cluster = Cluster { nodes: Vec::new(), place, _servers: None };
        let base = self.base(cluster.place.path(), servers.as_ref());
        match self.topology {
            Topology::Single => cluster.start(&base, inside(&base), None).await?,
            Topology::Split => Box::pin(self.split(&mut cluster, base)).await?,
        }
        cluster._servers = servers;
        cluster.ready().await?;
        Ok(cluster)
    }

    /// What every process of the cluster has in common.
    fn base(&self, place: &Path, servers: Option<&(Postgres, Redis)>) -> Config {
        let mut config = Config::default();
        for address in [&mut config.listen.public, &mut config.listen.callbacks, &mut config.listen.operations] {
            *address = "127.0.0.1:0".to_owned();
        }
        config.gateway.cores = 1;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        config.catalog.data_dir = root.join("data");
        config.catalog.schemas_dir = root.join("departments/schemas");
        config.adapter.departments_dir = root.join("departments");
        config.sandbox.enabled = true;
        let systems = &mut config.sandbox.systems;
        systems.data_dir = place.join("outside");
        for listen in [
            &mut systems.control.listen,
            &mut systems.wechatpay.listen,
            &mut systems.alipay.listen,
            &mut systems.police_430100.listen,
            &mut systems.police_140100.listen,
        ] {
            *listen = "127.0.0.1:0".to_owned();
        }
        config.identity.sandbox_keys_dir = Some(place.join("clients"));
        if let Some((postgres, redis)) = servers {
            for store in [&mut config.store.identity, &mut config.store.payments, &mut config.store.cases] {
                *store = store::Config {
                    schema: Some(postgres.schema()),
                    // A machine full of tests takes its time to make a connection.
                    acquire_timeout: runtime::config::Duration::from_secs(5),
                    ..store::Config::new(postgres.url())
                };
            }
            config.cache.url = redis.url().to_owned();
            config.cache.prefix = redis.prefix();
        }
        // Bills are asked for when a test says so: a staged fault would meet that call else.
        config.payments.reconcile.days_back = 0;
        self.changes.iter().for_each(|change| change(&mut config));
        config
    }

    /// One process a role. The sandbox is first: where it listens is in the configuration of the others.
    async fn split(&self, cluster: &mut Cluster, mut base: Config) -> anyhow::Result<()> {
        if base.sandbox.enabled {
            cluster.start(&base, vec![Role::Sandbox], None).await?;
            let outside = cluster.sandbox();
            base.sandbox.at = At {
                control: outside.control.to_string(),
                wechatpay: outside.wechatpay.to_string(),
                alipay: outside.alipay.to_string(),
                police_430100: outside.police_430100.to_string(),
                police_140100: outside.police_140100.to_string(),
            };
        }
        base.tls.directory = cluster.place.path().join("tls");
        base.listen.mesh = "127.0.0.1:0".to_owned();
        let context = Context::system();
        let authority = cluster.place.path().join("ca");
        ca::init(&context, &authority)?;
        let inside = Role::ALL.into_iter().filter(|role| *role != Role::Sandbox);
        let mut bound = Vec::new();
        let mut mesh = BTreeMap::new();
        for role in inside {
            ca::issue(&context, &authority, role, ca::days(CERTIFICATE_DAYS), &base.tls.directory.join(role.name()))?;
            let context = Context::system();
            let listeners = Listeners::bind(&context, &base.listen).await?;
            if let Some(listener) = &listeners.mesh {
                let endpoint = format!("https://{}", listener.local_addr());
                mesh.insert(role.name().to_owned(), Peer { endpoint });
            }
            bound.push((role, context, listeners));
        }
        for (role, context, listeners) in bound {
            let mut config = base.clone();
            config.mesh = mesh.clone();
            config.mesh.remove(role.name());
            cluster.start(&config, vec![role], Some((context, listeners))).await?;
        }
        Ok(())
    }
}

/// The roles of a process that has them all: without the world outside where a test wants none.
fn inside(config: &Config) -> Vec<Role> {
    Role::ALL.into_iter().filter(|role| *role != Role::Sandbox || config.sandbox.enabled).collect()
}

impl Cluster {
    /// Starts to describe a cluster.
    pub fn builder(topology: Topology) -> Builder {
        Builder { topology, changes: Vec::new() }
    }

    /// Where the public port is: `http://ip:port`.
    pub fn public(&self) -> String {
        let address = self.nodes.iter().find_map(|node| node.app.addresses().public);
        format!("http://{}", address.expect("a gateway runs"))
    }

    /// Where the simulated systems are.
    pub fn sandbox(&self) -> sandbox::Addresses {
        self.nodes.iter().find_map(|node| node.app.addresses().sandbox).expect("the sandbox runs")
    }

    /// The directory of the sandbox's entry-point and clerk keys.
    pub fn client_keys(&self) -> PathBuf {
        self.place.path().join("clients")
    }

    /// The configuration of the process in which a role runs.
    pub fn config(&self, role: Role) -> &Config {
        &self.node(role).config
    }

    /// The context of the process in which a role runs: its clock, its metrics, its tasks.
    pub fn context(&self, role: Role) -> &Context {
        &self.node(role).context
    }

    /// Where everything of the cluster lies.
    pub fn place(&self) -> &Path {
        self.place.path()
    }

    /// The department's exchanges so far, as the adapter counted them.
    pub fn exchanges(&self) -> u64 {
        counted(&self.context(Role::Adapter).metrics.encode(), "lastmile_adapter_exchange_seconds_count")
    }

    /// Stops every process and holds what ledger, cases, channel and departments wrote down against every invariant.
    ///
    /// Errors: a process that does not drain; a report with a broken invariant.
    pub async fn judge(self) -> anyhow::Result<()> {
        let context = Context::system();
        let journals = Journals::fetch(&self.sandbox().control.to_string(), &context).await?;
        let store = |role| self.config(role).stores().into_iter().find(|(of, _)| *of == role).map(|(_, store)| store);
        let (payments, cases) = (store(Role::Payments), store(Role::Cases));
        let place = self.stop_all().await?;
        let copies = tempfile::tempdir()?;
        let world = World {
            payments: Some(open_stopped(&payments.expect("payments has a store"), copies.path(), &context).await?),
            cases: Some(open_stopped(&cases.expect("cases has a store"), copies.path(), &context).await?),
            journals: Some(journals),
            ..World::at(context.clock.now())
        };
        let report = check_all(&world).await?;
        // A test that opened no case has no books to compare.
        report.require(if report.evidence.cases.facts.is_empty() { &[] } else { &BOOKS })?;
        drop(place);
        Ok(())
    }

    /// Stops every process; a process that does not drain is an error.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop_all().await.map(drop)
    }

    /// Stops every process; their files and servers stay as long as what is returned.
    async fn stop_all(self) -> anyhow::Result<impl Sized> {
        // The door closes first, the outside world last.
        for node in self.nodes.into_iter().rev() {
            anyhow::ensure!(node.app.stop().await, "{:?} did not drain", node.roles);
        }
        Ok((self.place, self._servers))
    }

    /// Stops the process in which a role runs; the others go on.
    pub async fn stop_role(&mut self, role: Role) -> anyhow::Result<()> {
        let index = self.nodes.iter().position(|node| node.roles.contains(&role));
        let node = self.nodes.remove(index.expect("every role runs somewhere"));
        anyhow::ensure!(node.app.stop().await, "{role} did not drain");
        Ok(())
    }

    async fn start(
        &mut self,
        base: &Config,
        roles: Vec<Role>,
        bound: Option<(Context, Listeners)>,
    ) -> anyhow::Result<()> {
        let mut config = base.clone();
        config.data.directory = self.place.path().join(roles.first().map_or("none", |role| role.name()));
        config.serve.roles.clone_from(&roles);
        let mut problems = Vec::new();
        config.validate(&mut problems);
        anyhow::ensure!(problems.is_empty(), "{problems:?}");
        let (context, listeners) = match bound {
            Some(bound) => bound,
            None => {
                let context = Context::system();
                let listeners = Listeners::bind(&context, &config.listen).await?;
                (context, listeners)
            }
        };
        let data = DataDir::open(&config.data.directory)?;
        let app = Box::pin(App::build(&config, context.clone(), data, listeners)).await?;
        self.nodes.push(Node { roles, app, context, config });
        Ok(())
    }

    async fn ready(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            let ready = node.app.ready(READY_WITHIN).await;
            ready.map_err(|missing| anyhow::anyhow!("{:?} is not ready: {}", node.roles, missing.join("; ")))?;
        }
        Ok(())
    }

    fn node(&self, role: Role) -> &Node {
        self.nodes.iter().find(|node| node.roles.contains(&role)).expect("every role runs somewhere")
    }
}

/// The sum of all series of a name, in the text that Prometheus gets.
pub fn counted(metrics: &str, name: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        (series.split('{').next() == Some(name)).then(|| value.parse::<u64>().expect("a count"))
    });
    values.sum()
}

/// Opens what a stopped cluster left. An embedded database belongs to the process that served it, which here is our own, so that it is
/// copied with its write-ahead log.
pub async fn open_stopped(config: &store::Config, into: &Path, context: &Context) -> anyhow::Result<Db> {
    // Whoever judges has time, also where a busy machine is slow to open a file.
    let patience = runtime::config::Duration::from_secs(10);
    let mut config = store::Config { acquire_timeout: patience, writer_timeout: patience, ..config.clone() };
    if let Some(path) = config.url.strip_prefix("sqlite:").map(PathBuf::from) {
        let name = path.file_name().ok_or_else(|| anyhow::anyhow!("{} is no file", path.display()))?;
        let copy = into.join(name);
        std::fs::copy(&path, &copy)?;
        let log = |path: &Path| PathBuf::from(format!("{}-wal", path.display()));
        if log(&path).exists() {
            std::fs::copy(log(&path), log(&copy))?;
        }
        config.url = format!("sqlite:{}", copy.display());
    }
    Ok(store::open(&config, context.clone()).await?)
}

/// Runs a test on both topologies, side by side, and judges every invariant at its end.
///
/// Shape: a failure names the topology and the directory that is left for a look.
pub fn on_both(test: impl AsyncFn(&Cluster) -> anyhow::Result<()> + Sync) {
    on_both_with(|_| {}, test);
}

/// The same with another configuration.
pub fn on_both_with(
    configure: impl Fn(&mut Config) + Clone + Send + Sync + 'static,
    test: impl AsyncFn(&Cluster) -> anyhow::Result<()> + Sync,
) {
    std::thread::scope(|scope| {
        let topologies = [Topology::Single, Topology::Split];
        let running = topologies.map(|topology| {
            scope.spawn({
                let (test, builder) = (&test, Cluster::builder(topology).configure(configure.clone()));
                move || on(builder, test)
            })
        });
        for run in running {
            run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

/// Runs a test on one cluster, and judges every invariant at its end.
pub fn on(builder: Builder, test: impl AsyncFn(&Cluster) -> anyhow::Result<()>) {
    let topology = builder.topology;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let cluster = Box::pin(builder.build()).await;
        let mut cluster = cluster.unwrap_or_else(|error| panic!("{topology:?} does not start: {error:?}"));
        cluster.place.disable_cleanup(true);
        let outcome = test(&cluster).await;
        let place = cluster.place.path().to_owned();
        let outcome = match outcome {
            Ok(()) => cluster.judge().await,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            panic!("on {topology:?}, with what it left in {}: {error:?}", place.display());
        }
        // What cannot be removed is in the way of nobody.
        let _ = std::fs::remove_dir_all(place);
    });
}
