//! The hosts: one a role, each running what the process of that role runs, on the simulated network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use adapter::Endpoint;
use anyhow::Context as _;
use contracts::common::v1::Role;
use lastmile_tests::simulation::{context, listen};
use payments::channel::wechatpay;
use payments::config::{Channels, Credentials, Merchant, Payee};
use rpc::jose::SigningKey;
use rpc::keyring::{KeyRing, Options, OwnKey};
use rpc::stack::{Door, RetryOptions, ServerOptions};
use rpc::{ClientOptions, Contract, Limits, Mesh, Mounted, RemoteOptions, Trust};
use runtime::config::Duration as Span;
use runtime::{Context, crash};
use store::Db;
use store::cache::{self, Cache};

/// Where roles listen for each other.
const MESH: u16 = 7_000;
/// Where the gateway listens for everybody.
pub(crate) const PUBLIC: u16 = 7_443;
/// Where payments listens for the channel.
const CALLBACKS: u16 = 7_444;
/// The merchants of the simulated WeChat Pay, with whom they collect for.
pub(crate) const MERCHANTS: [(&str, &str); 2] =
    [("1900430100", "treasury-430100-traffic"), ("1900140100", "treasury-140100-traffic")];
const APP: &str = "wx5a4db0c5a4db0c51";

/// A machine of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Host {
    Sandbox,
    Identity,
    Catalog,
    Payments,
    Changsha,
    Taiyuan,
    Cases,
    Gateway,
}

impl Host {
    pub(crate) const ALL: [Self; 8] = [
        Self::Sandbox,
        Self::Identity,
        Self::Catalog,
        Self::Payments,
        Self::Changsha,
        Self::Taiyuan,
        Self::Cases,
        Self::Gateway,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Identity => "identity",
            Self::Catalog => "catalog",
            Self::Payments => "payments",
            Self::Changsha => "changsha",
            Self::Taiyuan => "taiyuan",
            Self::Cases => "cases",
            Self::Gateway => "gateway",
        }
    }

    /// The role on it, the mesh key under which others find it, and the points at which it may be made to die.
    const fn part(self) -> (Role, &'static str, &'static [&'static str]) {
        match self {
            Self::Sandbox => (Role::Sandbox, "sandbox", &[]),
            Self::Identity => (Role::Identity, "identity", &[]),
            Self::Catalog => (Role::Catalog, "catalog", &[]),
            Self::Payments => (Role::Payments, "payments", payments::CRASH_POINTS),
            Self::Changsha => (Role::Adapter, "adapter/traffic/430100", adapter::CRASH_POINTS),
            Self::Taiyuan => (Role::Adapter, "adapter/traffic/140100", adapter::CRASH_POINTS),
            Self::Cases => (Role::Cases, "cases", cases::CRASH_POINTS),
            Self::Gateway => (Role::Gateway, "gateway", &[]),
        }
    }

    /// Where it may be made to die, besides everywhere.
    pub(crate) const fn crash_points(self) -> &'static [&'static str] {
        self.part().2
    }
}

/// What outlives the hosts: their disks, and what the simulation holds of them.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) seed: u64,
    /// The hosts' files: a folder each.
    pub(crate) place: Arc<Path>,
    /// The keys of the simulated WeChat Pay; no seed makes an RSA key, so they are made before.
    pub(crate) wechat_keys: Arc<Path>,
    pub(crate) identity: Db,
    pub(crate) payments: Db,
    pub(crate) cases: Db,
    pub(crate) journals: sandbox::Memory,
    /// The board of staged faults of the sandbox's present life.
    faults: Arc<Mutex<Option<sandbox::Faults>>>,
}

