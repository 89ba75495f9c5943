//! The sandbox under the simulator: virtual time, a seeded network, a host that crashes, journals that outlive it.
//!
//! Each run is a process of its own: the order in which tokio drops a crashed host's tasks depends on a counter of the process, so a
//! replay is the same only from a fresh start. `simulation run SEED KEYS` is such a run; without arguments it starts and judges them.

#[path = "../it/client.rs"]
mod client;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::BoxFuture;
use http::Request;
use invariants::{Call, Deed, Journals, World, check_all};
use runtime::http::{Limits, serve};
use runtime::net::{Accept, Io, Network};
use runtime::{Clock, Context, Ids, Net, Timestamp, crash};
use sandbox::{Config, Keys, Memory, Place};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use client::{Http, element, taiyuan, taiyuan_payment};

const EPOCH: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const CHANGSHA: &str = "sandbox:7511";
const TAIYUAN: &str = "sandbox:7512";
const WECHAT: &str = "sandbox:7501";
const MERCHANT: &str = "1900430100";
/// Where a payment's answer has the serial number.
const TAIYUAN_SERIAL: std::ops::Range<usize> = 1..21;

struct Simulated;

impl Network for Simulated {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Io>> {
        async move {
            let (host, port) = address.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
            let port: u16 = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
            Ok(Box::new(turmoil::net::TcpStream::connect((host, port)).await?) as Io)
        }
        .boxed()
    }

    fn bind<'a>(&'a self, address: &'a str, _: bool) -> BoxFuture<'a, io::Result<Box<dyn Accept>>> {
        async move {
            let address: SocketAddr = address.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
            Ok(Box::new(Bound(turmoil::net::TcpListener::bind(address).await?)) as Box<dyn Accept>)
        }
        .boxed()
    }
}

struct Bound(turmoil::net::TcpListener);

impl Accept for Bound {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Io, SocketAddr)>> {
        async move {
            let (stream, peer) = self.0.accept().await?;
            Ok((Box::new(stream) as Io, peer))
        }
        .boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

fn context(seed: u64) -> Context {
    let now = EPOCH.plus(turmoil::sim_elapsed().unwrap_or_default());
    Context::simulated(now, seed, Net::custom(Arc::new(Simulated)), crash::Points::simulated(|_| {}))
}

fn config(keys: &Path) -> Config {
    let mut config = Config::default();
    config.wechatpay.keys_dir = Some(keys.into());
    for listen in [
        &mut config.control.listen,
        &mut config.wechatpay.listen,
        &mut config.police_430100.listen,
        &mut config.police_140100.listen,
    ] {
        *listen = listen.replace("127.0.0.1", "0.0.0.0");
    }
    config
}

/// A merchant's key, from the sandbox's own directory.
struct Merchant {
    key: KeyPair,
    serial: String,
}

impl Merchant {
    fn read(keys_dir: &Path) -> Self {
        let directory = keys_dir.join(MERCHANT);
        let pem = std::fs::read_to_string(directory.join("private_key.pem")).expect("a key");
        let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let key = KeyPair::from_pkcs8(&STANDARD.decode(der).expect("base64")).expect("a key");
        let serial = std::fs::read_to_string(directory.join("serial_no.txt")).expect("a serial number");
        Self { key, serial: serial.trim().into() }
    }

    fn sign(&self, text: &str) -> String {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).expect("signs");
        STANDARD.encode(signature)
    }
}

/// Calls WeChat Pay as a merchant.
async fn wechat(
    http: &Http,
    context: &Context,
    at: &str,
    key: &Merchant,
    method: &str,
    target: &str,
    body: &str,
) -> (u16, Value) {
    let (seconds, _) = context.clock.now().seconds_nanos();
    let nonce = context.ids.hex(32);
    let signature = key.sign(&format!("{method}\n{target}\n{seconds}\n{nonce}\n{body}\n"));
    let serial = &key.serial;
    let authorization = format!(
        "WECHATPAY2-SHA256-RSA2048 mchid=\"{MERCHANT}\",serial_no=\"{serial}\",nonce_str=\"{nonce}\",\
             timestamp=\"{seconds}\",signature=\"{signature}\""
    );
    let request =
        Request::builder().method(method).uri(format!("http://{at}{target}")).header("authorization", authorization);
    let request = request.body(Bytes::copy_from_slice(body.as_bytes())).expect("a request");
    let answer = http.send(request).await.expect("an answer");
    (answer.status().as_u16(), serde_json::from_slice(answer.body()).unwrap_or_default())
}

type Trace = Arc<Mutex<Vec<String>>>;

