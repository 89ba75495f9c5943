//! Telemetry as a process has it: started once, exporting to a collector that speaks real OTLP, shut down last.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response};
use axum::routing::post;
use http_body_util::StreamBody;
use hyper::body::Frame;
use runtime::http::{Limits, serve};
use runtime::telemetry::{self, Config, Error, Metrics, OtlpConfig};
use runtime::{Clock, Net, Tasks};

const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// An uncompressed gRPC message of no bytes: the empty answer.
const EMPTY_MESSAGE: &[u8] = &[0; 5];

type Received = Arc<Mutex<Vec<u8>>>;

/// Takes one export and answers as gRPC wants it: a message, then the status in the trailers.
async fn collect(State(received): State<Received>, body: Bytes) -> Response<Body> {
    received.lock().expect("not poisoned").extend_from_slice(&body);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Frame::data(Bytes::from_static(EMPTY_MESSAGE)), Frame::trailers(trailers)];
    let frames = futures::stream::iter(frames.map(Ok::<_, std::convert::Infallible>));
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(Body::new(StreamBody::new(frames))).expect("a response")
}

#[tokio::test]
async fn spans_reach_the_collector_before_the_process_ends() {
    let (tasks, received) = (Tasks::new(), Received::default());
    let listener = Net::system().bind("127.0.0.1:0").await.expect("binds");
    let endpoint = format!("http://{}", listener.local_addr());
    let app = Router::new().route(EXPORT_PATH, post(collect)).with_state(received.clone());
    tasks.spawn_critical("collector", serve(listener, app, Limits::default(), tasks.clone(), Clock::system()));

    let metrics = Metrics::new();
    let config = Config { otlp: OtlpConfig { endpoint, ..OtlpConfig::default() }, ..Config::default() };
    let telemetry = telemetry::start(&config, "a-service", &metrics).expect("starts");
    let second = telemetry::start(&Config::default(), "again", &metrics);
    assert!(matches!(second, Err(Error::AlreadyStarted)));
    let mut headers = HeaderMap::new();
    tracing::info_span!("a-span").in_scope(|| telemetry::inject(&mut headers));
    assert!(headers.contains_key("traceparent"), "an exported span has an id to hand on");

    let started = tokio::time::Instant::now();
    telemetry.shutdown().await;
    assert!(started.elapsed() < Duration::from_secs(5), "the flush did not run into its deadline");
    let bytes = received.lock().expect("not poisoned").clone();
    for expected in ["a-service", "a-span"] {
        let found = bytes.windows(expected.len()).any(|window| window == expected.as_bytes());
        assert!(found, "{expected} is not among {} exported bytes", bytes.len());
    }
    assert!(!metrics.encode().contains("spans_dropped_total{why=\"export_failed\"} 1"), "{}", metrics.encode());
}