impl Ground {
    pub(crate) fn new(seed: u64, place: &Path, wechat_keys: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            seed,
            place: place.into(),
            wechat_keys: wechat_keys.into(),
            identity: Db::simulated()?,
            payments: Db::simulated()?,
            cases: Db::simulated()?,
            journals: sandbox::Memory::default(),
            faults: Arc::default(),
        })
    }

    /// Does something with the board of staged faults, if the sandbox lives.
    pub(crate) fn faults(&self, act: impl FnOnce(&sandbox::Faults)) {
        if let Some(faults) = self.faults.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            act(faults);
        }
    }

    /// Where the keys of entry points are, which identity makes.
    pub(crate) fn client_keys(&self) -> PathBuf {
        self.place.join("clients")
    }

    fn keys(&self, host: Host) -> anyhow::Result<PathBuf> {
        let keys = self.place.join(host.name());
        runtime::secret::create_private_dir(&keys)?;
        Ok(keys)
    }
}

/// A host as the simulation holds it.
pub(crate) struct Machine {
    pub(crate) host: Host,
    pub(crate) points: crash::Points,
    lives: Arc<AtomicU64>,
}

impl Machine {
    /// Adds a host to the simulation. `died` hears at which point it dies.
    pub(crate) fn start(
        sim: &mut turmoil::Sim<'_>,
        host: Host,
        ground: &Ground,
        died: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        let points = crash::Points::simulated(died);
        let lives = Arc::new(AtomicU64::new(0));
        let (of_host, count, ground) = (points.clone(), lives.clone(), ground.clone());
        sim.host(host.name(), move || {
            let life = count.fetch_add(1, Ordering::SeqCst);
            let (points, ground) = (of_host.clone(), ground.clone());
            async move {
                let lived = live(host, ground, life, points.clone());
                let outcome = points.scope(lived).await;
                outcome.map_err(|error| format!("{}: {error:?}", host.name()).into())
            }
        });
        Self { host, points, lives }
    }

    pub(crate) fn lives(&self) -> u64 {
        self.lives.load(Ordering::SeqCst)
    }
}

/// One seed for each life of each host, so that none repeats what another drew.
fn seed_of(seed: u64, host: Host, life: u64) -> u64 {
    seed.wrapping_mul(1_000_003).wrapping_add((host as u64) * 10_007).wrapping_add(life)
}

/// A life of a host, from its start until its tasks stop.
async fn live(host: Host, ground: Ground, life: u64, points: crash::Points) -> anyhow::Result<()> {
    let context = context(seed_of(ground.seed, host, life), &points);
    match host {
        Host::Sandbox => sandbox(&ground, &context).await?,
        Host::Gateway => gateway(&ground, &context).await?,
        Host::Identity => serve(host, identity(&ground, &context).await?.routes, &context).await?,
        Host::Catalog => serve(host, catalog(&context)?.routes, &context).await?,
        Host::Payments => serve(host, payments(&ground, &context).await?.routes, &context).await?,
        Host::Cases => serve(host, cases(&ground, &context).await?.routes, &context).await?,
        Host::Changsha | Host::Taiyuan => serve(host, adapter(host, &ground, &context)?.routes, &context).await?,
    }
    // A process whose critical task fails goes down, and that is a bug: in a simulation hosts die by its hand alone.
    anyhow::bail!("it stopped by itself: {:?}", context.tasks.failed())
}

/// The mesh as a host sees it: everybody else is across the network.
fn mesh(role: Role, context: &Context, options: ClientOptions) -> anyhow::Result<Mesh> {
    let mesh = Mesh::new(context.clone(), options, RemoteOptions::default()).caller(role);
    for host in Host::ALL.into_iter().filter(|host| !matches!(host, Host::Sandbox | Host::Gateway)) {
        let (_, key, _) = host.part();
        mesh.bind_remote(key, &format!("{}:{MESH}", host.name()))?;
    }
    Ok(mesh)
}

/// Serves a role to the mesh until the host's tasks stop.
async fn serve(host: Host, routes: tonic::service::Routes, context: &Context) -> anyhow::Result<()> {
    let contract = Contract::lastmile().context("the contract")?;
    let server = rpc::stack::server(routes, Door::Mesh, contract, context, &ServerOptions::default());
    let roles = Host::ALL.map(|host| (turmoil::lookup(host.name()), host.part().0));
    let listener = listen(context, MESH).await?;
    let trust = Trust::Addresses(roles.into());
    rpc::serve(listener, trust, server, Limits::default(), context.clone()).await.context(host.name())
}

