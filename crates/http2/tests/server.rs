//! The server's side of a connection, against a client that keeps the rules (hyper's) and one that does not (bytes).

#![allow(clippy::disallowed_methods, reason = "this crate stands below the one that has Tasks")]

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use http2::{Authorization, Connection, Error, Handler, Limits, Received};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(10);
const PIPE_BYTES: usize = 64 * 1024;
/// The preface and empty SETTINGS.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

type Answers = UnsyncBoxBody<Bytes, Infallible>;

/// What a test's service does, by path; and how much of it was begun and dropped.
#[derive(Clone, Default)]
struct Service {
    begun: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Handler for Service {
    type Body = Answers;
    type Answer = Pin<Box<dyn Future<Output = Response<Answers>> + Send>>;

    fn answer(&self, request: Request<Received>) -> Self::Answer {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let guard = Dropped(Arc::clone(&self.dropped));
        Box::pin(async move {
            let _guard = guard;
            answer(request).await
        })
    }
}

async fn answer(mut request: Request<Received>) -> Response<Answers> {
    Authorization::restore(&mut request);
    let (head, body) = request.into_parts();
    let body: Answers = match head.uri.path() {
        // The body again, with trailers.
        "/echo" => match body.collect().await {
            Ok(collected) => with_trailers(collected.to_bytes()),
            Err(_) => Full::default().boxed_unsync(),
        },
        // Each piece as it comes.
        "/pieces" => {
            let pieces = body
                .into_data_stream()
                .filter_map(|piece| std::future::ready(piece.ok().map(|piece| Ok(Frame::data(piece)))));
            StreamBody::new(pieces.boxed()).boxed_unsync()
        }
        "/long" => Full::from(vec![7; 1_000_000]).boxed_unsync(),
        "/never" => std::future::pending().await,
        "/panic" => panic!("as the test wants it"),
        // How many credentials, how many of them marked, and a note.
        "/headers" => {
            let credentials: Vec<_> = head.headers.get_all("authorization").iter().collect();
            let marked = credentials.iter().filter(|value| value.is_sensitive() && *value == &"Bearer abc").count();
            let note = head.headers.get("x-note").and_then(|note| note.to_str().ok()).unwrap_or_default();
            Full::from(format!("{} {marked} {note}", credentials.len())).boxed_unsync()
        }
        _ => Full::default().boxed_unsync(),
    };
    Response::new(body)
}

fn with_trailers(bytes: Bytes) -> Answers {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(bytes)), Ok(Frame::trailers(trailers))];
    StreamBody::new(futures::stream::iter(frames)).boxed_unsync()
}

fn limits() -> Limits {
    Limits {
        streams_max: 100,
        stream_window_bytes: 64 * 1024,
        connection_window_bytes: 1024 * 1024,
        header_list_bytes_max: 16 * 1024,
        keepalive_interval: Duration::from_secs(30),
        keepalive_timeout: Duration::from_secs(20),
        reset_cost: 10,
    }
}

struct Rig {
    service: Service,
    server: JoinHandle<Result<(), Error>>,
    stop: Arc<tokio::sync::Notify>,
}

/// A served connection and its other end.
fn serve(limits: Limits) -> (Rig, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let service = Service::default();
    let stop = Arc::new(tokio::sync::Notify::new());
    let mut connection = Box::pin(Connection::new(ours, BytesMut::new(), service.clone(), limits));
    let stopped = Arc::clone(&stop);
    let server = tokio::spawn(async move {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended,
            () = stopped.notified() => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    });
    (Rig { service, server, stop }, theirs)
}

impl Rig {
    async fn ended(self) -> Result<(), Error> {
        tokio::time::timeout(PATIENCE, self.server).await.expect("ends in time").expect("does not panic")
    }
}

async fn client(io: DuplexStream) -> SendRequest<Answers> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.expect("shakes hands");
    tokio::spawn(connection);
    sender
}

fn post(path: &str, body: Answers) -> Request<Answers> {
    Request::post(format!("http://gateway{path}")).body(body).expect("a request")
}

fn full(bytes: impl Into<Bytes>) -> Answers {
    Full::from(bytes.into()).boxed_unsync()
}

