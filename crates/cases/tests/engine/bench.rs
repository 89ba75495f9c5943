//! A mesh of fakes around a real cases, on any store, with a life of its own that can be cut short.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cases::{Census, Config, Deps};
use contracts::cases::v1::case_service_client::CaseServiceClient;
use contracts::catalog::v1::catalog_service_server::CatalogServiceServer;
use contracts::department::v1::department_service_server::DepartmentServiceServer;
use contracts::identity::v1::identity_service_server::IdentityServiceServer;
use contracts::payments::v1::payment_service_server::PaymentServiceServer;
use rpc::token::ApplicantDoor;
use rpc::{ClientOptions, Contract, Door, Mesh, RemoteOptions, Role, Server, ServerOptions, Wire, stack};
use runtime::config::Duration as Span;
use runtime::{Clock, Context, Net, Timestamp, crash};
use store::{Cache, Db};
use tempfile::TempDir;
use tonic::service::Routes;

use crate::fakes::catalog::Catalog;
use crate::fakes::department::Department;
use crate::fakes::identity::Identity;
use crate::fakes::payments::Payments;
use crate::fakes::{Script, locked};
use crate::servers::Postgres;

pub(crate) const CHANGSHA: &str = "430100";
pub(crate) const TAIYUAN: &str = "140100";

/// Where cases keeps its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// In memory, inline, under virtual time: the same seed gives the same run.
    Simulated,
    /// In a SQLite file, under real time.
    Sqlite,
    /// On a real server, under real time.
    Postgres,
}

pub(crate) struct Bench {
    pub clock: Clock,
    pub world: Context,
    pub mesh: Mesh,
    pub identity: Identity,
    pub payments: Payments,
    /// Changsha, which recognises a repeated settlement by its key.
    pub changsha: Department,
    /// Taiyuan, which recognises nothing.
    pub taiyuan: Department,
    pub script: Arc<Script>,
    kept: Kept,
    config: Config,
    place: Place,
    host: Mutex<Option<Host>>,
    starts: Mutex<u64>,
    /// Hits of each crash point in all lives so far.
    hits: Mutex<std::collections::BTreeMap<&'static str, u32>>,
    _dir: TempDir,
}

enum Place {
    /// The rows outlive the host.
    Memory(Db),
    /// The host opens them anew, as a process does.
    Disk(store::Config),
    Server {
        _keeps: Postgres,
        config: store::Config,
    },
}

/// One life of cases.
struct Host {
    context: Context,
    points: crash::Points,
    db: Db,
    /// What a crash takes with it: with real threads, the runtime on which everything of this life runs.
    runtime: Option<tokio::runtime::Runtime>,
}

/// Short times, so that everything that can time out does.
fn config(dir: &TempDir) -> Config {
    let mut config = Config { keys_dir: dir.path().join("keys"), ..Config::default() };
    let millis = Span::from_millis;
    let times = &mut config.times;
    times.confirm_within = millis(4_000);
    times.order_within = millis(2_500);
    times.pay_within = millis(30_000);
    times.pay_min = millis(100);
    times.hold_beyond = millis(60_000);
    times.close_within = millis(20_000);
    times.release_within = millis(1_000);
    times.deliver_within = millis(20_000);
    times.settle_within = millis(2_000);
    times.post_within = millis(20_000);
    times.refund_within = millis(20_000);
    times.clerk_within = millis(600);
    times.clerk_recheck = millis(300);
    times.retry_first = millis(20);
    times.retry_max = millis(200);
    times.refresh_first = millis(150);
    times.refresh_max = millis(400);
    times.settle_rest = millis(100);
    config.worker.poll = millis(20);
    config.worker.lease = millis(3_000);
    config.worker.census = millis(500);
    config.calls.department = millis(700);
    config.calls.payments = millis(700);
    config.calls.other = millis(700);
    config.calls.events_wait = millis(500);
    config.watch.poll = millis(50);
    config
}

/// Longer times where time is real and the machine may be busy; only what a way waits for on purpose stays short.
fn unhurried(config: &mut Config) {
    let secs = Span::from_secs;
    config.times.confirm_within = secs(60);
    config.times.order_within = secs(60);
    config.times.pay_within = secs(120);
    config.times.deliver_within = secs(120);
    config.times.settle_within = secs(5);
    config.times.clerk_within = secs(2);
    config.times.close_within = secs(120);
    config.times.post_within = secs(120);
    config.times.refund_within = secs(120);
    config.calls.department = secs(2);
    config.calls.payments = secs(2);
    config.worker.lease = secs(6);
    config.worker.poll = Span::from_millis(50);
    config.watch.poll = Span::from_millis(300);
}

impl Bench {
    pub(crate) async fn new(kept: Kept) -> Self {
        Self::with(kept, 1, |_| {}).await
    }

