use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use runtime::Clock;
use tonic::body::Body;

use super::*;
use crate::stack::budget::Budget;
use crate::stack::chain::steps;
use crate::stack::{BreakerOptions, ClientOptions};

/// A peer that answers as told, then with OK.
struct Peer {
    answers: Mutex<VecDeque<Told>>,
    calls: AtomicU32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Unavailable,
    Denied,
    Hangs,
}

impl Handle for std::sync::Arc<Peer> {
    async fn handle(&self, request: Request) -> Response {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let body = request.into_body().collect().await.expect("whole").to_bytes();
        assert_eq!(body, "question", "each try sends the same bytes");
        let told = self.answers.lock().expect("not poisoned").pop_front();
        let code = match told {
            None => "0",
            Some(Told::Unavailable) => "14",
            Some(Told::Denied) => "7",
            Some(Told::Hangs) => std::future::pending().await,
        };
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(tonic::Status::GRPC_STATUS, http::HeaderValue::from_static(code));
        response
    }
}

struct Outcome {
    code: tonic::Code,
    calls: u32,
    took: Duration,
}

struct Bench {
    retry: std::sync::Arc<Layer>,
}

/// One retry step that several calls share, as on a wire.
struct Layer(Retry);

impl Step for std::sync::Arc<Layer> {
    async fn run(&self, request: Request, next: &impl Handle) -> Response {
        self.0.run(request, next).await
    }
}

impl Bench {
    fn new(options: Option<RetryOptions>) -> Self {
        let ids = Ids::seeded(Clock::system(), 1);
        Self { retry: std::sync::Arc::new(Layer(Retry::new(options, ids))) }
    }

    async fn call(&self, answers: &[Told], idempotent: bool) -> Outcome {
        let peer = std::sync::Arc::new(Peer { answers: Mutex::new(answers.to_vec().into()), calls: AtomicU32::new(0) });
        let client = ClientOptions { breaker: BreakerOptions::default(), ..ClientOptions::default() };
        let chain = steps().layer(Budget::new(&client)).layer(self.retry.clone()).over(peer.clone());
        let mut request = Request::new(Body::new(Full::new(Bytes::from_static(b"question"))));
        if idempotent {
            request.extensions_mut().insert(Idempotent);
        }
        let begun = Instant::now();
        let response = chain.handle(request).await;
        Outcome { code: code_of(&response), calls: peer.calls.load(Ordering::SeqCst), took: begun.elapsed() }
    }
}

fn bench() -> Bench {
    Bench::new(Some(RetryOptions::default()))
}

#[tokio::test(start_paused = true)]
async fn a_read_is_tried_again_while_its_peer_is_away_and_no_longer() {
    for (answers, code, calls) in [
        (&[][..], tonic::Code::Ok, 1),
        (&[Told::Unavailable], tonic::Code::Ok, 2),
        (&[Told::Unavailable, Told::Unavailable], tonic::Code::Ok, 3),
        (&[Told::Unavailable; 9], tonic::Code::Unavailable, 3),
        (&[Told::Hangs], tonic::Code::Ok, 2),
        (&[Told::Denied], tonic::Code::PermissionDenied, 1),
    ] {
        let outcome = bench().call(answers, true).await;
        assert_eq!((outcome.code, outcome.calls), (code, calls));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_marked_is_sent_once() {
    assert_eq!(bench().call(&[Told::Unavailable], false).await.calls, 1);
    assert_eq!(Bench::new(None).call(&[Told::Unavailable], true).await.calls, 1, "a wire without retries");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_one_for_all_tries() {
    let outcome = bench().call(&[Told::Hangs; 9], true).await;
    assert_eq!(outcome.code, tonic::Code::DeadlineExceeded);
    assert!(outcome.took <= ClientOptions::default().call_timeout, "{:?}", outcome.took);
}

#[tokio::test(start_paused = true)]
async fn retries_have_a_budget_of_their_own() {
    let bench = bench();
    let (mut calls, mut sent) = (0, 0);
    for _ in 0..1_000 {
        sent += bench.call(&[Told::Unavailable; 9], true).await.calls;
        calls += 1;
    }
    // What was saved up at the beginning, then twenty in a hundred.
    let most = calls + RetryOptions::default().budget_max + calls / 5;
    assert!(sent <= most, "{sent} tries for {calls} calls");
    assert!(sent > calls + calls / 6, "and the budget is used: {sent}");
}
