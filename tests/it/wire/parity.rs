//! A local wire and a remote one are the same wire: every case runs over both, and over a local one that crosses to another runtime.

use std::sync::Arc;
use std::time::Duration;

use contracts::cases::v1::{WatchCaseRequest, WatchCaseResponse, case_service_client::CaseServiceClient};
use contracts::department::v1::{QueryRequest, QueryResponse, department_service_client::DepartmentServiceClient};
use contracts::payments::v1::{GetOrderRequest, GetOrderResponse, Order, payment_service_client::PaymentServiceClient};
use futures::StreamExt;
use prost::Message;
use rpc::{Effect, Kind, RemoteFault, Role, ServerOptions};
use tonic::{Code, Request, Response, Status};

use super::rig::{EVERY, GET_ORDER, Over, QUERY, Rig, Seen, Setup, WATCH_CASE, streaming, unary};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Smuggled(&'static str);

fn order(id: &str) -> GetOrderResponse {
    GetOrderResponse { order: Some(Order { order_id: id.to_owned(), ..Order::default() }) }
}

fn get(id: &str) -> GetOrderRequest {
    GetOrderRequest { order_id: id.to_owned(), ..GetOrderRequest::default() }
}

fn fault(status: &Status) -> RemoteFault {
    RemoteFault::from(status)
}

// The four leaks.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extensions_do_not_cross_in_either_direction() {
    for over in EVERY {
        let routes = unary(GET_ORDER, |request: Request<GetOrderRequest>| async move {
            let seen = request.extensions().get::<Smuggled>().cloned();
            let mut response = Response::new(order(if seen.is_none() { "clean" } else { "leaked" }));
            response.extensions_mut().insert(Smuggled("back"));
            Ok(response)
        });
        let rig = Rig::new(over, Role::Cases, routes).await;
        let mut request = Request::new(get("a"));
        request.extensions_mut().insert(Smuggled("there"));
        let response = PaymentServiceClient::new(rig.wire.clone()).get_order(request).await.expect("answers");
        assert_eq!(response.extensions().get::<Smuggled>(), None, "{over:?}");
        assert_eq!(response.into_inner(), order("clean"), "{over:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callers_deadline_ends_the_call_at_the_server() {
    for over in EVERY {
        let seen = Seen::default();
        let noted = seen.clone();
        let routes = unary(GET_ORDER, move |_: Request<GetOrderRequest>| {
            let noted = noted.clone();
            async move {
                let _gone = OnDrop(noted, "dropped");
                std::future::pending::<Result<Response<GetOrderResponse>, Status>>().await
            }
        });
        let rig = Rig::new(over, Role::Cases, routes).await;
        let mut request = Request::new(get("a"));
        request.set_timeout(Duration::from_millis(200));
        let begun = tokio::time::Instant::now();
        let status = PaymentServiceClient::new(rig.wire.clone()).get_order(request).await.expect_err("too late");
        assert!(begun.elapsed() < Duration::from_secs(3), "{over:?}");
        assert_eq!(status.code(), Code::DeadlineExceeded, "{over:?}");
        assert!(fault(&status).is_common("DEADLINE_EXCEEDED"), "{over:?}: {status:?}");
        assert_eq!(fault(&status).effect(), Effect::Possible, "{over:?}: the handler was running");
        seen.wait_for("dropped", 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_own_limit_holds_without_a_deadline_of_the_caller() {
    for over in EVERY {
        let routes = unary(GET_ORDER, |_: Request<GetOrderRequest>| async move {
            std::future::pending::<Result<Response<GetOrderResponse>, Status>>().await
        });
        let server = ServerOptions { call_timeout_max: Duration::from_millis(200), ..ServerOptions::default() };
        let rig = Rig::with(over, Role::Cases, routes, Setup { server, ..Setup::default() }).await;
        let status = PaymentServiceClient::new(rig.wire.clone()).get_order(get("a")).await.expect_err("too late");
        assert!(fault(&status).is_common("DEADLINE_EXCEEDED"), "{over:?}: {status:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_refuses_at_once() {
    for over in EVERY {
        let release = runtime::watch::Sender::new(false);
        let gate = release.subscribe();
        let seen = Seen::default();
        let noted = seen.clone();
        let routes = unary(GET_ORDER, move |_: Request<GetOrderRequest>| {
            let (noted, mut gate) = (noted.clone(), gate.clone());
            async move {
                noted.note("entered");
                gate.wait_for(|open| *open).await.expect("the gate lives");
                Ok(Response::new(order("a")))
            }
        });
        let server = ServerOptions { calls_max: 2, ..ServerOptions::default() };
        let rig = Rig::with(over, Role::Cases, routes, Setup { server, ..Setup::default() }).await;
        let client = PaymentServiceClient::new(rig.wire.clone());
        let calls: Vec<_> = (0..2)
            .map(|_| {
                let mut client = client.clone();
                async move { client.get_order(get("a")).await }
            })
            .collect();
        let held = rig.context.tasks.run_to_end("test.held", futures::future::join_all(calls));
        let mut held = std::pin::pin!(held);
        let refused = async {
            seen.wait_for("entered", 2).await;
            client.clone().get_order(get("a")).await.expect_err("full")
        };
        let status = tokio::select! {
            status = refused => status,
            _ = &mut held => panic!("the held calls ended early"),
        };
        assert_eq!(status.code(), Code::ResourceExhausted, "{over:?}");
        assert!(fault(&status).is_common("OVERLOADED"), "{over:?}");
        assert_eq!(fault(&status).effect(), Effect::None, "{over:?}");
        release.send_modify(|open| *open = true);
        for outcome in held.await.expect("ran to its end") {
            outcome.expect("answers");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_is_an_answer_and_the_next_call_works() {
    for over in EVERY {
        let routes = unary(GET_ORDER, |request: Request<GetOrderRequest>| async move {
            assert!(request.get_ref().order_id != "bad", "on purpose: the secret is 42");
            Ok(Response::new(order("good")))
        });
        let rig = Rig::new(over, Role::Cases, routes).await;
        let mut client = PaymentServiceClient::new(rig.wire.clone());
        let status = client.get_order(get("bad")).await.expect_err("panics");
        assert_eq!(status.code(), Code::Internal, "{over:?}");
        assert!(fault(&status).is_common("INTERNAL"), "{over:?}");
        assert_eq!(fault(&status).effect(), Effect::Possible, "{over:?}");
        assert!(!format!("{status:?}").contains("42"), "{over:?}: {status:?}");
        assert_eq!(client.get_order(get("good")).await.expect("answers").into_inner(), order("good"), "{over:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_principal_is_the_role_and_no_header_changes_it() {
    for over in EVERY {
        let routes = unary(GET_ORDER, |request: Request<GetOrderRequest>| async move {
            Ok(Response::new(order(rpc::principal(&request).label())))
        });
        let rig = Rig::new(over, Role::Cases, routes).await;
        let mut request = Request::new(get("a"));
        for name in ["x-lastmile-role", "lastmile-role", "x-forwarded-client-cert", "role"] {
            request.metadata_mut().insert(name, "gateway".parse().expect("a value"));
        }
        request.extensions_mut().insert(rpc::Principal::Role(Role::Gateway));
        let response = PaymentServiceClient::new(rig.wire.clone()).get_order(request).await.expect("answers");
        assert_eq!(response.into_inner(), order("cases"), "{over:?}");
    }
}

// What else must not differ.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_not_call_is_refused_before_the_handler() {
    for over in EVERY {
        let seen = Seen::default();
        let noted = seen.clone();
        let routes = unary(GET_ORDER, move |_: Request<GetOrderRequest>| {
            noted.note("entered");
            async { Ok(Response::new(order("a"))) }
        });
        let rig = Rig::new(over, Role::Adapter, routes).await;
        let status = PaymentServiceClient::new(rig.wire.clone()).get_order(get("a")).await.expect_err("refused");
        assert_eq!(status.code(), Code::PermissionDenied, "{over:?}");
        assert!(fault(&status).is_common("CALLER_NOT_ALLOWED"), "{over:?}");
        assert_eq!(fault(&status).metadata("caller"), Some("adapter"), "{over:?}");
        assert_eq!(seen.all(), [] as [&str; 0], "{over:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handler_sees_the_same_metadata() {
    let mut sets = Vec::new();
    for over in EVERY {
        let seen = Seen::default();
        let noted = seen.clone();
        let routes = unary(GET_ORDER, move |request: Request<GetOrderRequest>| {
            let mut names: Vec<_> = request.metadata().as_ref().keys().map(ToString::to_string).collect();
            names.sort();
            noted.note(names.join(" "));
            async { Ok(Response::new(order("a"))) }
        });
        let rig = Rig::new(over, Role::Cases, routes).await;
        let mut request = Request::new(get("a"));
        request.metadata_mut().insert("x-own", "1".parse().expect("a value"));
        request.metadata_mut().insert_bin("x-own-bin", tonic::metadata::MetadataValue::from_bytes(&[0, 255]));
        PaymentServiceClient::new(rig.wire.clone()).get_order(request).await.expect("answers");
        sets.extend(seen.all());
    }
    assert_eq!(sets.len(), EVERY.len());
    assert!(sets.iter().all(|set| *set == sets[0]), "{sets:#?}");
    assert!(sets[0].contains("x-own") && sets[0].contains("x-request-id") && sets[0].contains("grpc-timeout"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_shrinks_from_hop_to_hop_and_the_request_id_stays() {
    for over in EVERY {
        let inner = unary(GET_ORDER, |_: Request<GetOrderRequest>| async move {
            let call = rpc::call::current().expect("inside a call");
            let left = call.deadline.expect("has a deadline") - tokio::time::Instant::now();
            Ok(Response::new(order(&format!("{} {}", call.request_id, left.as_millis()))))
        });
        let second = Arc::new(Rig::new(over, Role::Cases, inner).await);
        let hop = second.clone();
        let outer = unary(GET_ORDER, move |request: Request<GetOrderRequest>| {
            let hop = hop.clone();
            async move { PaymentServiceClient::new(hop.wire.clone()).get_order(request.into_inner()).await }
        });
        let first = Rig::new(over, Role::Cases, outer).await;
        let mut request = Request::new(get("a"));
        request.set_timeout(Duration::from_millis(1_000));
        request.metadata_mut().insert("x-request-id", "trace-me_1".parse().expect("a value"));
        let response = PaymentServiceClient::new(first.wire.clone()).get_order(request).await.expect("answers");
        assert_eq!(response.metadata().get("x-request-id").expect("is there"), "trace-me_1", "{over:?}");
        let told = response.into_inner().order.expect("an order").order_id;
        let (id, left) = told.split_once(' ').expect("two words");
        assert_eq!(id, "trace-me_1", "{over:?}");
        let left: u64 = left.parse().expect("a number");
        assert!((1..=995).contains(&left), "{over:?}: {left} ms left after a hop");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_arrives_with_all_its_details() {
    #[derive(Debug, thiserror::Error)]
    #[error("no such order")]
    struct NoOrder;
    impl rpc::Fault for NoOrder {
        fn kind(&self) -> Kind {
            Kind::NotFound
        }
        fn reason(&self) -> &'static str {
            "ORDER_NOT_FOUND"
        }
        fn domain(&self) -> &'static str {
            "payments.lastmile"
        }
        fn effect(&self) -> Effect {
            Effect::None
        }
        fn metadata(&self) -> Vec<(&'static str, String)> {
            vec![("capturedMinor", "12".into()), ("channelCode", "闽".into())]
        }
    }
    let mut read = Vec::new();
    for over in EVERY {
        let routes = unary(GET_ORDER, |_: Request<GetOrderRequest>| async move {
            Err::<Response<GetOrderResponse>, _>(rpc::status(&NoOrder))
        });
        let rig = Rig::new(over, Role::Cases, routes).await;
        let mut request = Request::new(get("a"));
        request.metadata_mut().insert("x-request-id", "same".parse().expect("a value"));
        let status = PaymentServiceClient::new(rig.wire.clone()).get_order(request).await.expect_err("not found");
        assert!(fault(&status).is("payments.lastmile", "ORDER_NOT_FOUND"), "{over:?}: {status:?}");
        assert_eq!(fault(&status).metadata("channelCode"), Some("闽"), "{over:?}");
        assert_eq!(fault(&status).request_id(), "same", "{over:?}");
        read.push((fault(&status), status.details().to_vec()));
    }
    assert!(read.windows(2).all(|pair| pair[0] == pair[1]), "byte for byte the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_cancels_the_handler() {
    for over in EVERY {
        let seen = Seen::default();
        let noted = seen.clone();
        let routes = unary(GET_ORDER, move |_: Request<GetOrderRequest>| {
            let noted = noted.clone();
            async move {
                noted.note("entered");
                let _gone = OnDrop(noted, "dropped");
                std::future::pending::<Result<Response<GetOrderResponse>, Status>>().await
            }
        });
        let rig = Rig::new(over, Role::Cases, routes).await;
        let mut client = PaymentServiceClient::new(rig.wire.clone());
        tokio::select! {
            _ = client.get_order(get("a")) => panic!("the handler never answers"),
            () = seen.wait_for("entered", 1) => {}
        }
        seen.wait_for("dropped", 1).await;
    }
}

fn step(sequence: i64) -> WatchCaseResponse {
    let event = contracts::cases::v1::CaseEvent { sequence, ..Default::default() };
    WatchCaseResponse { event: Some(event), case: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_flows_in_order_and_ends_with_its_status() {
    for over in EVERY {
        let routes = streaming(WATCH_CASE, |_: Request<WatchCaseRequest>| async move {
            let steps = futures::stream::iter((1..=1_000).map(|n| Ok(step(n))))
                .chain(futures::stream::once(async { Err(rpc::status(&Full)) }));
            Ok(Response::new(Box::pin(steps) as rpc::BoxStream<WatchCaseResponse>))
        });
        let rig = Rig::new(over, Role::Gateway, routes).await;
        let mut client = CaseServiceClient::new(rig.wire.clone());
        let mut stream = client.watch_case(WatchCaseRequest::default()).await.expect("opens").into_inner();
        for expected in 1..=1_000 {
            let got = stream.message().await.expect("flows").expect("is there");
            assert_eq!(got, step(expected), "{over:?}");
        }
        let end = stream.message().await.expect_err("ends with its status");
        assert!(fault(&end).is("test.lastmile", "FULL"), "{over:?}: {end:?}");
    }
}

#[derive(Debug, thiserror::Error)]
#[error("full")]
struct Full;

impl rpc::Fault for Full {
    fn kind(&self) -> Kind {
        Kind::Exhausted
    }
    fn reason(&self) -> &'static str {
        "FULL"
    }
    fn domain(&self) -> &'static str {
        "test.lastmile"
    }
    fn effect(&self) -> Effect {
        Effect::None
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_produced_no_faster_than_it_is_read_and_stops_with_its_reader() {
    for over in EVERY {
        let seen = Seen::default();
        let noted = seen.clone();
        let routes = streaming(WATCH_CASE, move |_: Request<WatchCaseRequest>| {
            let noted = noted.clone();
            async move {
                let gone = OnDrop(noted.clone(), "dropped");
                let steps = futures::stream::iter(1..).map(move |n| {
                    let _ = &gone;
                    noted.note("made");
                    let mut step = step(n);
                    step.event.as_mut().expect("an event").reason = "x".repeat(10_000);
                    Ok(step)
                });
                Ok(Response::new(Box::pin(steps) as rpc::BoxStream<WatchCaseResponse>))
            }
        });
        let rig = Rig::new(over, Role::Gateway, routes).await;
        let mut client = CaseServiceClient::new(rig.wire.clone());
        let mut stream = client.watch_case(WatchCaseRequest::default()).await.expect("opens").into_inner();
        stream.message().await.expect("flows").expect("is there");
        let made = seen.rests().await;
        // 1 MiB of window and buffers of some hundred KiB hold at most a few hundred messages of 10 KB.
        assert!(made < 600, "{over:?}: {made} messages were made for one reader of one");
        drop(stream);
        seen.wait_for("dropped", 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_in_a_stream_is_its_end_and_nobody_elses() {
    for over in EVERY {
        let routes = streaming(WATCH_CASE, |_: Request<WatchCaseRequest>| async move {
            let steps = futures::stream::iter(1..).then(|n| async move {
                // Each step in a frame of its own: the encoder sends what it has when the stream pauses.
                tokio::task::yield_now().await;
                assert!(n < 3, "on purpose");
                Ok(step(n))
            });
            Ok(Response::new(Box::pin(steps) as rpc::BoxStream<WatchCaseResponse>))
        });
        let rig = Rig::new(over, Role::Gateway, routes).await;
        let mut client = CaseServiceClient::new(rig.wire.clone());
        for _ in 0..2 {
            let mut stream = client.watch_case(WatchCaseRequest::default()).await.expect("opens").into_inner();
            assert_eq!(stream.message().await.expect("flows"), Some(step(1)), "{over:?}");
            assert_eq!(stream.message().await.expect("flows"), Some(step(2)), "{over:?}");
            let status = stream.message().await.expect_err("panics");
            assert!(fault(&status).is_common("INTERNAL"), "{over:?}: {status:?}");
            assert!(!fault(&status).request_id().is_empty(), "{over:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_by_itself_within_its_age() {
    for over in EVERY {
        let routes = streaming(WATCH_CASE, |_: Request<WatchCaseRequest>| async move {
            let steps = futures::stream::once(async { Ok(step(1)) }).chain(futures::stream::pending());
            Ok(Response::new(Box::pin(steps) as rpc::BoxStream<WatchCaseResponse>))
        });
        let server = ServerOptions { stream_age_max: Duration::from_millis(300), ..ServerOptions::default() };
        let rig = Rig::with(over, Role::Gateway, routes, Setup { server, ..Setup::default() }).await;
        let mut client = CaseServiceClient::new(rig.wire.clone());
        let mut stream = client.watch_case(WatchCaseRequest::default()).await.expect("opens").into_inner();
        assert_eq!(stream.message().await.expect("flows"), Some(step(1)), "{over:?}");
        let end = tokio::time::timeout(Duration::from_secs(5), stream.message()).await.expect("ends in time");
        assert_eq!(end.expect("ends with OK, so that the reader resumes"), None, "{over:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_would_grow_is_refused_before_it_is_decoded() {
    for over in EVERY {
        let seen = Seen::default();
        let noted = seen.clone();
        let routes = unary(QUERY, move |_: Request<QueryRequest>| {
            noted.note("entered");
            async { Ok(Response::new(QueryResponse::default())) }
        });
        let rig = Rig::new(over, Role::Gateway, routes).await;
        let mut client = DepartmentServiceClient::new(rig.wire.clone());
        client.query(query(900)).await.expect("within the limits");
        let status = client.query(query(1_100)).await.expect_err("too many values");
        assert_eq!(status.code(), Code::InvalidArgument, "{over:?}");
        assert!(fault(&status).is_common("LIMIT_EXCEEDED"), "{over:?}: {status:?}");
        assert_eq!(fault(&status).metadata("limit"), Some("structValues"), "{over:?}");
        let mut long = query(1);
        long.item = "x".repeat(1024 * 1024);
        let status = client.query(long).await.expect_err("too long");
        assert_eq!(fault(&status).metadata("limit"), Some("messageBytes"), "{over:?}: {status:?}");
        assert_eq!(seen.all().len(), 1, "{over:?}");
    }
}

/// Four MiB of message and no byte more, wherever the peer is: the longest comes whole, and what is longer is the peer's own error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_has_its_longest_length() {
    const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
    let of_length = |length: usize| {
        let spare = order(&"x".repeat(length)).encoded_len() - length;
        order(&"x".repeat(length - spare))
    };
    let mut told = Vec::new();
    for over in EVERY {
        let routes = unary(GET_ORDER, move |request: Request<GetOrderRequest>| async move {
            let length: usize = request.into_inner().order_id.parse().expect("a number");
            Ok(Response::new(of_length(length)))
        });
        let rig = Rig::new(over, Role::Cases, routes).await;
        let mut client = PaymentServiceClient::new(rig.wire.clone());
        let longest = client.get_order(get(&ANSWER_BYTES_MAX.to_string())).await.expect("the longest").into_inner();
        assert_eq!(longest.encoded_len(), ANSWER_BYTES_MAX, "{over:?}");
        // More often than a breaker lets failures through.
        for length in [ANSWER_BYTES_MAX + 1; 10].into_iter().chain([2 * ANSWER_BYTES_MAX]) {
            let status = client.get_order(get(&length.to_string())).await.expect_err("too long");
            assert!(fault(&status).is_common("INTERNAL"), "{over:?}: {status:?}");
            told.push((fault(&status).effect(), fault(&status).code()));
        }
        assert_eq!(client.get_order(get("1000")).await.expect("goes on").into_inner().encoded_len(), 1_000, "{over:?}");
    }
    assert!(told.iter().all(|told| *told == (Effect::Possible, Code::Internal)), "{told:?}");
}

fn query(values: usize) -> QueryRequest {
    use prost_types::{ListValue, Struct, Value, value::Kind};
    let zeros = (0..values).map(|_| Value { kind: Some(Kind::NumberValue(0.0)) }).collect();
    let list = Value { kind: Some(Kind::ListValue(ListValue { values: zeros })) };
    let input = Some(Struct { fields: [("x".to_owned(), list)].into() });
    QueryRequest { item: "traffic.violation".into(), region: "430100".into(), input, ..QueryRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_work_stays_off_the_callers_threads() {
    let seen = Seen::default();
    let noted = seen.clone();
    let routes = streaming(WATCH_CASE, move |_: Request<WatchCaseRequest>| {
        let noted = noted.clone();
        noted.note(thread());
        async move {
            let steps = futures::stream::iter(1..=50).map(move |n| {
                noted.note(thread());
                Ok(step(n))
            });
            Ok(Response::new(Box::pin(steps) as rpc::BoxStream<WatchCaseResponse>))
        }
    });
    let rig = Rig::new(Over::LocalThread, Role::Gateway, routes).await;
    let mut client = CaseServiceClient::new(rig.wire.clone());
    let stream = client.watch_case(WatchCaseRequest::default()).await.expect("opens").into_inner();
    assert_eq!(stream.count().await, 50);
    let threads = seen.all();
    assert_eq!(threads.len(), 51);
    assert!(threads.iter().all(|name| name == "service"), "{threads:?}");
}

fn thread() -> String {
    std::thread::current().name().unwrap_or("nameless").to_owned()
}

/// Notes when it is dropped.
struct OnDrop(Seen, &'static str);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.note(self.1);
    }
}
