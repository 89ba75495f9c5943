//! The accept loop against peers that mean no good: each resource that a stranger can hold comes back.

use std::time::Duration;

use bytes::Bytes;
use contracts::payments::v1::{GetOrderRequest, GetOrderResponse};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rpc::tls::ServerIdentity;
use rpc::{Limits, RemoteFault, Role, ServerOptions, Trust};
use runtime::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::rig::{GET_ORDER, Seen, listen, pem, stacked, unary};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const SHORT: Duration = Duration::from_millis(200);
/// How long anything here may take before it counts as held for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server for 127.0.0.1 as the role cases, over plain bytes.
struct Rig {
    context: Context,
    address: String,
    seen: Seen,
}

impl Rig {
    async fn new(limits: Limits, options: ServerOptions) -> Self {
        let roles = [([127, 0, 0, 1].into(), Role::Cases)].into();
        Self::with(limits, options, Trust::Addresses(roles)).await
    }

    async fn with(limits: Limits, options: ServerOptions, trust: Trust) -> Self {
        let (context, seen) = (Context::system(), Seen::default());
        let noted = seen.clone();
        let routes = unary(GET_ORDER, move |_: Request<GetOrderRequest>| {
            noted.note("entered");
            async { Ok(Response::new(GetOrderResponse::default())) }
        });
        let address = listen(stacked(routes, &context, &options), trust, limits, &context).await;
        Self { context, address, seen }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.expect("connects")
    }

    async fn http2(&self) -> hyper::client::conn::http2::SendRequest<Gathered> {
        let io = TokioIo::new(self.connect().await);
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("shakes hands");
        self.context.tasks.spawn("test.connection", async move {
            let _ = connection.await;
        });
        sender
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.context.tasks.abort();
    }
}

type Gathered = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

fn whole(bytes: Vec<u8>) -> Gathered {
    http_body_util::Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync()
}

/// Some bytes, and then nothing for ever.
fn begun(bytes: Vec<u8>) -> Gathered {
    let frames = futures::stream::iter([Ok(http_body::Frame::data(Bytes::from(bytes)))]);
    let frames = futures::StreamExt::chain(frames, futures::stream::pending());
    http_body_util::StreamBody::new(frames).boxed_unsync()
}

fn grpc() -> http::request::Builder {
    http::Request::post(format!("http://payments{GET_ORDER}")).header("content-type", "application/grpc")
}

async fn fault(sender: &mut hyper::client::conn::http2::SendRequest<Gathered>, body: Gathered) -> RemoteFault {
    let request = grpc().body(body).expect("a request");
    let answered = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("in time");
    let response = answered.expect("answers");
    let status = Status::from_header_map(response.headers()).expect("a status");
    RemoteFault::from(&status)
}