    pub(crate) async fn with(kept: Kept, seed: u64, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = config(&dir);
        if kept != Kept::Simulated {
            unhurried(&mut config);
        }
        change(&mut config);
        let clock = match kept {
            Kept::Simulated => Clock::simulated(Timestamp::from_micros(1_800_000_000_000_000)),
            Kept::Sqlite | Kept::Postgres => Clock::system(),
        };
        let ids = runtime::Ids::seeded(clock.clone(), seed);
        let world = Context { clock: clock.clone(), ids: ids.clone(), ..Context::system() };
        let options = ClientOptions { call_timeout: Duration::from_secs(2), ..ClientOptions::default() };
        let mesh = Mesh::new(world.clone(), options, RemoteOptions::default());
        let (identity, script) = (Identity::new(clock.clone(), ids), Arc::new(Script::default()));
        let department = |profile, idempotency| {
            let keys = vec![identity.profile_key(profile)];
            let door = ApplicantDoor::new(profile, keys, Arc::new(identity.clone()), &clock);
            let quiet = Duration::from_millis(400);
            Department::new(profile, idempotency, quiet, script.clone(), door, clock.clone())
        };
        let (changsha, taiyuan) = (department("traffic/430100", "key"), department("traffic/140100", "none"));
        let payments = Payments::new(script.clone(), clock.clone());
        let bind = |key: &str, routes: Routes| mesh.bind(key, server(routes, &world), None).expect("a role");
        bind("identity", Routes::new(IdentityServiceServer::new(identity.clone())));
        bind("catalog", Routes::new(CatalogServiceServer::new(Catalog)));
        bind("payments", Routes::new(PaymentServiceServer::new(payments.clone())));
        bind("adapter/traffic/430100", Routes::new(DepartmentServiceServer::new(changsha.clone())));
        bind("adapter/traffic/140100", Routes::new(DepartmentServiceServer::new(taiyuan.clone())));
        let place = match kept {
            Kept::Simulated => Place::Memory(Db::simulated().expect("opens")),
            Kept::Sqlite => Place::Disk(limits(&format!("sqlite:{}", dir.path().join("cases.db").display()))),
            Kept::Postgres => {
                let server = Postgres::start();
                let config = store::Config { schema: Some(server.schema()), ..limits(server.url()) };
                Place::Server { _keeps: server, config }
            }
        };
        let bench = Self {
            clock,
            world,
            mesh,
            identity,
            payments,
            changsha,
            taiyuan,
            script,
            kept,
            config,
            place,
            host: Mutex::default(),
            starts: Mutex::new(seed * 1_000),
            hits: Mutex::default(),
            _dir: dir,
        };
        bench.start(None).await;
        bench
    }

    /// Starts a life of cases, armed with a crash or not.
    pub(crate) async fn start(&self, plan: Option<crash::Plan>) {
        let points = crash::Points::simulated(|_| {});
        if let Some(plan) = plan {
            points.arm(plan);
        }
        let seed = {
            let mut starts = locked(&self.starts);
            *starts += 1;
            *starts
        };
        let runtime = match &self.place {
            Place::Memory(_) => None,
            Place::Disk(_) | Place::Server { .. } => Some(
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime"),
            ),
        };
        let context = Context { clock: self.clock.clone(), ..simulated(&self.clock, seed, &points) };
        let (mounted, db) = match &runtime {
            None => self.mount(context.clone()).await,
            Some(runtime) => {
                // Everything of this life belongs to its runtime: the store's connections, the tasks, the calls that it serves.
                let (bench, task) = (self.parts(), context.clone());
                runtime.spawn(async move { bench.mount(task).await }).await.expect("mounts")
            }
        };
        let handle = runtime.as_ref().map(|runtime| runtime.handle().clone());
        self.mesh.bind("cases", server(mounted.routes, &self.world), handle).expect("a role");
        let alive = points.clone();
        let old = locked(&self.host).replace(Host { context, points, db, runtime });
        assert!(old.is_none(), "one life at a time");
        let deadline = self.clock.now().plus(Duration::from_secs(20));
        // A life may be over before it was ready for anything.
        while mounted.readiness.check().is_err() && !alive.dead() {
            assert!(self.clock.now() < deadline, "not ready: {:?}", mounted.readiness);
            self.clock.sleep(Duration::from_millis(10)).await;
        }
    }

    fn parts(&self) -> Parts {
        let store = match &self.place {
            Place::Memory(db) => Opens::Lend(db.clone()),
            Place::Disk(config) | Place::Server { config, .. } => Opens::Open(config.clone()),
        };
        Parts { store, mesh: self.mesh.clone(), config: self.config.clone() }
    }

    async fn mount(&self, context: Context) -> (rpc::Mounted, Db) {
        self.parts().mount(context).await
    }