#[tokio::test]
async fn a_call_is_answered_with_its_trailers() {
    let (_rig, io) = serve(limits());
    let mut client = client(io).await;
    for length in [0, 1, 16_384, 16_385, 1_000_000] {
        let sent = Bytes::from(vec![42; length]);
        let answer = client.send_request(post("/echo", full(sent.clone()))).await.expect("answers");
        let collected = answer.into_body().collect().await.expect("is whole");
        assert_eq!(
            collected.trailers().and_then(|trailers| trailers.get("grpc-status")),
            Some(&HeaderValue::from_static("0"))
        );
        assert_eq!(collected.to_bytes(), sent, "{length} bytes");
    }
}

#[tokio::test]
async fn many_calls_go_at_once() {
    let (rig, io) = serve(limits());
    let client = client(io).await;
    let calls = (0..1_000_u32).map(|number| {
        let mut client = client.clone();
        async move {
            client.ready().await.expect("is ready");
            let sent = Bytes::from(format!("call {number} {}", "x".repeat(number as usize * 7)));
            let answer = client.send_request(post("/echo", full(sent.clone()))).await.expect("answers");
            assert_eq!(answer.into_body().collect().await.expect("is whole").to_bytes(), sent);
        }
    });
    futures::stream::iter(calls).buffer_unordered(90).collect::<Vec<()>>().await;
    assert_eq!(rig.service.begun.load(Ordering::SeqCst), 1_000);
}

#[tokio::test]
async fn a_body_is_read_while_it_comes() {
    let (_rig, io) = serve(limits());
    let mut client = client(io).await;
    let (pieces, body) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let frames = futures::stream::unfold(body, |mut body| async move {
        body.recv().await.map(|piece| (Ok::<_, Infallible>(Frame::data(piece)), body))
    });
    pieces.send("first".into()).expect("sends");
    let answer = client.send_request(post("/pieces", StreamBody::new(frames.boxed()).boxed_unsync())).await;
    let mut answer = answer.expect("answers").into_body();
    let mut next = async || answer.frame().await.map(|frame| frame.expect("a frame").into_data().expect("data"));
    assert_eq!(next().await, Some("first".into()), "before the request has ended");
    for _ in 0..40 {
        pieces.send(vec![1; 10_000].into()).expect("sends");
        let mut length = 0;
        while length < 10_000 {
            length += next().await.expect("a piece").len();
        }
    }
    drop(pieces);
    assert!(next().await.is_none_or(|end| end.is_empty()));
}

#[tokio::test]
async fn the_credential_is_where_it_is_looked_for_and_nowhere_else() {
    let (_rig, io) = serve(limits());
    let mut client = client(io).await;
    for (count, expected) in [(0, "0 0 noted"), (1, "1 1 noted"), (2, "2 2 noted")] {
        let mut request = post("/headers", full(""));
        for _ in 0..count {
            request.headers_mut().append("authorization", HeaderValue::from_static("Bearer abc"));
        }
        request.headers_mut().insert("x-note", HeaderValue::from_static("noted"));
        let answer = client.send_request(request).await.expect("answers");
        assert_eq!(answer.into_body().collect().await.expect("is whole").to_bytes(), expected);
    }
}

/// DATA of one byte with 255 of padding.
#[tokio::test]
async fn padding_gives_its_window_back() {
    let (_rig, io) = serve(limits());
    let (mut reader, mut writer) = tokio::io::split(io);
    let path = [&[0x83, 0x86, 0x04, 7][..], b"/pieces"].concat();
    let padded = frame(0, 8, 1, &[&[255, b'x'][..], &[0; 255]].concat());
    writer.write_all(&[HELLO, &frame(1, 4, 1, &path), &padded.repeat(100)].concat()).await.expect("writes");
    let mut told = Vec::new();
    let given_back = async {
        // WINDOW_UPDATE of stream 1: of 4 bytes, kind 8.
        while !told.windows(9).any(|head| head == [0, 0, 4, 8, 0, 0, 0, 0, 1]) {
            assert!(reader.read_buf(&mut told).await.expect("reads") > 0);
        }
    };
    tokio::time::timeout(PATIENCE, given_back).await.expect("more may be sent");
}

#[tokio::test]
async fn a_call_that_was_given_up_is_not_worked_on() {
    let (rig, io) = serve(limits());
    let mut client = client(io).await;
    let call = tokio::time::timeout(Duration::from_millis(50), client.send_request(post("/never", full("")))).await;
    assert!(call.is_err());
    let dropped = async {
        while rig.service.dropped.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, dropped).await.expect("the work ends");
    assert!(client.send_request(post("/echo", full("next"))).await.is_ok(), "the connection goes on");
}