async fn sandbox(ground: &Ground, context: &Context) -> anyhow::Result<()> {
    let mut config = sandbox::Config::default();
    config.wechatpay.keys_dir = Some(ground.wechat_keys.to_path_buf());
    config.alipay.keys_dir = Some(ground.wechat_keys.join("alipay"));
    for listen in [
        &mut config.control.listen,
        &mut config.wechatpay.listen,
        &mut config.alipay.listen,
        &mut config.police_430100.listen,
        &mut config.police_140100.listen,
    ] {
        *listen = listen.replace("127.0.0.1", "0.0.0.0");
    }
    let place = sandbox::Place::Memory(ground.journals.clone());
    let running = sandbox::start_in(config, context.clone(), place).await?;
    *ground.faults.lock().unwrap_or_else(PoisonError::into_inner) = Some(running.faults().clone());
    context.tasks.token().cancelled().await;
    Ok(())
}

async fn identity(ground: &Ground, context: &Context) -> anyhow::Result<Mounted> {
    let config = identity::Config {
        keys_dir: ground.keys(Host::Identity)?,
        sandbox_keys_dir: Some(ground.client_keys()),
        ..identity::Config::default()
    };
    let mesh = mesh(Role::Identity, context, ClientOptions::default())?;
    let db = ground.identity.with_context(context.clone());
    let cache = Cache::memory(&cache::Config::default(), context);
    Ok(identity::mount(config, identity::Deps { context: context.clone(), db, cache, mesh }).await?)
}

fn catalog(context: &Context) -> anyhow::Result<Mounted> {
    let root = root();
    let config =
        catalog::Config { data_dir: root.join("data"), schemas_dir: root.join("departments/schemas"), sandbox: true };
    Ok(catalog::mount(&config, catalog::Deps { context: context.clone() })?)
}

async fn payments(ground: &Ground, context: &Context) -> anyhow::Result<Mounted> {
    let keys = ground.keys(Host::Payments)?;
    let mut config = payments::Config {
        payees: MERCHANTS.map(|(_, id)| Payee { payee_id: id.to_owned(), name: "交通罚款（演示）".to_owned() }).into(),
        merchants: MERCHANTS.iter().map(|of| merchant(ground, of)).collect::<anyhow::Result<_>>()?,
        channels: Channels::default(),
        payer_key_file: keys.join("payer.key"),
        ..payments::Config::default()
    };
    config.receipts.key_file = keys.join("receipt.key");
    config.settlement.key_file = keys.join("settlement.pem");
    config.channels.wechatpay.base_url = "http://sandbox:7501".to_owned();
    config.channels.wechatpay.notify_base_url = format!("http://payments:{CALLBACKS}");
    config.worker.longest_pause = Span::from_secs(10);
    config.worker.quiet = Span::from_secs(20);
    let mesh = mesh(Role::Payments, context, ClientOptions::default())?;
    let db = ground.payments.with_context(context.clone());
    let ring = KeyRing::start(&mesh, context, Vec::new(), Options::default());
    let deps = payments::Deps { context: context.clone(), db, keys: ring };
    let mut mounted = payments::mount(config, deps).await?;
    let router = mounted.http.take().context("payments takes callbacks")?;
    let (tasks, clock) = (context.tasks.clone(), context.clock.clone());
    let listener = listen(context, CALLBACKS).await?;
    let serving = runtime::http::serve(listener, router, runtime::http::Limits::default(), tasks, clock);
    context.tasks.spawn_critical("callbacks listener", serving);
    Ok(mounted)
}

/// A merchant account, with the keys that the simulated WeChat Pay knows it by.
fn merchant(ground: &Ground, (number, payee): &(&str, &str)) -> anyhow::Result<Merchant> {
    let (own, platform) = (ground.wechat_keys.join(number), ground.wechat_keys.join("platform"));
    let text = |file: PathBuf| anyhow::Ok(std::fs::read_to_string(file)?.trim().to_owned());
    Ok(Merchant {
        entry_point: "wechat".to_owned(),
        payee_id: (*payee).to_owned(),
        app_id: APP.to_owned(),
        mch_id: (*number).to_owned(),
        credentials: Credentials::Wechatpay(wechatpay::Credentials {
            serial: text(own.join("serial_no.txt"))?,
            private_key_file: own.join("private_key.pem"),
            certificate_file: None,
            api_v3_key_file: own.join("apiv3_key.txt"),
            verification: wechatpay::Verification::PublicKey {
                id: text(platform.join("public_key_id.txt"))?,
                id_file: None,
                file: platform.join("public_key.pem"),
            },
        }),
    })
}