/// Reads until the other side closes, and says how long that took.
async fn until_closed(stream: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    let mut bytes = [0; 1_024];
    let closed = async {
        loop {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("closed in time");
    begun.elapsed()
}

fn quick() -> Limits {
    Limits { first_request_timeout: SHORT, handshake_timeout: SHORT, ..Limits::default() }
}

#[tokio::test]
async fn silence_before_the_first_request_ends_the_connection() {
    for http1 in [false, true] {
        let rig = Rig::new(Limits { http1, ..quick() }, ServerOptions::default()).await;
        for bytes in [&b""[..], &PREFACE[..10], PREFACE, b"GET / HTTP/1.1\r\nhost"] {
            let mut stream = rig.connect().await;
            stream.write_all(bytes).await.expect("writes");
            let held = until_closed(&mut stream).await;
            assert!(held < Duration::from_secs(5), "{bytes:?}: held for {held:?}");
        }
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_come_ends_the_connection() {
    let trust = Trust::Mutual(ServerIdentity::mutual(&pem(Role::Payments)).expect("an identity"));
    let limits = Limits { first_request_timeout: PATIENCE * 2, ..quick() };
    let rig = Rig::with(limits, ServerOptions::default(), trust).await;
    for bytes in [&b""[..], b"\x16\x03\x01", PREFACE] {
        let mut stream = rig.connect().await;
        stream.write_all(bytes).await.expect("writes");
        until_closed(&mut stream).await;
    }
}

/// The cap on all of them, whatever their addresses: one more is closed, and one that closes makes room.
#[tokio::test]
async fn a_listener_has_so_many_connections_in_all() {
    let limits = Limits { connections_max: 2, ..Limits::default() };
    let rig = Rig::new(limits, ServerOptions::default()).await;
    let mut first = ByHand::to(&rig.address).await;
    let mut second = ByHand::to(&rig.address).await;
    first.told().await;
    second.told().await;
    for _ in 0..3 {
        until_closed(&mut rig.connect().await).await;
    }
    drop(first);
    let again = async {
        loop {
            let mut third = ByHand::to(&rig.address).await;
            if third.stream.write_all(&frame(h2c::PING, 0, 0, b"are you?")).await.is_ok()
                && third.frame().await.is_some()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("there is a place again");
    second.told().await;
}

#[tokio::test]
async fn one_address_gets_so_many_connections_and_a_closed_one_counts_no_more() {
    let limits = Limits { connections_per_ip_max: 2, ..Limits::default() };
    let rig = Rig::new(limits, ServerOptions::default()).await;
    let mut first = rig.http2().await;
    let mut second = rig.http2().await;
    for sender in [&mut first, &mut second] {
        let request = grpc().body(whole(vec![0; 5])).expect("a request");
        assert_eq!(sender.send_request(request).await.expect("answers").status(), 200);
    }
    let mut third = rig.connect().await;
    until_closed(&mut third).await;
    let metrics = rig.context.metrics.encode();
    assert!(metrics.contains("lastmile_rpc_connections_refused_total{"), "{metrics}");
    drop(first);
    let again = async {
        loop {
            let io = TokioIo::new(rig.connect().await);
            if let Ok((mut sender, connection)) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await
            {
                rig.context.tasks.spawn("test.connection", async move {
                    let _ = connection.await;
                });
                let request = grpc().body(whole(vec![0; 5])).expect("a request");
                if sender.send_request(request).await.is_ok() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("there is a place again");
}

#[tokio::test]
async fn a_connection_has_a_hundred_streams_and_no_more() {
    let rig = Rig::new(Limits::default(), ServerOptions::default()).await;
    let (sender, connection) = h2::client::handshake(rig.connect().await).await.expect("shakes hands");
    rig.context.tasks.spawn("test.connection", async move {
        let _ = connection.await;
    });
    let mut sender = sender.ready().await.expect("is ready");
    let request = grpc().body(()).expect("a request");
    let (answer, mut body) = sender.send_request(request, false).expect("sends");
    body.send_data(Bytes::from_static(&[0; 5]), true).expect("sends");
    assert_eq!(answer.await.expect("answers").status(), 200);
    assert_eq!(sender.current_max_send_streams(), 100);
}

/// HTTP/2 by hand: a client that need not keep the rules.
struct ByHand {
    stream: TcpStream,
    read: Vec<u8>,
}

/// Kinds of frames, and reasons to end a stream or a connection (RFC 9113, 6 and 7).
mod h2c {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const FLOW_CONTROL_ERROR: u32 = 3;
    pub(super) const REFUSED_STREAM: u32 = 7;
}

struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `POST http /`, whose body is to come.
fn post(stream: u32) -> Vec<u8> {
    frame(h2c::HEADERS, 4, stream, &[0x83, 0x86, 0x84])
}

impl ByHand {
    async fn to(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(PREFACE).await.expect("writes");
        Self { stream, read: Vec::new() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("writes");
    }

    /// The next frame; none at the end.
    async fn frame(&mut self) -> Option<Frame> {
        let whole = async {
            loop {
                if let Some((head, rest)) = self.read.split_at_checked(9) {
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                    if let Some(payload) = rest.get(..length) {
                        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                        let found = Frame { kind: head[3], stream, payload: payload.to_vec() };
                        self.read.drain(..9 + length);
                        return Some(found);
                    }
                }
                if self.stream.read_buf(&mut self.read).await.ok()? == 0 {
                    return None;
                }
            }
        };
        tokio::time::timeout(PATIENCE, whole).await.expect("says something or closes")
    }

    /// What the server has said until it answers a ping, which comes after what it was sent before.
    async fn told(&mut self) -> Vec<Frame> {
        self.send(&frame(h2c::PING, 0, 0, b"are you?")).await;
        let mut told = Vec::new();
        while let Some(frame) = self.frame().await {
            if frame.kind == h2c::PING && frame.payload == b"are you?" {
                return told;
            }
            told.push(frame);
        }
        panic!("the connection was closed");
    }
}

fn code_of(frame: &Frame, at: usize) -> u32 {
    u32::from_be_bytes(frame.payload[at..at + 4].try_into().expect("four bytes"))
}

/// Resets in what was told, by stream and reason.
fn resets(told: &[Frame]) -> Vec<(u32, u32)> {
    told.iter().filter(|frame| frame.kind == h2c::RST_STREAM).map(|frame| (frame.stream, code_of(frame, 0))).collect()
}

/// How much more may be sent on the connection, after what was told.
fn widened(told: &[Frame]) -> u32 {
    let updates = told.iter().filter(|frame| (frame.kind, frame.stream) == (h2c::WINDOW_UPDATE, 0));
    updates.map(|frame| code_of(frame, 0)).sum()
}

/// Serves whoever never reads what it is sent, with the limits of a listener of ours.
async fn served_unread(context: &Context) -> String {
    let listener = context.net.bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().to_string();
    let service = tower::service_fn(|request: http::Request<rpc::Inbound>| {
        Box::pin(async move {
            let _held = request;
            std::future::pending::<Result<http::Response<tonic::body::Body>, std::convert::Infallible>>().await
        })
    });
    let own = context.clone();
    context.tasks.spawn("test.serve", async move {
        rpc::serve(listener, Trust::Plain, service, Limits::default(), own).await.expect("serves");
    });
    address
}

/// 100 streams, 64 KiB on each, 1 MiB on all, 16 KiB of header fields: what a connection begins with.
#[tokio::test]
async fn what_a_connection_may_hold_is_the_first_thing_that_is_said() {
    let rig = Rig::new(Limits::default(), ServerOptions::default()).await;
    let mut peer = ByHand::to(&rig.address).await;
    let told = peer.told().await;
    let settings: Vec<_> = told[0].payload.chunks(6).map(|one| (one[1], one[2..].to_vec())).collect();
    assert_eq!((told[0].kind, told[0].stream), (h2c::SETTINGS, 0));
    // MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_HEADER_LIST_SIZE.
    for (name, value) in [(3, 100_u32), (4, 64 * 1024), (6, 16 * 1024)] {
        assert!(settings.contains(&(name, value.to_be_bytes().to_vec())), "{name}: {settings:?}");
    }
    let wider: Vec<_> = told.iter().filter(|frame| frame.kind == h2c::WINDOW_UPDATE).collect();
    assert_eq!((wider.len(), wider[0].stream, code_of(wider[0], 0)), (1, 0, 1024 * 1024 - 65_535));
}

#[tokio::test]
async fn whoever_sends_more_than_a_streams_window_loses_the_stream() {
    let context = Context::system();
    let mut peer = ByHand::to(&served_unread(&context).await).await;
    let piece = frame(h2c::DATA, 0, 1, &[0; 16 * 1024]);
    peer.send(&[post(1), piece.repeat(4)].concat()).await;
    assert_eq!(resets(&peer.told().await), [], "64 KiB are taken");
    peer.send(&frame(h2c::DATA, 0, 1, b"x")).await;
    assert_eq!(resets(&peer.told().await), [(1, h2c::FLOW_CONTROL_ERROR)], "a byte more is not");
    peer.send(&[post(3), frame(h2c::DATA, 0, 3, &[0; 16 * 1024])].concat()).await;
    assert_eq!(resets(&peer.told().await), [], "the connection goes on");
    context.tasks.abort();
}

#[tokio::test]
async fn whoever_sends_more_than_the_connections_window_loses_the_connection() {
    let context = Context::system();
    let mut peer = ByHand::to(&served_unread(&context).await).await;
    // Sixteen times what one stream takes is what the connection takes.
    for nth in 0..16 {
        let id = 2 * nth + 1;
        peer.send(&[post(id), frame(h2c::DATA, 0, id, &[0; 16 * 1024]).repeat(4)].concat()).await;
    }
    let told = peer.told().await;
    assert_eq!((resets(&told), widened(&told)), (vec![], 1024 * 1024 - 65_535), "as much as was said at the beginning");
    // Who gives streams up has their windows back.
    for id in [1, 3, 5] {
        peer.send(&frame(h2c::RST_STREAM, 0, id, &8_u32.to_be_bytes())).await;
    }
    assert_eq!(widened(&peer.told().await), 3 * 64 * 1024);
    for id in [33, 35, 37] {
        peer.send(&[post(id), frame(h2c::DATA, 0, id, &[0; 16 * 1024]).repeat(4)].concat()).await;
    }
    let told = peer.told().await;
    assert_eq!((resets(&told), widened(&told)), (vec![], 0), "nothing is read");
    peer.send(&[post(39), frame(h2c::DATA, 0, 39, b"x")].concat()).await;
    let reason = loop {
        let frame = peer.frame().await.expect("is told why");
        if frame.kind == h2c::GOAWAY {
            break code_of(&frame, 4);
        }
    };
    assert_eq!(reason, h2c::FLOW_CONTROL_ERROR);
    assert!(peer.frame().await.is_none(), "and closed");
    context.tasks.abort();
}

#[tokio::test]
async fn of_a_hundred_and_one_streams_one_is_refused() {
    let context = Context::system();
    let mut peer = ByHand::to(&served_unread(&context).await).await;
    let streams: Vec<u8> = (0..101).flat_map(|nth| post(2 * nth + 1)).collect();
    peer.send(&streams).await;
    assert_eq!(resets(&peer.told().await), [(201, h2c::REFUSED_STREAM)]);
    // One that ends makes room.
    peer.send(&[frame(h2c::RST_STREAM, 0, 1, &8_u32.to_be_bytes()), post(203)].concat()).await;
    assert_eq!(resets(&peer.told().await), []);
    context.tasks.abort();
}

#[tokio::test]
async fn headers_beyond_16_kib_do_not_get_through() {
    let rig = Rig::new(Limits::default(), ServerOptions::default()).await;
    let mut sender = rig.http2().await;
    let send = async |sender: &mut hyper::client::conn::http2::SendRequest<Gathered>, length: usize| {
        let request = grpc().header("x-long", "a".repeat(length)).body(whole(vec![0; 5]));
        tokio::time::timeout(PATIENCE, sender.send_request(request.expect("a request"))).await.expect("in time")
    };
    assert_eq!(send(&mut sender, 8 * 1024).await.expect("answers").status(), 200);
    let refused = send(&mut sender, 20 * 1024).await;
    assert!(refused.is_err() || refused.is_ok_and(|response| response.status() == 431));
    assert_eq!(rig.seen.all().len(), 1, "the handler saw the short one only");
}

#[tokio::test]
async fn a_message_is_refused_by_its_announced_length_before_its_bytes_come() {
    let rig = Rig::new(Limits::default(), ServerOptions::default()).await;
    let mut sender = rig.http2().await;
    for length in [1024 * 1024 + 1, u32::MAX] {
        let head = [&[0][..], &length.to_be_bytes(), b"ten bytes.", &[0; 1_024]].concat();
        let refused = fault(&mut sender, begun(head)).await;
        assert!(refused.is_common("LIMIT_EXCEEDED"), "{length}: {refused:?}");
        assert_eq!(refused.metadata("limit"), Some("messageBytes"));
    }
    assert_eq!(rig.seen.all(), [] as [&str; 0]);
}

#[tokio::test]
async fn compressed_malformed_and_cut_messages_are_refused() {
    let rig = Rig::new(Limits::default(), ServerOptions::default()).await;
    let mut sender = rig.http2().await;
    let framed = |flag: u8, length: u32, bytes: &[u8]| [&[flag][..], &length.to_be_bytes(), bytes].concat();
    for (name, body, reason) in [
        ("compressed", framed(1, 2, &[8, 1]), "NOT_SERVED"),
        ("unknown flag", framed(7, 2, &[8, 1]), "NOT_SERVED"),
        ("wrong wire type", framed(0, 2, &[8, 1]), "INVALID_REQUEST"),
        ("not UTF-8", framed(0, 4, &[10, 2, 0xc3, 0x28]), "INVALID_REQUEST"),
        ("cut in the message", framed(0, 10, &[10, 8]), "INVALID_REQUEST"),
        ("cut in the frame's head", vec![0, 0, 0], "INVALID_REQUEST"),
    ] {
        let refused = fault(&mut sender, whole(body)).await;
        assert!(refused.is_common(reason), "{name}: {refused:?}");
    }
    assert_eq!(rig.seen.all(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_message_that_never_ends_is_cut_by_the_calls_limit() {
    let options = ServerOptions { call_timeout_max: SHORT, ..ServerOptions::default() };
    let rig = Rig::new(Limits::default(), options).await;
    let mut sender = rig.http2().await;
    let half = [&[0][..], &10_u32.to_be_bytes(), &[10, 8, b'a']].concat();
    let refused = fault(&mut sender, begun(half)).await;
    assert!(refused.is_common("DEADLINE_EXCEEDED"), "{refused:?}");
    assert_eq!(rig.seen.all(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_let_go() {
    let limits = Limits { keepalive_interval: SHORT, keepalive_timeout: SHORT, ..Limits::default() };
    let rig = Rig::new(limits, ServerOptions::default()).await;
    let mut stream = rig.connect().await;
    // Preface, SETTINGS, and one HEADERS frame with ":method: GET", ":scheme: http", ":path: /": a request; then nothing more.
    let headers = [0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84];
    stream.write_all(&[PREFACE, &headers].concat()).await.expect("writes");
    let held = until_closed(&mut stream).await;
    assert!(held < Duration::from_secs(5), "held for {held:?}");
}

#[tokio::test]
async fn http1_is_answered_only_where_it_is_meant() {
    for (http1, expected) in [(false, ""), (true, "HTTP/1.1")] {
        let rig = Rig::new(Limits { http1, ..quick() }, ServerOptions::default()).await;
        let mut stream = rig.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("writes");
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("in time");
        assert!(answer.starts_with(expected.as_bytes()), "{http1}: {}", String::from_utf8_lossy(&answer));
        assert_eq!(answer.windows(4).any(|bytes| bytes == b"HTTP"), http1);
    }
}

#[tokio::test]
async fn a_stop_closes_the_listener_and_idle_connections_at_once() {
    let rig = Rig::new(Limits::default(), ServerOptions::default()).await;
    let mut sender = rig.http2().await;
    let request = grpc().body(whole(vec![0; 5])).expect("a request");
    sender.send_request(request).await.expect("answers");
    rig.context.tasks.stop();
    tokio::time::timeout(PATIENCE, async {
        while !sender.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the idle connection is closed");
    assert!(rig.context.tasks.wait(Duration::from_secs(5)).await, "nothing is left running");
    assert!(TcpStream::connect(&rig.address).await.is_err(), "nobody listens");
}