#[tokio::test]
async fn a_panic_ends_its_call_alone() {
    let (_rig, io) = serve(limits());
    let mut client = client(io).await;
    assert!(client.send_request(post("/panic", full(""))).await.is_err());
    assert!(client.send_request(post("/echo", full("next"))).await.is_ok());
}

#[tokio::test]
async fn a_stop_answers_what_has_come_and_takes_nothing_more() {
    let (rig, io) = serve(limits());
    let mut client = client(io).await;
    let answer = client.send_request(post("/long", full(""))).await.expect("answers");
    rig.stop.notify_one();
    let body = answer.into_body().collect().await.expect("is whole").to_bytes();
    assert_eq!(body.len(), 1_000_000);
    assert!(matches!(rig.ended().await, Ok(())));
    assert!(client.send_request(post("/echo", full("late"))).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_peer_may_speak_until_it_has_heard_our_end() {
    for goes in [true, false] {
        let (rig, mut io) = serve(limits());
        io.write_all(HELLO).await.expect("goes");
        rig.stop.notify_one();
        let mut told = Vec::new();
        while !told.ends_with(b"draining") {
            assert_ne!(io.read_buf(&mut told).await.expect("reads"), 0);
        }
        // Its ping is answered; then all is said.
        io.write_all(&frame(6, 1, 0, b"draining")).await.expect("goes");
        tokio::time::timeout(PATIENCE, io.read_to_end(&mut told)).await.expect("in time").expect("reads");
        assert_eq!(reason(&told), Some(0), "it is asked to go");
        io.write_all(&frame(8, 0, 0, &1_u32.to_be_bytes())).await.expect("is heard");
        let io = (!goes).then_some(io);
        assert!(matches!(rig.ended().await, Ok(())), "the peer goes, or has had its time");
        drop(io);
    }
}

#[tokio::test]
async fn a_peer_that_goes_takes_its_calls_with_it() {
    let (rig, io) = serve(limits());
    let mut client = client(io).await;
    let call = tokio::spawn(async move { client.send_request(post("/never", full(""))).await.map(drop) });
    while rig.service.begun.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    call.abort();
    let _ = call.await;
    let dropped = Arc::clone(&rig.service.dropped);
    let _ = rig.ended().await;
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

/// Sends bytes and reads all that comes until the server closes; returns what it told in GOAWAY, and how the connection ended.
async fn send_bytes(limits: Limits, bytes: &[u8]) -> (Option<u32>, Result<(), Error>) {
    let (rig, io) = serve(limits);
    let (mut reader, mut writer) = tokio::io::split(io);
    let bytes = bytes.to_vec();
    let writing = tokio::spawn(async move {
        let _ = writer.write_all(&bytes).await;
        // Held open: it is the server that has to end it.
        std::future::pending::<()>().await;
    });
    let mut told = Vec::new();
    tokio::time::timeout(PATIENCE, reader.read_to_end(&mut told)).await.expect("closes in time").expect("reads");
    writing.abort();
    (reason(&told), rig.ended().await)
}

/// The reason of the last GOAWAY.
fn reason(mut frames: &[u8]) -> Option<u32> {
    let mut last = None;
    while let Some((head, rest)) = frames.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (payload, after) = rest.split_at_checked(length)?;
        if head[3] == 7 {
            last = Some(u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]));
        }
        frames = after;
    }
    last
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("is short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// HEADERS of `POST http /never`.
fn never(stream: u32, flags: u8) -> Vec<u8> {
    frame(1, flags, stream, &[&[0x83, 0x86, 0x04, 6][..], b"/never"].concat())
}

#[tokio::test]
async fn what_breaks_the_rules_is_sent_away_by_name() {
    let hello = |frames: &[Vec<u8>]| [HELLO.to_vec(), frames.concat()].concat();
    for (what, bytes, expected) in [
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n......".to_vec(), 1),
        ("no settings first", [&HELLO[..24], &frame(6, 0, 0, &[0; 8])].concat(), 1),
        ("a frame too long", hello(&[vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]]), 6),
        ("DATA of nothing", hello(&[frame(0, 0, 1, b"x")]), 1),
        ("DATA on the connection", hello(&[frame(0, 0, 0, b"x")]), 1),
        ("HEADERS on the connection", hello(&[never(0, 5)]), 1),
        ("HEADERS on an even stream", hello(&[never(2, 5)]), 1),
        ("HEADERS on a closed stream", hello(&[never(3, 5), never(1, 5)]), 5),
        ("a frame within a block", hello(&[never(1, 0), frame(6, 0, 0, &[0; 8])]), 1),
        ("CONTINUATION of nothing", hello(&[frame(9, 4, 1, &[])]), 1),
        ("a block that cannot be read", hello(&[frame(1, 5, 1, &[0x80])]), 9),
        ("more padding than payload", hello(&[frame(1, 0xd, 1, &[9, 0x83])]), 1),
        ("PING of seven bytes", hello(&[frame(6, 0, 0, &[0; 7])]), 6),
        ("PING on a stream", hello(&[frame(6, 0, 1, &[0; 8])]), 1),
        ("SETTINGS on a stream", hello(&[frame(4, 0, 1, &[])]), 1),
        ("SETTINGS cut", hello(&[frame(4, 0, 0, &[0; 5])]), 6),
        ("SETTINGS acknowledged with more", hello(&[frame(4, 1, 0, &[0; 6])]), 6),
        ("ENABLE_PUSH of two", hello(&[frame(4, 0, 0, &[0, 2, 0, 0, 0, 2])]), 1),
        ("a window too wide", hello(&[frame(4, 0, 0, &[0, 4, 0x80, 0, 0, 0])]), 3),
        ("frames too short", hello(&[frame(4, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff])]), 1),
        ("a window update of nothing", hello(&[frame(8, 0, 0, &[0; 4])]), 1),
        ("a window update beyond all", hello(&[frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff])]), 3),
        ("a window update of no stream", hello(&[frame(8, 0, 5, &[0, 0, 0, 1])]), 1),
        ("RST_STREAM of no stream", hello(&[frame(3, 0, 5, &[0; 4])]), 1),
        ("RST_STREAM cut", hello(&[never(1, 5), frame(3, 0, 1, &[0; 3])]), 6),
        ("PRIORITY cut", hello(&[frame(2, 0, 1, &[0; 4])]), 6),
        ("a promise", hello(&[frame(5, 4, 1, &[0; 4])]), 1),
        ("GOAWAY on a stream", hello(&[frame(7, 0, 1, &[0; 8])]), 1),
    ] {
        let (told, ended) = send_bytes(limits(), &bytes).await;
        assert_eq!(told, Some(expected), "{what}");
        assert!(matches!(ended, Err(Error::Peer { .. })), "{what}: {ended:?}");
    }
}

