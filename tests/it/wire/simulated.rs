//! Wires under a simulated network that loses, delays and cuts, and a peer that dies: what a wire says of a call's effect is true.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contracts::payments::v1::{GetOrderRequest, GetOrderResponse, payment_service_client::PaymentServiceClient};
use futures::executor::block_on;
use invariants::{Call, Deed, Effect as Done, Found, World, check_all};
use lastmile_tests::simulation::{context, listen};
use rpc::tls::ServerIdentity;
use rpc::{ClientOptions, Effect, Limits, Mesh, RemoteFault, RemoteOptions, Role, ServerOptions, Trust};
use runtime::crash;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Request, Response};

use super::rig::{GET_ORDER, pem, stacked, unary};

const PORT: u16 = 7_000;
const POINT: &str = "test.wire.after_effect";
/// Between the end of a call and the next one.
const PAUSE: Duration = Duration::from_millis(200);

/// What the peer did, by the id of the call: how often its handler ran. Outlives the peer's crashes, as its database would.
type Effects = Arc<Mutex<BTreeMap<String, u32>>>;

async fn payments(seed: u64, points: crash::Points, effects: Effects) -> turmoil::Result {
    let context = context(seed, &points);
    let routes = unary(GET_ORDER, move |request: Request<GetOrderRequest>| {
        let effects = effects.clone();
        async move {
            *effects.lock().expect("not poisoned").entry(request.into_inner().order_id).or_default() += 1;
            crash::point(POINT);
            Ok(Response::new(GetOrderResponse::default()))
        }
    });
    let server = stacked(routes, &context, &ServerOptions::default());
    let trust = Trust::Addresses([(turmoil::lookup("cases"), Role::Cases)].into());
    let listener = listen(&context, PORT).await?;
    rpc::serve(listener, trust, server, Limits::default(), context).await?;
    Ok(())
}

/// One line for each call: when it ended, and how.
type Trace = Arc<Mutex<Vec<(u64, String, Result<(), RemoteFault>)>>>;

async fn cases(seed: u64, calls: u32, trace: Trace) -> turmoil::Result {
    let points = crash::Points::simulated(|_| {});
    let context = context(seed, &points);
    let mesh = Mesh::new(context.clone(), ClientOptions::default(), RemoteOptions::default()).caller(Role::Cases);
    mesh.bind_remote("payments", &format!("payments:{PORT}"))?;
    let mut client = PaymentServiceClient::new(mesh.wire("payments"));
    for call in 0..calls {
        let id = format!("call-{call}");
        let mut request = Request::new(GetOrderRequest { order_id: id.clone(), ..GetOrderRequest::default() });
        request.set_timeout(Duration::from_secs(1));
        let ended = client.get_order(request).await.map(drop).map_err(RemoteFault::from);
        let at = turmoil::sim_elapsed().expect("inside the simulation");
        trace.lock().expect("not poisoned").push((u64::try_from(at.as_micros())?, id, ended));
        context.clock.sleep(PAUSE).await;
    }
    Ok(())
}

/// What happens to the network and to the peer.
#[derive(Clone, Copy)]
struct Weather {
    /// How many calls are made.
    calls: u32,
    /// Chance of a link to break and of a broken one to mend, at each message.
    breaks: f64,
    mends: f64,
    /// The peer dies at this hit of its crash point.
    dies_at: Option<u32>,
    /// The network is cut from and to these seconds.
    cut: Option<(u64, u64)>,
}

impl Default for Weather {
    fn default() -> Self {
        Self { calls: 40, breaks: 0.0, mends: 0.0, dies_at: None, cut: None }
    }
}

struct Run {
    trace: Vec<(u64, String, Result<(), RemoteFault>)>,
    effects: BTreeMap<String, u32>,
}

fn run(seed: u64, weather: Weather) -> Run {
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(30))
        .fail_rate(weather.breaks)
        .repair_rate(weather.mends)
        .simulation_duration(Duration::from_secs(600))
        .tick_duration(Duration::from_millis(2))
        .build();
    let points = crash::Points::simulated(|_| {});
    if let Some(hit) = weather.dies_at {
        points.arm(crash::Plan { point: POINT.into(), hit });
    }
    let (effects, trace) = (Effects::default(), Trace::default());
    let (of_host, of_peer) = (points.clone(), effects.clone());
    sim.host("payments", move || {
        let (points, effects) = (of_host.clone(), of_peer.clone());
        async move { points.clone().scope(payments(seed, points, effects)).await }
    });
    sim.client("cases", cases(seed + 1, weather.calls, trace.clone()));
    let mut is_cut = false;
    while !sim.step().unwrap_or_else(|error| panic!("seed {seed}: {error}")) {
        if points.dead() {
            sim.crash("payments");
            points.revive();
            sim.bounce("payments");
        }
        let cut = weather.cut.is_some_and(|(from, to)| (from..to).contains(&sim.elapsed().as_secs()));
        if cut != is_cut {
            is_cut = cut;
            if cut { sim.partition("cases", "payments") } else { sim.repair("cases", "payments") }
        }
    }
    let run = Run {
        trace: trace.lock().expect("not poisoned").clone(),
        effects: effects.lock().expect("not poisoned").clone(),
    };
    check(seed, weather, &run);
    run
}

