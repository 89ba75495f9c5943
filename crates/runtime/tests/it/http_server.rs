//! The limits of the plain HTTP server, one by one, as a client meets them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use runtime::config::ByteSize;
use runtime::http::{Limits, serve};
use runtime::{Clock, Io, Net, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

const PATIENCE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(200);

struct Running {
    address: String,
    tasks: Tasks,
    /// Told when the slow handler has begun.
    entered: Arc<Notify>,
}

fn app(entered: Arc<Notify>) -> Router {
    let slow = async move || {
        entered.notify_one();
        tokio::time::sleep(SOON * 2).await;
        "done"
    };
    Router::new()
        .route("/slow", get(slow))
        .route("/", get(|| async { "here" }))
        .route("/never", get(std::future::pending::<&str>))
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("on purpose")
                }
                ""
            }),
        )
        .route("/echo", post(|body: Bytes| async move { body.len().to_string() }))
}

async fn start(limits: Limits) -> Running {
    let (tasks, entered) = (Tasks::new(), Arc::new(Notify::new()));
    let listener = Net::system().bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().to_string();
    tasks.spawn_critical("http", serve(listener, app(entered.clone()), limits, tasks.clone(), Clock::system()));
    Running { address, tasks, entered }
}

impl Running {
    async fn connect(&self) -> Io {
        Net::system().connect(&self.address, PATIENCE).await.expect("connects")
    }

    /// Sends the text on a fresh connection and returns everything up to the connection's end.
    async fn talk(&self, text: &str) -> String {
        let mut io = self.connect().await;
        io.write_all(text.as_bytes()).await.expect("writes");
        hear(io).await
    }
}

async fn hear(mut io: Io) -> String {
    let mut heard = Vec::new();
    // A reset ends the conversation as well as a close does.
    let read = tokio::time::timeout(PATIENCE, io.read_to_end(&mut heard)).await;
    let _ = read.expect("the server ends the connection");
    String::from_utf8_lossy(&heard).into_owned()
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn handlers_answer_panic_and_run_late() {
    let server = start(Limits::default()).await;
    assert!(server.talk(&request("/")).await.ends_with("\r\n\r\nhere"));
    assert!(server.talk(&request("/panic")).await.starts_with("HTTP/1.1 500"));
    let hasty = start(Limits { request_timeout: SOON.into(), ..Limits::default() }).await;
    assert!(hasty.talk(&request("/never")).await.starts_with("HTTP/1.1 504"));
    assert!(server.talk(&request("/")).await.ends_with("here"), "it goes on serving");
}

#[tokio::test]
async fn a_silent_or_dripping_client_is_closed() {
    let limits = Limits { first_request_timeout: SOON.into(), idle_timeout: SOON.into(), ..Limits::default() };
    let server = start(limits).await;
    for beginning in ["", "G", "GET / HTTP/1.1\r\nx: y\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let heard = server.talk(beginning).await;
        assert!(!heard.contains("200"), "{beginning:?} was answered: {heard:?}");
    }
    let server = start(Limits { idle_timeout: SOON.into(), ..Limits::default() }).await;
    let mut io = server.connect().await;
    io.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("writes");
    assert!(hear(io).await.ends_with("here"), "answered, then closed for want of a second request");
}

#[tokio::test]
async fn an_answered_connection_outlives_the_first_request_deadline() {
    let server = start(Limits { first_request_timeout: SOON.into(), ..Limits::default() }).await;
    let text = request("/slow");
    assert!(server.talk(&text).await.ends_with("done"), "the handler takes twice the deadline");
}

#[tokio::test]
async fn large_heads_and_bodies_are_refused() {
    let limits = Limits {
        header_bytes_max: ByteSize::from_kib(8),
        body_bytes_max: ByteSize::from_bytes(10),
        ..Limits::default()
    };
    let server = start(limits).await;
    let fields = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nbig: {}\r\n\r\n", "y".repeat(9_000));
    assert!(server.talk(&fields).await.starts_with("HTTP/1.1 431"));
    let post = |length: &str, body: &str| {
        format!("POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{length}\r\n\r\n{body}")
    };
    assert!(server.talk(&post("content-length: 10", "0123456789")).await.ends_with("\r\n10"));
    assert!(server.talk(&post("content-length: 11", "0123456789a")).await.starts_with("HTTP/1.1 413"));
    let chunked = post("transfer-encoding: chunked", "b\r\n0123456789a\r\n0\r\n\r\n");
    assert!(server.talk(&chunked).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn connections_beyond_the_caps_are_closed_at_once() {
    for limits in
        [Limits { connections_max: 2, ..Limits::default() }, Limits { connections_per_ip_max: 2, ..Limits::default() }]
    {
        let server = start(limits).await;
        let (first, second) = (server.connect().await, server.connect().await);
        let third = server.connect().await;
        assert_eq!(hear(third).await, "", "the third is closed unheard");
        drop(first);
        // The seat is free once the server has seen the close.
        let freed = async {
            while server.talk(&request("/")).await.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, freed).await.expect("a seat becomes free");
        drop(second);
    }
}

#[tokio::test]
async fn the_stop_finishes_what_is_in_hand_and_takes_nothing_new() {
    let server = start(Limits::default()).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("writes");
    let mut first = [0; 1];
    idle.read_exact(&mut first).await.expect("answered");
    let mut busy = server.connect().await;
    busy.write_all(request("/slow").as_bytes()).await.expect("writes");
    server.entered.notified().await;
    server.tasks.stop();
    assert!(hear(busy).await.ends_with("done"));
    assert!(hear(idle).await.ends_with("here"));
    assert!(server.tasks.wait(PATIENCE).await);
    assert_eq!(server.tasks.failed(), None);
    assert!(Net::system().connect(&server.address, PATIENCE).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn an_old_connection_is_asked_to_close() {
    let server = start(Limits { connection_age_max: SOON.into(), ..Limits::default() }).await;
    let mut io = server.connect().await;
    io.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("writes");
    let start = tokio::time::Instant::now();
    assert!(hear(io).await.ends_with("here"));
    assert!(start.elapsed() < PATIENCE / 2, "long before the idle deadline");
}

#[tokio::test]
async fn the_same_listener_speaks_http2() {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let server = start(Limits::default()).await;
    let io = TokioIo::new(server.connect().await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("h2");
    tokio::spawn(connection);
    let request = http::Request::get("http://x/").body(http_body_util::Empty::<Bytes>::new()).expect("a request");
    let reply = sender.send_request(request).await.expect("a reply");
    assert_eq!((reply.status().as_u16(), reply.version()), (200, http::Version::HTTP_2));
}