    /// How often somebody looks who waits: seldom enough for a machine that does other things beside.
    pub(crate) fn glance(&self) -> Duration {
        match self.kept {
            Kept::Simulated => Duration::from_millis(20),
            Kept::Sqlite | Kept::Postgres => Duration::from_millis(120),
        }
    }

    /// How long a stream may be silent before its host is taken for dead.
    pub(crate) fn silence(&self) -> Duration {
        match self.kept {
            Kept::Simulated => Duration::from_millis(700),
            Kept::Sqlite | Kept::Postgres => Duration::from_secs(3),
        }
    }

    /// Whether the present life has met its crash.
    pub(crate) fn is_dead(&self) -> bool {
        locked(&self.host).as_ref().is_none_or(|host| host.points.dead())
    }

    /// Ends the present life: what was in flight is gone, what was committed stays.
    pub(crate) async fn stop(&self) {
        let host = locked(&self.host).take();
        if let Some(Host { context, points, db, runtime }) = host {
            for (name, count) in points.hits() {
                *locked(&self.hits).entry(name).or_default() += count;
            }
            if runtime.is_some() {
                // The way to the dead life holds its store open as long as it stands.
                self.mesh.bind_remote("cases", "127.0.0.1:1").expect("a role");
            }
            context.tasks.abort();
            if !points.dead() {
                context.tasks.wait(Duration::from_secs(5)).await;
            }
            drop(db);
            if let Some(runtime) = runtime {
                runtime.shutdown_background();
            }
        }
    }

    pub(crate) async fn restart(&self, plan: Option<crash::Plan>) {
        self.stop().await;
        self.start(plan).await;
    }

    /// How often each crash point was reached, in all lives.
    pub(crate) fn hits(&self) -> std::collections::BTreeMap<&'static str, u32> {
        let mut hits = locked(&self.hits).clone();
        if let Some(host) = locked(&self.host).as_ref() {
            for (name, count) in host.points.hits() {
                *hits.entry(name).or_default() += count;
            }
        }
        hits
    }

    /// The database of the present life.
    pub(crate) fn db(&self) -> Db {
        locked(&self.host).as_ref().map(|host| host.db.clone()).expect("alive")
    }

    pub(crate) async fn census(&self) -> Census {
        cases::census(&self.db(), self.clock.now(), Duration::from_secs(6)).await.expect("counts")
    }

    /// What `/metrics` of the present life says.
    pub(crate) fn metrics(&self) -> String {
        locked(&self.host).as_ref().map(|host| host.context.metrics.encode()).unwrap_or_default()
    }

    pub(crate) fn client(&self) -> CaseServiceClient<Wire> {
        CaseServiceClient::new(self.mesh.caller(Role::Gateway).wire("cases"))
    }

    pub(crate) fn department(&self, region: &str) -> &Department {
        if region == TAIYUAN { &self.taiyuan } else { &self.changsha }
    }
}

/// What a life is made of; sent to the runtime that it will live on.
struct Parts {
    store: Opens,
    mesh: Mesh,
    config: Config,
}

enum Opens {
    Lend(Db),
    Open(store::Config),
}

impl Parts {
    async fn mount(self, context: Context) -> (rpc::Mounted, Db) {
        let db = match self.store {
            Opens::Lend(db) => db.with_context(context.clone()),
            Opens::Open(config) => open(&config, &context).await,
        };
        let cache = Cache::memory(&store::cache::Config::default(), &context);
        let deps = Deps { context, db: db.clone(), cache, mesh: self.mesh, keyring_file: None };
        (cases::mount(self.config, deps).await.expect("mounts"), db)
    }
}

/// Opens the store; the life before may still be letting go of it.
async fn open(config: &store::Config, context: &Context) -> Db {
    let deadline = context.clock.now().plus(Duration::from_secs(20));
    loop {
        match store::open(config, context.clone()).await {
            Ok(db) => return db,
            Err(error) => assert!(context.clock.now() < deadline, "does not open: {error}"),
        }
        context.clock.sleep(Duration::from_millis(20)).await;
    }
}

fn simulated(clock: &Clock, seed: u64, points: &crash::Points) -> Context {
    let context = Context::simulated(clock.now(), seed, Net::system(), points.clone());
    Context { ids: runtime::Ids::seeded(clock.clone(), seed), ..context }
}

fn server(routes: Routes, context: &Context) -> Server {
    let contract = Contract::lastmile().expect("the contract reads");
    stack::server(routes, Door::Mesh, contract, context, &ServerOptions::default())
}

/// Limits of a machine that runs other tests beside this one.
fn limits(url: &str) -> store::Config {
    store::Config {
        acquire_timeout: Span::from_secs(5),
        writer_timeout: Span::from_secs(5),
        statement_timeout: Span::from_secs(10),
        ..store::Config::new(url)
    }
}
