//! What only a network can do: refuse, break off, come back.

use std::time::Duration;

use contracts::payments::v1::{GetOrderRequest, GetOrderResponse, payment_service_client::PaymentServiceClient};
use rpc::stack::BreakerOptions;
use rpc::tls::{ClientIdentity, ServerIdentity};
use rpc::{ClientOptions, Effect, Limits, Mesh, RemoteFault, RemoteOptions, Retry, Role, ServerOptions, Trust, Wire};
use runtime::Context;
use tokio::io::AsyncReadExt;
use tonic::{Request, Response, Status};

use super::rig::{GET_ORDER, Over, Rig, Seen, Setup, listen, pem, stacked, unary};

fn answering() -> tonic::service::Routes {
    unary(GET_ORDER, |_: Request<GetOrderRequest>| async { Ok(Response::new(GetOrderResponse::default())) })
}

fn identity(role: Role) -> Option<ClientIdentity> {
    Some(ClientIdentity::new(&pem(role)).expect("an identity"))
}

fn mutual(role: Role) -> Trust {
    Trust::Mutual(ServerIdentity::mutual(&pem(role)).expect("an identity"))
}

async fn call(wire: &Wire) -> Result<(), RemoteFault> {
    let mut client = PaymentServiceClient::new(wire.clone());
    client.get_order(GetOrderRequest::default()).await.map(drop).map_err(RemoteFault::from)
}

fn wire_to(address: &str, tls: Option<ClientIdentity>, context: &Context) -> Wire {
    Wire::remote("payments", address, tls, context, RemoteOptions::default(), &ClientOptions::default())
}

/// An address at which nobody listens.
async fn nowhere(context: &Context) -> String {
    context.net.bind("127.0.0.1:0").await.expect("a free port").local_addr().to_string()
}

#[tokio::test]
async fn a_peer_that_is_not_there_changed_nothing_and_is_not_asked_by_everybody() {
    let context = Context::system();
    let wire = wire_to(&nowhere(&context).await, None, &context);
    let fault = call(&wire).await.expect_err("nobody listens");
    assert!(fault.is_common("PEER_UNAVAILABLE"), "{fault:?}");
    assert_eq!((fault.effect(), fault.metadata("peer")), (Effect::None, Some("payments")));
    assert!(matches!(fault.retry(), Retry::After(_)));
    let begun = tokio::time::Instant::now();
    let fault = call(&wire).await.expect_err("still nobody");
    assert_eq!(fault.effect(), Effect::None);
    assert!(begun.elapsed() < Duration::from_millis(50), "within the pause it answers at once");
}

#[tokio::test]
async fn a_peer_that_never_answers_the_handshake_changed_nothing() {
    let context = Context::system();
    let listener = context.net.bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().to_string();
    context.tasks.spawn("test.silent", async move {
        let mut held = Vec::new();
        while let Ok(accepted) = listener.accept().await {
            held.push(accepted);
        }
    });
    let remote = RemoteOptions { handshake_timeout: Duration::from_millis(200), ..RemoteOptions::default() };
    let client = ClientOptions::default();
    let wire = Wire::remote("payments", &address, identity(Role::Cases), &context, remote, &client);
    let fault = call(&wire).await.expect_err("no handshake");
    assert!(fault.is_common("PEER_UNAVAILABLE"), "{fault:?}");
    assert_eq!(fault.effect(), Effect::None);
    context.tasks.abort();
}

#[tokio::test]
async fn a_peer_that_dies_with_the_call_in_hand_may_have_acted() {
    let context = Context::system();
    let listener = context.net.bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().to_string();
    context.tasks.spawn("test.dies", async move {
        while let Ok((mut io, _)) = listener.accept().await {
            // Takes the preface and the first request's frames, then is gone.
            let mut bytes = vec![0; 4_096];
            let mut taken = 0;
            while taken < 150 {
                match io.read(&mut bytes).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => taken += count,
                }
            }
        }
    });
    let fault = call(&wire_to(&address, None, &context)).await.expect_err("broke off");
    assert!(fault.is_common("PEER_UNAVAILABLE"), "{fault:?}");
    assert_eq!(fault.effect(), Effect::Possible, "bytes were sent");
    context.tasks.abort();
}

