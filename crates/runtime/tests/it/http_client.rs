//! What the client says about a call that brought no reply: above all, whether the peer may have acted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use runtime::http::{Client, Effect, Error, ErrorKind, Options};
use runtime::net::{Accept, Io, Network};
use runtime::{Clock, Listener, Net};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATIENCE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(300);
const BODY_MAX: usize = 1_000;

async fn listen() -> (Listener, String) {
    let listener = Net::system().bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().to_string();
    (listener, address)
}

fn client() -> Client {
    Client::new(Net::system(), Clock::system(), Options::default())
}

async fn get(client: &Client, uri: &str, timeout: Duration) -> Result<Response<Bytes>, Error> {
    client.send(Request::get(uri).body(Bytes::new()).expect("a request"), timeout, BODY_MAX).await
}

fn outcome(result: Result<Response<Bytes>, Error>) -> (Effect, ErrorKind) {
    let error = result.expect_err("no reply");
    (error.effect, error.kind)
}

/// Reads up to the end of one request's head.
async fn read_head(io: &mut Io) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.expect("a request comes"));
    }
    String::from_utf8(head).expect("ascii")
}

#[tokio::test]
async fn a_reply_flows_while_it_comes_under_its_cap_and_its_deadline() {
    let (listener, address) = listen().await;
    let (more, mut gate) = tokio::sync::mpsc::channel::<()>(1);
    tokio::spawn(async move {
        for length in [6, 7, 1_000] {
            let (mut io, _) = listener.accept().await.expect("accepts");
            read_head(&mut io).await;
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\none");
            io.write_all(head.as_bytes()).await.expect("writes");
            gate.recv().await.expect("the first part was read");
            io.write_all(&b"two!"[..4.min(length - 3)]).await.expect("writes");
            gate.recv().await.expect("the second part was read");
        }
    });
    let open = async |span| {
        let request = Request::get(format!("http://{address}/")).body(Bytes::new()).expect("a request");
        client().open(request, span, 6).await.expect("a reply").into_body()
    };
    let mut flow = open(PATIENCE).await;
    assert_eq!(flow.next().await.expect("more").expect("comes"), "one", "before the rest is sent");
    more.send(()).await.expect("listens");
    assert_eq!(flow.next().await.expect("more").expect("comes"), "two");
    assert!(flow.next().await.is_none());
    more.send(()).await.expect("listens");
    let mut flow = open(PATIENCE).await;
    flow.next().await.expect("more").expect("comes");
    more.send(()).await.expect("listens");
    let error = flow.next().await.expect("more").expect_err("too much");
    assert_eq!((error.kind, error.read.as_ref()), (ErrorKind::TooLarge, &b"two"[..]));
    more.send(()).await.expect("listens");
    let mut flow = open(SOON).await;
    flow.next().await.expect("more").expect("comes");
    let error = flow.next().await.expect("more").expect_err("it never goes on");
    assert_eq!((error.effect, error.kind), (Effect::Possible, ErrorKind::Timeout));
}

#[tokio::test]
async fn a_reply_is_collected_whole_under_its_cap() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut io, _) = listener.accept().await.expect("accepts");
        for (status, length) in [("418 Teapot", BODY_MAX), ("200 OK", BODY_MAX + 1)] {
            let head = read_head(&mut io).await;
            assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
            let reply = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length));
            io.write_all(reply.as_bytes()).await.expect("writes");
        }
    });
    let client = client();
    let uri = format!("http://{address}/a?b=c");
    let reply = get(&client, &uri, PATIENCE).await.expect("a reply");
    assert_eq!((reply.status(), reply.body().len()), (StatusCode::IM_A_TEAPOT, BODY_MAX));
    assert_eq!(outcome(get(&client, &uri, PATIENCE).await), (Effect::Possible, ErrorKind::TooLarge));
}

#[tokio::test]
async fn nothing_was_sent_when_no_connection_came_about() {
    let (listener, address) = listen().await;
    drop(listener);
    let refused = get(&client(), &format!("http://{address}/"), PATIENCE).await;
    assert_eq!(outcome(refused), (Effect::None, ErrorKind::Connect));
    for uri in ["/only/a/path", "ftp://127.0.0.1/", "https://127.0.0.1/"] {
        assert_eq!(outcome(get(&client(), uri, PATIENCE).await), (Effect::None, ErrorKind::Request), "{uri}");
    }
}