/// The promise: an answer means one effect, NONE means no effect, and nothing is ever done twice. A wire has no inquiry: what became of a
/// call that it leaves in doubt is looked up at the peer.
fn check(seed: u64, weather: Weather, run: &Run) {
    assert_eq!(run.trace.len(), weather.calls as usize, "seed {seed}: every call ended");
    let done =
        |id: &String| Done { deed: Deed::Own, caller: "cases".to_owned(), request_id: id.clone(), id: id.clone() };
    let effects = run.effects.iter().flat_map(|(id, times)| (0..*times).map(move |_| done(id)));
    let calls = run.trace.iter().map(|(_, id, ended)| {
        let call = Call { deed: Deed::Own, caller: "cases".to_owned(), request_id: id.clone(), ..Call::default() };
        match ended {
            Ok(()) => Call { answers: vec![id.clone()], ..call },
            Err(fault) if fault.effect() == Effect::None => Call { found: Some(Found::Never), ..call },
            Err(_) => {
                let is_done = run.effects.contains_key(id);
                Call { lost: 1, found: Some(if is_done { Found::Done(id.clone()) } else { Found::Never }), ..call }
            }
        }
    });
    let world = World {
        effects: Some(effects.collect()),
        calls: Some(calls.collect()),
        ..World::at(lastmile_tests::simulation::EPOCH)
    };
    let report = block_on(check_all(&world)).expect("reads");
    // Where every call was answered none was lost.
    let required: &[&str] = if failed(run) > 0 { &["I2", "I3", "I4"] } else { &["I2", "I3"] };
    report.require(required).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
}

fn failed(run: &Run) -> usize {
    run.trace.iter().filter(|(_, _, ended)| ended.is_err()).count()
}

#[test]
fn in_good_weather_nothing_fails() {
    assert_eq!(failed(&run(1, Weather::default())), 0);
}

#[test]
fn a_peer_that_dies_after_the_effect_leaves_doubt_and_is_found_again() {
    let run = run(2, Weather { dies_at: Some(5), ..Weather::default() });
    let (_, id, ended) = &run.trace[4];
    let fault = ended.as_ref().expect_err("the fifth call met the crash");
    assert_eq!(fault.effect(), Effect::Possible, "{fault:?}");
    assert_eq!(run.effects.get(id), Some(&1), "it had happened");
    assert!(run.trace[10..].iter().all(|(_, _, ended)| ended.is_ok()), "found again: {:#?}", run.trace);
}

#[test]
fn a_cut_network_is_noticed_and_found_whole_again() {
    let run = run(3, Weather { calls: 150, cut: Some((3, 20)), ..Weather::default() });
    let doubtful =
        run.trace.iter().filter(|(_, _, ended)| ended.as_ref().is_err_and(|fault| fault.effect() == Effect::Possible));
    let doubtful = doubtful.count();
    assert!((1..=20).contains(&doubtful), "{doubtful} calls in doubt: soon the breaker keeps them back");
    let last_failure = run.trace.iter().filter(|(_, _, ended)| ended.is_err()).map(|(at, ..)| *at).max();
    let late = last_failure.expect("some failed");
    // The old connection is given up when its keepalive goes unanswered: 20 s of silence and 10 s of waiting. Then the breaker's probe.
    assert!(late < 45_000_000, "calls get through again in time, last failure at {late} µs");
    assert!(run.trace.last().is_some_and(|(_, _, ended)| ended.is_ok()));
}

#[test]
fn in_bad_weather_what_a_wire_says_is_true() {
    let mut failures = 0;
    for seed in 100..120 {
        let dies_at = Some(1 + u32::try_from(seed % 20).expect("small"));
        failures += failed(&run(seed, Weather { breaks: 0.02, mends: 0.3, dies_at, ..Weather::default() }));
    }
    assert!(failures > 50, "the weather was bad: {failures} calls failed");
}