#[tokio::test]
async fn a_restarted_peer_is_found_again() {
    let context = Context::system();
    let first = Context::system();
    let address = listen(
        stacked(answering(), &first, &ServerOptions::default()),
        mutual(Role::Payments),
        Limits::default(),
        &first,
    )
    .await;
    let wire = wire_to(&address, identity(Role::Cases), &context);
    call(&wire).await.expect("answers");
    first.tasks.stop();
    assert!(first.tasks.wait(Duration::from_secs(5)).await, "the idle connection does not hold the drain");
    let fault = call(&wire).await.expect_err("it is away");
    assert_eq!(fault.effect(), Effect::None, "{fault:?}");

    let second = Context::system();
    let listener = second.net.bind(&address).await.expect("the same port");
    let (server, own) = (stacked(answering(), &second, &ServerOptions::default()), second.clone());
    second.tasks.spawn("test.serve", async move {
        rpc::serve(listener, mutual(Role::Payments), server, Limits::default(), own).await.expect("serves");
    });
    let found = tokio::time::timeout(Duration::from_secs(10), async {
        while call(&wire).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.expect("found again within the backoff");
    second.tasks.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_peer_finishes_what_it_has_and_loses_nothing() {
    let seen = Seen::default();
    let release = runtime::watch::Sender::new(false);
    let gate = release.subscribe();
    let noted = seen.clone();
    let routes = unary(GET_ORDER, move |_: Request<GetOrderRequest>| {
        let (noted, mut gate) = (noted.clone(), gate.clone());
        async move {
            noted.note("entered");
            gate.wait_for(|open| *open).await.expect("the gate lives");
            Ok(Response::new(GetOrderResponse::default()))
        }
    });
    let (context, serving) = (Context::system(), Context::system());
    let server = stacked(routes, &serving, &ServerOptions::default());
    let address = listen(server, mutual(Role::Payments), Limits::default(), &serving).await;
    let wire = wire_to(&address, identity(Role::Cases), &context);
    let in_hand = context.tasks.run_to_end("test.in_hand", {
        let wire = wire.clone();
        async move { call(&wire).await }
    });
    let mut in_hand = std::pin::pin!(in_hand);
    tokio::select! {
        () = seen.wait_for("entered", 1) => {}
        _ = &mut in_hand => panic!("the gate is shut"),
    }
    serving.tasks.stop();
    release.send_modify(|open| *open = true);
    in_hand.await.expect("ran").expect("the call in hand was answered");
    assert!(serving.tasks.wait(Duration::from_secs(5)).await, "and the server came to its end");
    let fault = call(&wire).await.expect_err("nobody listens any more");
    assert_eq!(fault.effect(), Effect::None);
}

#[tokio::test]
async fn only_the_right_role_with_the_right_certificate_gets_through() {
    let context = Context::system();
    let server = || stacked(answering(), &context, &ServerOptions::default());
    let payments = listen(server(), mutual(Role::Payments), Limits::default(), &context).await;
    call(&wire_to(&payments, identity(Role::Cases), &context)).await.expect("cases may");

    let fault = call(&wire_to(&payments, identity(Role::Adapter), &context)).await.expect_err("adapter may not");
    assert!(fault.is_common("CALLER_NOT_ALLOWED"), "{fault:?}");

    let fault = call(&wire_to(&payments, None, &context)).await.expect_err("no certificate, no TLS");
    assert!(fault.is_common("PEER_UNAVAILABLE"), "{fault:?}");

    // A peer that is not the role the caller wants is not talked to.
    let catalog = listen(server(), mutual(Role::Catalog), Limits::default(), &context).await;
    let fault = call(&wire_to(&catalog, identity(Role::Cases), &context)).await.expect_err("the wrong server");
    assert!(fault.is_common("PEER_UNAVAILABLE"), "{fault:?}");
    assert_eq!(fault.effect(), Effect::None);

    // A certificate of another CA, for the right role.
    let stranger = rpc::ca::Ca::generate(&context).expect("a CA");
    let forged = stranger.issue(&context, Role::Cases, Duration::from_secs(3_600)).expect("a certificate");
    let forged = rpc::tls::RolePem { ca: pem(Role::Cases).ca, ..forged };
    let forged = Some(ClientIdentity::new(&forged).expect("an identity"));
    let fault = call(&wire_to(&payments, forged, &context)).await.expect_err("another CA");
    assert!(fault.is_common("PEER_UNAVAILABLE"), "{fault:?}");

    // An expired one of the right CA.
    let (past, _) = runtime::Clock::manual(context.clock.now().minus(Duration::from_secs(10 * 24 * 3_600)));
    let past = Context { clock: past, ..context.clone() };
    let ca = rpc::ca::Ca::generate(&past).expect("a CA");
    let old = |role| ca.issue(&past, role, Duration::from_secs(24 * 3_600)).expect("a certificate");
    let trust = Trust::Mutual(ServerIdentity::mutual(&old(Role::Payments)).expect("an identity"));
    let address = listen(server(), trust, Limits::default(), &context).await;
    let expired = Some(ClientIdentity::new(&old(Role::Cases)).expect("an identity"));
    let fault = call(&wire_to(&address, expired, &context)).await.expect_err("expired");
    assert!(fault.is_common("PEER_UNAVAILABLE"), "{fault:?}");
    context.tasks.abort();
}

#[tokio::test]
async fn a_plain_listener_gives_nobody_a_role() {
    let context = Context::system();
    let server = stacked(answering(), &context, &ServerOptions::default());
    let address = listen(server, Trust::Plain, Limits::default(), &context).await;
    let fault = call(&wire_to(&address, None, &context)).await.expect_err("no role");
    assert!(fault.is_common("UNAUTHENTICATED"), "{fault:?}");
    assert_eq!(fault.metadata("check"), Some("role"));
    context.tasks.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_one_connection_takes_open_another() {
    let seen = Seen::default();
    let release = runtime::watch::Sender::new(false);
    let gate = release.subscribe();
    let noted = seen.clone();
    let routes = unary(GET_ORDER, move |_: Request<GetOrderRequest>| {
        let (noted, mut gate) = (noted.clone(), gate.clone());
        async move {
            noted.note("entered");
            gate.wait_for(|open| *open).await.expect("the gate lives");
            Ok(Response::new(GetOrderResponse::default()))
        }
    });
    let rig = Rig::new(Over::Remote, Role::Cases, routes).await;
    let calls: Vec<_> = (0..250)
        .map(|_| {
            let wire = rig.wire.clone();
            async move { call(&wire).await }
        })
        .collect();
    let all = rig.context.tasks.run_to_end("test.all", futures::future::join_all(calls));
    let mut all = std::pin::pin!(all);
    tokio::select! {
        () = seen.wait_for("entered", 250) => {}
        _ = &mut all => panic!("the gate is shut"),
    }
    release.send_modify(|open| *open = true);
    assert!(all.await.expect("ran").iter().all(Result::is_ok));
    let open = rig.context.metrics.encode();
    let line = open.lines().find(|line| line.starts_with("lastmile_rpc_connections_open{")).expect("a metric");
    assert!(line.ends_with(" 3"), "{line}");
}

#[tokio::test]
async fn the_breaker_opens_after_failures_and_one_probe_closes_it() {
    let context = Context::system();
    let breaker =
        BreakerOptions { failures_max: 3, pause_min: Duration::from_millis(100), ..BreakerOptions::default() };
    let client = ClientOptions { breaker, ..ClientOptions::default() };
    let remote = RemoteOptions {
        backoff_min: Duration::from_micros(1),
        backoff_max: Duration::from_micros(1),
        ..RemoteOptions::default()
    };
    let mesh = Mesh::new(context.clone(), client, remote).caller(Role::Cases);
    mesh.identify(Role::Cases, identity(Role::Cases).expect("an identity"));
    mesh.bind_remote("payments", &nowhere(&context).await).expect("a role");
    let wire = mesh.wire("payments");
    let is_open = || context.metrics.encode().contains("lastmile_rpc_breaker_open{peer=\"payments\"} 1");
    for _ in 0..3 {
        assert!(!is_open());
        call(&wire).await.expect_err("nobody listens");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(is_open());

    let server = stacked(answering(), &context, &ServerOptions::default());
    let address = listen(server, mutual(Role::Payments), Limits::default(), &context).await;
    mesh.bind_remote("payments", &address).expect("a role");
    let fault = call(&wire).await.expect_err("still open");
    assert_eq!(fault.effect(), Effect::None);
    let Retry::After(left) = fault.retry() else { panic!("says when") };
    tokio::time::sleep(left).await;
    call(&wire).await.expect("the probe gets through");
    assert!(!is_open());
    context.tasks.abort();
}

#[tokio::test]
async fn a_wire_that_nothing_is_bound_to_says_so_and_works_once_something_is() {
    let context = Context::system();
    let mesh = Mesh::new(context.clone(), ClientOptions::default(), RemoteOptions::default());
    let wire = mesh.caller(Role::Cases).wire("payments");
    let fault = call(&wire).await.expect_err("not bound");
    assert!(fault.is_common("PEER_UNAVAILABLE"), "{fault:?}");
    assert_eq!(fault.effect(), Effect::None);
    let server = stacked(answering(), &context, &ServerOptions::default());
    mesh.bind("payments", server, None).expect("a role");
    call(&wire).await.expect("the same wire works now");
    let fault = call(&mesh.caller(Role::Catalog).wire("payments")).await.expect_err("another role's view");
    assert!(fault.is_common("CALLER_NOT_ALLOWED"), "{fault:?}");
    assert!(mesh.bind_remote("nobody", "x:1").is_err());
}

/// A connection that its client thinks alive and its server just gave up costs calls: clients let go first.
#[test]
fn a_client_lets_a_connection_go_before_its_server_does() {
    let (client, server) = (RemoteOptions::default(), Limits::default());
    assert!(client.connection_age_max.mul_f64(1.1) < server.connection_age_max.mul_f64(0.9));
    assert!(client.streams_max <= usize::try_from(server.streams_max).expect("fits"));
    assert!(client.keepalive_interval < server.keepalive_interval, "the client's probe comes first");
}

#[tokio::test]
async fn a_status_that_lastmile_did_not_make_proves_nothing() {
    let status = Status::from_header_map(&{
        let mut headers = http::HeaderMap::new();
        headers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("14"));
        headers
    })
    .expect("a status");
    assert_eq!(RemoteFault::from(&status).effect(), Effect::Possible);
    assert_eq!(RemoteFault::from(&status).reason(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_connections_are_replaced_without_a_lost_call() {
    let limits = Limits { connection_age_max: Duration::from_millis(100), ..Limits::default() };
    let remote = RemoteOptions { connection_age_max: Duration::from_millis(70), ..RemoteOptions::default() };
    let setup = Setup { limits, remote, ..Setup::default() };
    let rig = Rig::with(Over::Remote, Role::Cases, answering(), setup).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(2);
    let mut calls = 0;
    while tokio::time::Instant::now() < end {
        call(&rig.wire).await.expect("no call is lost to a connection's end");
        calls += 1;
    }
    assert!(calls > 50, "{calls} calls");
}