#[tokio::test]
async fn whoever_only_keeps_us_busy_is_sent_away() {
    let block = |stream: u32| never(stream, 5);
    let flood = |of: &dyn Fn(u32) -> Vec<u8>| [HELLO.to_vec(), (0..10_000).flat_map(of).collect()].concat();
    for (what, bytes) in [
        ("pings", flood(&|_| frame(6, 0, 0, &[0; 8]))),
        ("settings", flood(&|_| frame(4, 0, 0, &[]))),
        ("resets", flood(&|nth| [block(2 * nth + 1), frame(3, 0, 2 * nth + 1, &[0, 0, 0, 8])].concat())),
        ("resets by us", flood(&|nth| [block(2 * nth + 1), frame(8, 0, 2 * nth + 1, &[0; 4])].concat())),
        (
            "windows too wide",
            flood(&|nth| [block(2 * nth + 1), frame(8, 0, 2 * nth + 1, &[0x7f, 255, 255, 255])].concat()),
        ),
        ("trailers that end nothing", flood(&|nth| [never(2 * nth + 1, 4), frame(1, 4, 2 * nth + 1, &[])].concat())),
        ("priorities", flood(&|_| frame(2, 0, 1, &[0; 5]))),
        ("frames that nobody knows", flood(&|_| frame(99, 0, 0, b"x"))),
        ("empty pieces", [never(1, 4), flood(&|_| frame(0, 0, 1, &[]))].concat()),
        ("pieces of one byte", [never(1, 4), flood(&|_| frame(0, 0, 1, b"x"))].concat()),
        ("windows opened bit by bit", [block(1), flood(&|_| frame(8, 0, 1, &[0, 0, 0, 1]))].concat()),
        ("more streams than there are", flood(&|nth| block(2 * nth + 1))),
        ("malformed heads", flood(&|nth| frame(1, 5, 2 * nth + 1, &[0x83]))),
        ("a block without an end", [never(1, 0), flood(&|_| frame(9, 0, 1, b"x"))].concat()),
    ] {
        // Where the greeting does not come first, it is put there.
        let at = bytes.windows(HELLO.len()).position(|window| window == HELLO).expect("a greeting");
        let bytes = [HELLO, &bytes[..at], &bytes[at + HELLO.len()..]].concat();
        let (told, ended) = send_bytes(limits(), &bytes).await;
        assert_eq!(told, Some(11), "{what}");
        assert!(matches!(ended, Err(Error::Peer { .. })), "{what}: {ended:?}");
    }
}