/// A network on which no connection ever comes about.
struct Silence;

impl Network for Silence {
    fn connect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Io>> {
        std::future::pending().boxed()
    }

    fn bind<'a>(&'a self, _: &'a str, _: bool) -> BoxFuture<'a, io::Result<Box<dyn Accept>>> {
        std::future::pending().boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_was_sent_when_the_deadline_passed_while_connecting() {
    let silent = |options| Client::new(Net::custom(Arc::new(Silence)), Clock::system(), options);
    let patient = silent(Options { connect_timeout: PATIENCE * 2, ..Options::default() });
    assert_eq!(outcome(get(&patient, "http://x/", PATIENCE).await), (Effect::None, ErrorKind::Timeout));
    let hasty = silent(Options { connect_timeout: PATIENCE / 2, ..Options::default() });
    assert_eq!(outcome(get(&hasty, "http://x/", PATIENCE).await), (Effect::None, ErrorKind::Connect));
}

#[tokio::test]
async fn the_peer_may_have_acted_once_it_has_the_request() {
    let (listener, address) = listen().await;
    let uri = format!("http://{address}/");
    let requests = Arc::new(AtomicU32::new(0));
    let counter = requests.clone();
    tokio::spawn(async move {
        for reply in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "garbage\r\n\r\n"] {
            let (mut io, _) = listener.accept().await.expect("accepts");
            read_head(&mut io).await;
            counter.fetch_add(1, Ordering::SeqCst);
            io.write_all(reply.as_bytes()).await.expect("writes");
        }
        let (mut io, _) = listener.accept().await.expect("accepts");
        read_head(&mut io).await;
        counter.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<()>().await;
    });
    for what in ["hangs up", "hangs up half way", "talks nonsense"] {
        assert_eq!(outcome(get(&client(), &uri, PATIENCE).await), (Effect::Possible, ErrorKind::Broken), "{what}");
    }
    assert_eq!(outcome(get(&client(), &uri, SOON).await), (Effect::Possible, ErrorKind::Timeout));
    assert_eq!(requests.load(Ordering::SeqCst), 4, "no request was sent twice");
}

#[tokio::test]
async fn a_connection_the_peer_closed_while_idle_costs_nothing() {
    let (listener, address) = listen().await;
    let uri = format!("http://{address}/");
    let (closed, wait) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.expect("accepts");
        read_head(&mut first).await;
        first.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("writes");
        drop(first);
        closed.send(()).expect("the test listens");
        let (mut second, _) = listener.accept().await.expect("accepts");
        read_head(&mut second).await;
        second.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("writes");
    });
    let client = client();
    assert_eq!(get(&client, &uri, PATIENCE).await.expect("a reply").status(), StatusCode::OK);
    wait.await.expect("closed");
    assert_eq!(get(&client, &uri, PATIENCE).await.expect("a reply").status(), StatusCode::NO_CONTENT);
}

struct Certified {
    certificate: CertificateDer<'static>,
    acceptor: tokio_rustls::TlsAcceptor,
}

fn certified(name: &str) -> Certified {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a configuration");
    Certified { certificate, acceptor: Arc::new(config).into() }
}

fn trusting(certificate: CertificateDer<'static>) -> Client {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Client::new(Net::system(), Clock::system(), Options { tls: Some(Arc::new(tls)), ..Options::default() })
}

#[tokio::test]
async fn a_failed_handshake_sent_nothing_and_a_good_one_carries_the_call() {
    let (listener, address) = listen().await;
    let uri = format!("https://localhost:{}/", address.rsplit_once(':').expect("a port").1);
    let server = certified("localhost");
    let trusted = server.certificate.clone();
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.expect("accepts");
            let Ok(mut tls) = server.acceptor.accept(io).await else { continue };
            let mut head = [0; 4];
            if tls.read_exact(&mut head).await.is_ok() {
                tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("writes");
            }
        }
    });
    let stranger = trusting(certified("localhost").certificate);
    assert_eq!(outcome(get(&stranger, &uri, PATIENCE).await), (Effect::None, ErrorKind::Tls));
    let reply = get(&trusting(trusted), &uri, PATIENCE).await.expect("a reply");
    assert_eq!(reply.body(), "ok");
}