fn note(trace: &Trace, context: &Context, what: String) {
    trace.lock().expect("not poisoned").push(format!("{} {what}", context.clock.now().micros()));
}

/// Takes callbacks; refuses the first one.
async fn merchant(context: Context, trace: Trace) -> turmoil::Result {
    let listener = context.net.bind("0.0.0.0:80").await?;
    let take = async |State((context, trace)): State<(Context, Trace)>, body: Bytes| {
        let told: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let first = !trace.lock().expect("not poisoned").iter().any(|line| line.contains("callback"));
        note(&trace, &context, format!("callback {}", told["event_type"]));
        if first { http::StatusCode::SERVICE_UNAVAILABLE } else { http::StatusCode::NO_CONTENT }
    };
    let app = Router::new().route("/notify", post(take)).with_state((context.clone(), trace));
    serve(listener, app, Limits::default(), context.tasks.clone(), context.clock.clone()).await?;
    Ok(())
}

/// Pays in both cities, before and after a crash of the sandbox, until everything is answered.
async fn citizen(context: Context, keys: Arc<Path>, trace: Trace) -> turmoil::Result {
    let http = Http::new(&context);
    let key = Merchant::read(&keys);
    for citizen in 0..6 {
        let order = format!("SIMULATED{citizen}");
        let body = json!({
            "appid": "wx5a4db0c5a4db0c51", "mchid": MERCHANT, "description": "fine", "out_trade_no": order,
            "notify_url": "http://merchant/notify", "amount": { "total": 20_000 },
        });
        let target = "/v3/pay/transactions/native";
        let (status, sheet) = wechat(&http, &context, WECHAT, &key, "POST", target, &body.to_string()).await;
        note(&trace, &context, format!("order {status}"));
        let pay = json!({ "code_url": sheet["code_url"] });
        let (status, _) = http.control("POST", "http://sandbox:7500/wechatpay/pay", &pay).await;
        note(&trace, &context, format!("pay {status}"));

        let record = format!("430100300000{citizen:02}01");
        let paid = settled(&http, &context, &order, &record).await;
        note(&trace, &context, format!("changsha {paid} {order}"));
        let record = format!("140100000030000{citizen:03}01");
        let (_, detail) = patient(&context, "2102", &record).await;
        let fen = std::str::from_utf8(&detail[222..234])?.parse()?;
        let (code, paid) = patient(&context, "2301", &taiyuan_payment(&order, &record, fen)).await;
        let serial = std::str::from_utf8(&paid[TAIYUAN_SERIAL])?.trim_end();
        note(&trace, &context, format!("taiyuan {code} {serial} {order}"));
        context.clock.sleep(Duration::from_millis(700)).await;
    }
    context.clock.sleep(Duration::from_secs(3)).await;
    Ok(())
}

/// Settles until there is an answer.
async fn settled(http: &Http, context: &Context, order: &str, record: &str) -> String {
    loop {
        if let Ok(detail) = http.changsha(CHANGSHA, "cxWfxq", &[("xh", record)]).await {
            let fields = [
                ("ddh", order),
                ("xh", record),
                ("jfje", element(&detail, "zje")),
                ("jfsj", "2026-11-22 09:30:00"),
                ("jfqd", "WX"),
                ("qdlsh", "42"),
            ];
            if let Ok(paid) = http.changsha(CHANGSHA, "tzJk", &fields).await {
                return format!("{} {}", element(&paid, "fhm"), element(&paid, "jflsh"));
            }
        }
        context.clock.sleep(Duration::from_millis(100)).await;
    }
}

async fn patient(context: &Context, code: &str, body: &str) -> (String, Vec<u8>) {
    loop {
        match taiyuan(context, TAIYUAN, code, body).await {
            Ok(reply) => return reply,
            Err(_) => context.clock.sleep(Duration::from_millis(100)).await,
        }
    }
}

/// What a run leaves: what was seen and when, and the journals.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    trace: Vec<String>,
    journals: [String; 3],
}