/// What a stranger sends before it falls silent, and how long it is borne.
type Silence = Arc<Mutex<Vec<(&'static str, Duration)>>>;

/// Connects, sends bytes, and reads until the server closes.
async fn fall_silent(name: &'static str, port: u16, bytes: &'static [u8], silences: Silence) -> turmoil::Result {
    let mut stream = turmoil::net::TcpStream::connect(("payments", port)).await?;
    let begun = turmoil::sim_elapsed().expect("inside the simulation");
    stream.write_all(bytes).await?;
    let mut read = [0; 1_024];
    while matches!(stream.read(&mut read).await, Ok(1..)) {}
    let held = turmoil::sim_elapsed().expect("inside the simulation") - begun;
    silences.lock().expect("not poisoned").push((name, held));
    Ok(())
}

/// A server with the limits of ours; with TLS on the second port.
async fn patient(limits: Limits) -> turmoil::Result {
    let context = context(1, &crash::Points::simulated(|_| {}));
    for (port, trust) in [
        (PORT, Trust::Plain),
        (PORT + 1, Trust::Mutual(ServerIdentity::mutual(&pem(Role::Payments)).expect("an identity"))),
    ] {
        let routes =
            unary(GET_ORDER, |_: Request<GetOrderRequest>| async { Ok(Response::new(GetOrderResponse::default())) });
        let server = stacked(routes, &context, &ServerOptions::default());
        let (listener, limits, own) = (listen(&context, port).await?, limits.clone(), context.clone());
        context.tasks.spawn("test.serve", async move {
            rpc::serve(listener, trust, server, limits, own).await.expect("serves");
        });
    }
    std::future::pending().await
}

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The greeting, and HEADERS of `GET http /`.
const ASKED: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x03\x01\x05\0\0\0\x01\x82\x86\x84";

fn calm_weather(seconds: u64) -> turmoil::Sim<'static> {
    turmoil::Builder::new()
        .rng_seed(1)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(1))
        .simulation_duration(Duration::from_secs(seconds))
        .tick_duration(Duration::from_millis(5))
        .build()
}

/// By the simulation's clock: 5 s for the handshake, 10 s to the first request, whatever came of them before.
#[test]
fn whoever_does_not_begin_is_borne_for_five_or_ten_seconds() {
    let mut sim = calm_weather(60);
    sim.host("payments", || patient(Limits::default()));
    let silences = Silence::default();
    let of_server = [("nothing", &b""[..]), ("half a greeting", &HELLO[..10]), ("a greeting", HELLO)];
    for (name, bytes) in of_server {
        sim.client(name.replace(' ', "-"), fall_silent("plain", PORT, bytes, silences.clone()));
    }
    for (name, bytes) in [("no-hello", &b""[..]), ("half-a-record", &b"\x16\x03\x01"[..])] {
        sim.client(name, fall_silent("tls", PORT + 1, bytes, silences.clone()));
    }
    sim.run().expect("runs");
    let silences = silences.lock().expect("not poisoned");
    assert_eq!(silences.len(), 5);
    for (name, held) in silences.iter() {
        let seconds = if *name == "tls" { 5 } else { 10 };
        let is_near = (Duration::from_secs(seconds)..Duration::from_millis(seconds * 1_000 + 100)).contains(held);
        assert!(is_near, "{name}: borne for {held:?}");
    }
}

/// Each connection is asked to go at an age of its own, within a tenth of what is set.
#[test]
fn connections_are_asked_to_go_at_different_ages() {
    const AGE: Duration = Duration::from_secs(20);
    let mut sim = calm_weather(60);
    sim.host("payments", || patient(Limits { connection_age_max: AGE, ..Limits::default() }));
    let ages = Arc::new(Mutex::new(Vec::new()));
    for number in 0..20 {
        let ages = ages.clone();
        sim.client(format!("client-{number}"), async move {
            let mut stream = turmoil::net::TcpStream::connect(("payments", PORT)).await?;
            let begun = turmoil::sim_elapsed().expect("inside the simulation");
            stream.write_all(ASKED).await?;
            let mut head = [0; 9];
            loop {
                stream.read_exact(&mut head).await?;
                let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
                stream.read_exact(&mut payload).await?;
                // GOAWAY without an error.
                if head[3] == 7 && payload.ends_with(&[0; 4]) {
                    break;
                }
            }
            ages.lock().expect("not poisoned").push(turmoil::sim_elapsed().expect("inside the simulation") - begun);
            Ok(())
        });
    }
    sim.run().expect("runs");
    let ages = ages.lock().expect("not poisoned");
    assert_eq!(ages.len(), 20);
    let (first, last) = (ages.iter().min().expect("some"), ages.iter().max().expect("some"));
    assert!(*first >= AGE.mul_f64(0.9) && *last <= AGE.mul_f64(1.1) + Duration::from_millis(100), "{ages:?}");
    assert!(*last - *first > AGE / 20, "not all at once: {ages:?}");
}

#[test]
fn one_seed_gives_one_trace() {
    let weather = Weather { breaks: 0.02, mends: 0.3, dies_at: Some(7), ..Weather::default() };
    let told = |seed| run(seed, weather).trace.into_iter().map(|line| format!("{line:?}")).collect::<Vec<_>>();
    assert_eq!(told(7), told(7));
    assert_ne!(told(7), told(8));
}