fn adapter(host: Host, ground: &Ground, context: &Context) -> anyhow::Result<Mounted> {
    let (profile, endpoint) = match host {
        Host::Taiyuan => ("traffic/140100", "sandbox:7512"),
        _ => ("traffic/430100", "http://sandbox:7511"),
    };
    let endpoint = Endpoint { endpoint: endpoint.to_owned(), sandbox: true, settings: BTreeMap::new() };
    let config = adapter::Config {
        departments_dir: root().join("departments"),
        keys_dir: ground.keys(host)?,
        profiles: [(profile.to_owned(), endpoint)].into(),
    };
    let mesh = mesh(Role::Adapter, context, ClientOptions::default())?;
    let mut departments = adapter::mount(&config, &adapter::Deps { context: context.clone(), mesh })?;
    Ok(departments.pop().context("one profile, one department")?.mounted)
}

async fn cases(ground: &Ground, context: &Context) -> anyhow::Result<Mounted> {
    let keys = ground.keys(Host::Cases)?;
    let mut config = cases::Config { keys_dir: keys.clone(), ..cases::Config::default() };
    let times = &mut config.times;
    // Short against the storm, so that everything that can time out does; what a clerk has stays with the clerk.
    for (time, seconds) in [
        (&mut times.confirm_within, 20),
        (&mut times.order_within, 20),
        (&mut times.pay_within, 90),
        (&mut times.pay_min, 5),
        (&mut times.hold_beyond, 90),
        (&mut times.close_within, 120),
        (&mut times.release_within, 10),
        (&mut times.deliver_within, 30),
        (&mut times.settle_within, 40),
        (&mut times.post_within, 120),
        (&mut times.refund_within, 240),
        (&mut times.clerk_recheck, 20),
        (&mut times.retry_max, 5),
        (&mut times.refresh_first, 2),
        (&mut times.refresh_max, 10),
    ] {
        *time = Span::from_secs(seconds);
    }
    let mesh = mesh(Role::Cases, context, ClientOptions::default())?;
    let deps = cases::Deps {
        context: context.clone(),
        db: ground.cases.with_context(context.clone()),
        cache: Cache::memory(&cache::Config::default(), context),
        mesh,
        keyring_file: Some(keys.join("ring.json")),
    };
    Ok(cases::mount(config, deps).await?)
}

/// The public door with one core, which is all that one thread can have.
async fn gateway(ground: &Ground, context: &Context) -> anyhow::Result<()> {
    let keys = ground.keys(Host::Gateway)?;
    let signer = SigningKey::load_or_create(&keys.join("sign-1.pem"), &context.ids)?;
    let background = mesh(Role::Gateway, context, ClientOptions::default())?;
    let options = Options { file: Some(keys.join("ring.json")), ..Options::default() };
    let own = vec![OwnKey::sign(rpc::role_name(Role::Gateway), &signer)];
    let ring = KeyRing::start(&background, context, own, options);
    let cache = Cache::memory(&cache::Config::default(), context);
    let deps = gateway::Deps { context: context.clone(), mesh: background, keys: ring, signer, cache };
    let gateway = gateway::start(gateway::Config { cores: 1, ..gateway::Config::default() }, deps)?;
    let retrying = ClientOptions { retry: Some(RetryOptions::default()), ..ClientOptions::default() };
    let core = gateway.proxy(mesh(Role::Gateway, context, retrying)?);
    let listener = listen(context, PUBLIC).await?;
    let limits = Limits { http1: true, ..Limits::default() };
    Ok(rpc::serve(listener, Trust::Plain, core, limits, context.clone()).await?)
}

/// The tree, where the data and the profiles are.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
