//! The same code under the simulator: virtual time, a seeded network, and a host that dies at its crash point.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Request;
use runtime::http::{Client, Effect, Limits, Options, serve};
use runtime::net::{Accept, Io, Network};
use runtime::{Context, Net, Timestamp, crash};

const EPOCH: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const PORT: u16 = 80;
const POINT: &str = "test.pay.after_effect";

struct Simulated;

impl Network for Simulated {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Io>> {
        async move {
            let (host, port) = address.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
            let port: u16 = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
            let stream = turmoil::net::TcpStream::connect((host, port)).await?;
            Ok(Box::new(stream) as Io)
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

fn context(seed: u64, points: &crash::Points) -> Context {
    let now = EPOCH.plus(turmoil::sim_elapsed().unwrap_or_default());
    Context::simulated(now, seed, Net::custom(Arc::new(Simulated)), points.clone())
}

#[derive(Clone)]
struct Ledger {
    effects: Arc<AtomicU32>,
    context: Context,
}

/// The effect is made, then the answer is lost with the host.
async fn pay(State(ledger): State<Ledger>) -> String {
    ledger.effects.fetch_add(1, Ordering::SeqCst);
    crash::point(POINT);
    ledger.context.ids.uuid().to_string()
}

async fn server(context: Context, effects: Arc<AtomicU32>) -> turmoil::Result {
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT);
    let listener = context.net.bind(&any.to_string()).await?;
    let app = Router::new().route("/pay", post(pay)).with_state(Ledger { effects, context: context.clone() });
    serve(listener, app, Limits::default(), context.tasks.clone(), context.clock.clone()).await?;
    Ok(())
}

/// Pays five times, one after the other, and writes down what it saw and when.
async fn client(context: Context, trace: Arc<Mutex<Vec<String>>>) -> turmoil::Result {
    let client = Client::new(context.net.clone(), context.clock.clone(), Options::default());
    for call in 0..5 {
        let request = Request::post("http://server/pay").body(Bytes::new())?;
        let outcome = match client.send(request, Duration::from_secs(2), 100).await {
            Ok(reply) => format!("{} {:?}", reply.status(), reply.body()),
            Err(error) => format!("{:?} {:?}", error.effect, error.kind),
        };
        trace.lock().expect("not poisoned").push(format!("{} {call} {outcome}", context.clock.now().micros()));
        context.clock.sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

struct Run {
    trace: Vec<String>,
    effects: u32,
    hits: u32,
    deaths: u32,
}

fn run(seed: u64) -> Run {
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(40))
        .simulation_duration(Duration::from_secs(60))
        .build();
    let deaths = Arc::new(AtomicU32::new(0));
    let counter = deaths.clone();
    let points = crash::Points::simulated(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    points.arm(crash::Plan { point: POINT.into(), hit: 3 });
    let effects = Arc::new(AtomicU32::new(0));
    let trace = Arc::new(Mutex::new(Vec::new()));
    let (of_host, of_server) = (points.clone(), effects.clone());
    sim.host("server", move || {
        let (points, effects) = (of_host.clone(), of_server.clone());
        async move { points.scope(server(context(seed, &points), effects)).await }
    });
    let of_client = trace.clone();
    sim.client("client", async move {
        let points = crash::Points::simulated(|_| {});
        points.scope(client(context(seed + 1, &points), of_client)).await
    });
    while !sim.step().expect("the simulation runs") {
        if points.dead() {
            sim.crash("server");
            points.revive();
            sim.bounce("server");
        }
    }
    let trace = trace.lock().expect("not poisoned").clone();
    let hits = points.hits().get(POINT).copied().unwrap_or(0);
    Run { trace, effects: effects.load(Ordering::SeqCst), hits, deaths: deaths.load(Ordering::SeqCst) }
}

#[test]
fn a_host_that_dies_after_the_effect_leaves_the_caller_in_doubt() {
    let run = run(11);
    assert_eq!(run.deaths, 1);
    assert_eq!(run.hits, 5, "the restarted host goes on counting");
    assert_eq!(run.effects, 5, "the third effect happened although nobody heard of it");
    let told: Vec<bool> = run.trace.iter().map(|line| line.contains("200 OK")).collect();
    assert_eq!(told, [true, true, false, true, true], "{:#?}", run.trace);
    assert!(run.trace[2].contains(&format!("{:?}", Effect::Possible)), "{}", run.trace[2]);
    assert!(!run.trace[2].contains("500"), "a dead host answers nothing: {}", run.trace[2]);
}

#[test]
fn one_seed_gives_one_trace() {
    assert_eq!(run(7).trace, run(7).trace);
    assert_ne!(run(7).trace, run(8).trace);
}