fn run(seed: u64, keys: &Path) -> Run {
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(30))
        .simulation_duration(Duration::from_secs(120))
        .build();
    let (memory, trace) = (Memory::default(), Trace::default());
    let keys: Arc<Path> = keys.into();
    let (kept, of_host) = (memory.clone(), keys.clone());
    sim.host("sandbox", move || {
        let (place, config) = (Place::Memory(kept.clone()), config(&of_host));
        async move {
            let context = context(seed);
            sandbox::start_in(config, context.clone(), place).await?;
            context.tasks.token().cancelled().await;
            Ok(())
        }
    });
    let of_merchant = trace.clone();
    sim.host("merchant", move || merchant(context(seed + 1), of_merchant.clone()));
    let of_citizen = trace.clone();
    sim.client("citizen", async move { citizen(context(seed + 2), keys, of_citizen).await });
    let mut crashed = false;
    while !sim.step().expect("the simulation runs") {
        let told = trace.lock().expect("not poisoned").iter().filter(|line| line.contains("changsha")).count();
        if told == 3 && !crashed {
            crashed = true;
            sim.crash("sandbox");
            sim.bounce("sandbox");
        }
    }
    assert!(crashed, "the crash is part of the run");
    let text = |system| String::from_utf8(memory.text(system)).expect("UTF-8");
    let journals = ["wechatpay", "police-430100", "police-140100"].map(text);
    let trace = trace.lock().expect("not poisoned").clone();
    Run { trace, journals }
}

fn keys() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let merchants = [MERCHANT.to_owned(), "1900140100".to_owned()];
    let (clock, _) = Clock::manual(EPOCH);
    Keys::load_or_create(directory.path(), &merchants, &Ids::seeded(clock, 1), EPOCH).expect("keys");
    directory
}

/// One run in a process of its own.
fn process(seed: u64, keys: &Path) -> Run {
    let itself = std::env::current_exe().expect("this program");
    let run = Command::new(itself).arg("run").arg(seed.to_string()).arg(keys).output().expect("it starts");
    assert!(run.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&run.stderr));
    serde_json::from_slice(&run.stdout).expect("a run")
}

fn a_crash_in_the_middle_loses_and_doubles_nothing(seed: u64, Run { trace, journals }: &Run) {
    let [wechatpay, changsha, taiyuan] = journals;
    let posted = |journal: &str| journal.matches("\"state\":\"posted\"").count();
    assert_eq!((posted(changsha), posted(taiyuan)), (6, 6), "seed {seed}: {trace:#?}");
    assert_eq!(wechatpay.matches("\"event\":\"order_paid\"").count(), 6, "seed {seed}: {trace:#?}");
    assert_eq!(wechatpay.matches("\"delivered\":true").count(), 6, "seed {seed}, every callback arrives: {trace:#?}");
    let seen = |what: &str| trace.iter().filter(|line| line.contains(what)).count();
    assert!(seen("callback") > 6, "seed {seed}, one was refused and sent again: {trace:#?}");
    assert_eq!((seen("changsha 0000"), seen("taiyuan AAAA")), (6, 6), "seed {seed}: {trace:#?}");
    // What the citizen was answered is in the journals, once, and nothing else is.
    let told = |line: &String| {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, city, _, serial, order] = words.as_slice() else { return None };
        let caller = if *city == "changsha" { "traffic/430100" } else { "traffic/140100" }.to_owned();
        let (request_id, answers) = ((*order).to_owned(), vec![(*serial).to_owned()]);
        Some(Call { deed: Deed::Settlement, caller, request_id, answers, ..Call::default() })
    };
    let text = |system: &str| match system {
        "wechatpay" => wechatpay,
        "police-430100" => changsha,
        _ => taiyuan,
    };
    let world = World {
        journals: Some(Journals::of(|system| Ok(text(system).clone().into_bytes())).expect("journals")),
        calls: Some(trace.iter().filter_map(told).collect()),
        ..World::at(EPOCH)
    };
    let report = block_on(check_all(&world)).expect("reads");
    report.require(&["I2", "I3", "I5"]).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let settled = report.evidence.calls.map_or(0, |calls| calls.len());
    assert_eq!(settled, 12, "seed {seed}: {trace:#?}");
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, seed, keys] = arguments.as_slice()
        && word == "run"
    {
        let run = run(seed.parse().expect("a seed"), Path::new(keys));
        let told = serde_json::to_vec(&run).expect("JSON");
        return io::stdout().write_all(&told).expect("somebody reads");
    }
    let keys = keys();
    let runs: Vec<(u64, Run)> = [3, 5, 5, 6].map(|seed| (seed, process(seed, keys.path()))).into();
    for (seed, run) in &runs {
        a_crash_in_the_middle_loses_and_doubles_nothing(*seed, run);
    }
    let same = |a: usize, b: usize| runs[a].1 == runs[b].1;
    assert!(
        same(1, 2),
        "one seed gives one trace and the same journals:\n{:#?}\n{:#?}",
        runs[1].1.trace,
        runs[2].1.trace
    );
    assert!(!same(0, 1) && !same(2, 3), "another seed gives another trace");
}
