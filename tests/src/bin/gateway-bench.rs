//! The gateway of one core as `lastmile serve` composes it, before an upstream that only answers: what `bench/gateway` measures.
//!
//! Catalogue, identity and the key ring are the real ones, in this process; the tokens are exchanged, not made up. Every request goes the
//! whole way: token, route, level, quota, place, department assertion with the sealed inner token, deadline. Only the adapter at the end is
//! `--upstream`, plain HTTP/2 of the harness.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use contracts::department::v1::QueryRequest;
use contracts::identity::v1::identity_service_client::IdentityServiceClient;
use lastmile_tests::super_app::ITEM;
use prost::Message;
use rpc::jose::{AgreementKey, AgreementPublicKey, Curve, SigningKey};
use rpc::keyring::{KeyRing, Options, OwnKey};
use rpc::oauth::{Caller, Person};
use rpc::stack::{ClientOptions, Door, RetryOptions, ServerOptions};
use rpc::token::Attributes;
use rpc::{Contract, Limits, Mesh, RemoteOptions, Role, Trust};
use runtime::Context;
use runtime::secret::Pii;
use tokio::runtime::{Builder, Handle};

/// The allocator of the binary that operators run.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROFILE: &str = "traffic/430100";
const REGION: &str = "430100";
const READY_WITHIN: Duration = Duration::from_secs(20);
const LEVEL_FACE: u8 = 4;
/// Bytes of gRPC's prefix: one for the flag, four for the length.
const PREFIX_ZEROS: usize = 1;

#[derive(Debug, Parser)]
#[command(name = "gateway-bench")]
struct Cli {
    /// Where the gateway listens
    #[arg(long, default_value = "127.0.0.1:9140")]
    listen: String,
    /// What stands for the adapter: HTTP/2 without TLS
    #[arg(long, default_value = "127.0.0.1:9002")]
    upstream: String,
    /// How many citizens' tokens are exchanged
    #[arg(long, default_value_t = 10_000)]
    tokens: u32,
    /// Where tokens.txt (one a line), one.jwt and query.bin are written
    #[arg(long)]
    out: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let background = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    background.block_on(serve(cli))
}

async fn serve(cli: Cli) -> anyhow::Result<()> {
    let place = tempfile::tempdir()?;
    let context = Context::system();
    let telemetry = runtime::telemetry::start(&Default::default(), "gateway-bench", &context.metrics)?;
    let contract = Contract::lastmile().context("the contract")?;
    let mesh = Mesh::new(context.clone(), ClientOptions::default(), RemoteOptions::default());
    let retry = ClientOptions { retry: Some(RetryOptions::default()), traffic: "public", ..ClientOptions::default() };
    let core = Mesh::new(context.clone(), retry, RemoteOptions::default());
    let bind = |key: &str, routes| {
        let server = rpc::stack::server(routes, Door::Mesh, contract, &context, &ServerOptions::default());
        mesh.bind(key, server.clone(), Some(Handle::current()))?;
        core.bind(key, server, Some(Handle::current()))
    };

    let data = catalogue(place.path())?;
    let catalog = catalog::Config { data_dir: data, schemas_dir: "departments/schemas".into(), sandbox: false };
    let catalog = catalog::mount(&catalog, catalog::Deps { context: context.clone() })?;
    bind("catalog", catalog.routes)?;
    let keys = place.path().join("clients");
    let mut config = identity::Config {
        sandbox_keys_dir: Some(keys.clone()),
        keys_dir: place.path().join("identity"),
        ..identity::Config::default()
    };
    config.assertion_audiences = Vec::new();
    let store = store::Config::new(format!("sqlite:{}", place.path().join("identity.db").display()));
    let db = store::open(&store, context.clone()).await?;
    let cache = store::cache::Cache::open(&store::cache::Config::default(), &context).await?;
    let deps = identity::Deps { context: context.clone(), db, cache: cache.clone(), mesh: mesh.caller(Role::Identity) };
    let identity = identity::mount(config, deps).await?;
    bind("identity", identity.routes)?;
    // The profile's keys are registered as its adapter would do it: tokens are sealed for it.
    let endpoint =
        adapter::Endpoint { endpoint: "http://127.0.0.1:9".into(), sandbox: true, settings: Default::default() };
    let profiles = adapter::Config {
        departments_dir: "departments".into(),
        keys_dir: place.path().join("adapter"),
        profiles: [(PROFILE.to_owned(), endpoint)].into(),
    };
    fs::create_dir_all(&profiles.keys_dir)?;
    let departments =
        adapter::mount(&profiles, &adapter::Deps { context: context.clone(), mesh: mesh.caller(Role::Adapter) })?;
    core.bind_remote(&format!("adapter/{PROFILE}"), &cli.upstream)?;

    let signer = SigningKey::generate(&context.ids)?;
    let own = vec![OwnKey::sign(rpc::role_name(Role::Gateway), &signer)];
    let ring = KeyRing::start(&mesh.caller(Role::Gateway), &context, own, Options::default());
    // What identity seals for cases in every citizen's token.
    let (sign, open) = (SigningKey::generate(&context.ids)?, AgreementKey::generate(Curve::X25519, &context.ids)?);
    let cases = rpc::role_name(Role::Cases);
    let own = vec![OwnKey::sign(cases, &sign), OwnKey::seal(cases, &open)];
    let cases = KeyRing::start(&mesh.caller(Role::Cases), &context, own, Options::default());
    cases.registered(READY_WITHIN).await.context("the keys of cases")?;
    let deps =
        gateway::Deps { context: context.clone(), mesh: mesh.caller(Role::Gateway), keys: ring.clone(), signer, cache };
    let gateway = gateway::start(gateway::Config::default(), deps)?;
    let ready = async {
        while gateway.readiness().check().is_err()
            || departments.iter().any(|one| one.mounted.readiness.check().is_err())
        {
            context.clock.sleep(Duration::from_millis(10)).await;
        }
    };
    context.clock.timeout(READY_WITHIN, ready).await.context("not ready")?;
    ring.read_anew(READY_WITHIN).await.context("the key list")?;

    let seal = ring.seal_key("identity").context("identity has no key to seal for")?;
    let tokens = exchange(&cli, &context, &mesh, &keys, &seal).await?;
    fs::write(cli.out.join("tokens.txt"), tokens.join("\n"))?;
    fs::write(cli.out.join("one.jwt"), &tokens[0])?;
    fs::write(cli.out.join("query.bin"), query()?)?;

    let proxy = gateway.proxy(core.caller(Role::Gateway));
    let serving = context.clone();
    let thread = std::thread::Builder::new().name("gateway-0".to_owned()).spawn(move || {
        Builder::new_current_thread().enable_all().build()?.block_on(async {
            let listener = serving.net.bind(&cli.listen).await?;
            writeln!(std::io::stdout(), "ready {}", listener.local_addr())?;
            rpc::with_beat(rpc::serve(listener, Trust::Plain, proxy, Limits::default(), serving.clone())).await
        })
    })?;
    tokio::signal::ctrl_c().await?;
    context.tasks.abort();
    thread.join().map_err(|_| anyhow::anyhow!("the data path panicked"))?.context("the data path")?;
    telemetry.shutdown().await;
    Ok(())
}