#[tokio::test]
async fn a_peer_whose_own_callers_give_up_is_not_punished_for_them() {
    let resets = (0..10_000).flat_map(|nth| [never(2 * nth + 1, 5), frame(3, 0, 2 * nth + 1, &[0, 0, 0, 8])].concat());
    let bytes = [HELLO.to_vec(), resets.collect(), frame(6, 0, 0, b"are you?")].concat();
    let (rig, io) = serve(Limits { reset_cost: 0, ..limits() });
    let (mut reader, mut writer) = tokio::io::split(io);
    let writing = tokio::spawn(async move { writer.write_all(&bytes).await.map(|()| writer) });
    let mut told = Vec::new();
    while !told.windows(8).any(|window| window == b"are you?") {
        let read = tokio::time::timeout(PATIENCE, reader.read_buf(&mut told)).await.expect("in time").expect("reads");
        assert!(read > 0, "the connection goes on");
    }
    writing.await.expect("does not panic").expect("writes");
    drop(rig);
}

#[tokio::test]
async fn a_small_block_that_unfolds_is_not_taken() {
    // One line of 4 KB in the table, named a thousand times.
    let value = vec![b'a'; 3_900];
    let mut block = vec![0x83, 0x86, 0x84, 0x40, 1, b'x', 0x7f];
    let mut rest = value.len() - 127;
    while rest >= 128 {
        block.push((rest & 127) as u8 | 128);
        rest >>= 7;
    }
    block.push(rest as u8);
    block.extend_from_slice(&value);
    block.extend(std::iter::repeat_n(0xbe, 1_000));
    let (rig, io) = serve(limits());
    let (mut reader, mut writer) = tokio::io::split(io);
    writer.write_all(&[HELLO, &frame(1, 5, 1, &block), &frame(6, 0, 0, b"are you?")].concat()).await.expect("writes");
    let mut told = Vec::new();
    while !told.windows(8).any(|window| window == b"are you?") {
        let read = tokio::time::timeout(PATIENCE, reader.read_buf(&mut told)).await.expect("in time").expect("reads");
        assert!(read > 0, "the connection goes on");
    }
    assert_eq!(rig.service.begun.load(Ordering::SeqCst), 0, "nobody was asked");
    assert!(told.windows(4).any(|window| window == b"\x03431"), "it is told so: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_is_given_up() {
    let (rig, io) = serve(limits());
    let (mut reader, mut writer) = tokio::io::split(io);
    // Of a long answer, with no window ever opened: 65,535 bytes come, then nothing.
    let path = [&[0x83, 0x86, 0x04, 5][..], b"/long"].concat();
    writer.write_all(&[HELLO, &frame(1, 5, 1, &path)].concat()).await.expect("writes");
    let mut told = Vec::new();
    let reset = frame(3, 0, 1, &[0, 0, 0, 8]);
    let given_up = async {
        while !told.ends_with(&reset) {
            assert!(reader.read_buf(&mut told).await.expect("reads") > 0);
        }
    };
    tokio::time::timeout(Duration::from_secs(40), given_up).await.expect("is given up");
    drop((reader, writer));
    let _ = rig.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_let_go() {
    let (rig, mut io) = serve(limits());
    io.write_all(HELLO).await.expect("writes");
    let mut told = Vec::new();
    tokio::time::timeout(Duration::from_secs(60), io.read_to_end(&mut told)).await.expect("closes").expect("reads");
    assert!(matches!(rig.ended().await, Err(Error::Silent)));
}