/// The project's catalogue, with a quota to count and as many places as the load needs.
fn catalogue(place: &Path) -> anyhow::Result<PathBuf> {
    let data = place.join("data");
    fs::create_dir_all(data.join("catalog"))?;
    for (from, to) in [("data", data.clone()), ("data/catalog", data.join("catalog"))] {
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            if path.is_file() {
                fs::copy(&path, to.join(path.file_name().context("a file")?))?;
            }
        }
    }
    let adapters = data.join("catalog/adapters.yaml");
    let text = fs::read_to_string(&adapters)?;
    let changed = text
        .replace("concurrency_max: 64", "concurrency_max: 4096")
        .replace("quota_per_minute: 0", "quota_per_minute: 2000000000");
    ensure!(changed != text, "the catalogue has other limits than this bench knows");
    fs::write(&adapters, changed)?;
    Ok(data)
}

async fn exchange(
    cli: &Cli,
    context: &Context,
    mesh: &Mesh,
    keys: &Path,
    seal: &AgreementPublicKey,
) -> anyhow::Result<Vec<String>> {
    let key = SigningKey::from_pem(&fs::read_to_string(keys.join("wechat.pem"))?)?;
    let caller = Caller::new("wechat", key, context.clock.clone(), context.ids.clone());
    let identity = IdentityServiceClient::new(mesh.caller(Role::Gateway).wire("identity"));
    let mut tokens = Vec::new();
    for number in 0..cli.tokens {
        let attributes = Attributes {
            name: Some(Pii::new("张三".to_owned())),
            doc_type: Some("resident_id".to_owned()),
            doc_no: Some(Pii::new(document(number))),
            ..Attributes::default()
        };
        let person =
            Person { sub: format!("bench-{number}"), level: LEVEL_FACE, consents: vec![ITEM.to_owned()], attributes };
        let answer = identity.clone().issue_token(caller.citizen_token(&person, &[PROFILE], seal)?).await?;
        tokens.push(answer.into_inner().access_token);
    }
    Ok(tokens)
}

/// A fictitious resident identity number with its check character (GB 11643).
fn document(number: u32) -> String {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let day = number / 999;
    let digits =
        format!("430102{}{:02}{:02}{:03}", 1950 + day / 336, day / 28 % 12 + 1, day % 28 + 1, number % 999 + 1);
    let sum: u32 = digits.bytes().zip(WEIGHTS).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    let check = b"10X98765432"[(sum % 11) as usize] as char;
    format!("{digits}{check}")
}

/// A query as it stands on the wire: gRPC's prefix, then the message.
fn query() -> anyhow::Result<Vec<u8>> {
    let text = |text: &str| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.to_owned())) };
    let fields = [("plate", "湘A12345"), ("plate_type", "SMALL")].map(|(name, value)| (name.to_owned(), text(value)));
    let request = QueryRequest {
        item: ITEM.to_owned(),
        region: REGION.to_owned(),
        request_id: "bench-0123456789abcdef".to_owned(),
        input: Some(prost_types::Struct { fields: fields.into() }),
        ..QueryRequest::default()
    };
    let message = request.encode_to_vec();
    Ok([&[0; PREFIX_ZEROS], u32::try_from(message.len())?.to_be_bytes().as_slice(), &message].concat())
}
