//! Against a server whose every byte is written here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use http2::{Call, CallError, Caller, Error, Limits, Lost, Wanted};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf};

use super::{Body, Ended, PIPE_BYTES, WHOLE, call, connect, in_time, limits, lost, post};

/// Empty SETTINGS.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// `:status 200` and no more.
const OK: &[u8] = b"\x88";
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// The other end of a client, by hand.
struct Server {
    io: DuplexStream,
    read: BytesMut,
}

/// A frame as the client sent it.
#[derive(Debug, PartialEq, Eq)]
struct Sent {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Bytes,
}

impl Server {
    /// Shakes hands with a client.
    async fn new(limits: Limits) -> (Self, Caller<Body>, Ended) {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (caller, ended) = connect(ours, limits);
        let mut server = Self { io: theirs, read: BytesMut::new() };
        server.fill(24).await;
        assert!(server.read.split_to(24).starts_with(b"PRI * HTTP/2.0"));
        assert_eq!(server.frame().await.expect("comes").kind, 4, "its settings");
        assert_eq!(server.frame().await.expect("comes").kind, 8, "the connection's window");
        server.io.write_all(SETTINGS).await.expect("goes");
        (server, caller, ended)
    }

    async fn fill(&mut self, length: usize) -> bool {
        while self.read.len() < length {
            if in_time(self.io.read_buf(&mut self.read)).await.expect("reads") == 0 {
                return false;
            }
        }
        true
    }

    /// The next frame; None at the end.
    async fn frame(&mut self) -> Option<Sent> {
        if !self.fill(9).await {
            return None;
        }
        let head = self.read.split_to(9);
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        assert!(self.fill(length).await, "a frame comes whole");
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.read.split_to(length).freeze();
        Some(Sent { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of a kind; the others are passed over.
    async fn next(&mut self, kind: u8) -> Sent {
        loop {
            let frame = self.frame().await.expect("comes");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    async fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("is short").to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        in_time(self.io.write_all(&frame)).await.expect("goes");
    }

    /// Waits for a call; its stream.
    async fn asked(&mut self) -> u32 {
        self.next(1).await.stream
    }
}

/// A call under way and the server's end of it.
async fn begun() -> (Server, Caller<Body>, Ended, Call<Body>, u32) {
    let (mut server, caller, ended) = Server::new(limits()).await;
    let call = caller.call(post("/a.B/C", "body"), WHOLE);
    let stream = server.asked().await;
    (server, caller, ended, call, stream)
}

#[tokio::test]
async fn a_request_that_was_not_sent_comes_back() {
    let (mut server, caller, _ended, first, stream) = begun().await;
    // A farewell that includes the first call.
    server.put(7, 0, 0, &[&stream.to_be_bytes()[..], &[0; 4]].concat()).await;
    server.put(1, END_HEADERS | END_STREAM, stream, OK).await;
    in_time(first).await.expect("is still answered");
    assert!(!caller.is_open());
    let unsent = call(&caller, post("/mine", "kept")).await.expect_err("takes no more");
    let CallError::Unsent(request) = unsent else { panic!("{unsent}") };
    assert_eq!(request.uri().path(), "/mine");
    assert_eq!(request.into_body().collect().await.expect("is whole").to_bytes(), "kept");
}

#[tokio::test]
async fn a_call_that_waits_for_a_stream_when_the_connection_ends_was_not_sent() {
    let (server, caller, _ended) = Server::new(Limits { streams_max: 1, ..limits() }).await;
    let first = caller.call(post("/first", ""), WHOLE);
    let second = caller.call(post("/second", ""), WHOLE);
    let mut server = server;
    server.asked().await;
    drop(server);
    assert_eq!(lost(in_time(first).await), Lost::Connection);
    assert!(matches!(in_time(second).await, Err(CallError::Unsent(request)) if request.uri().path() == "/second"));
    assert!(matches!(call(&caller, post("/third", "")).await, Err(CallError::Unsent(_))));
}

#[tokio::test]
async fn what_the_peer_has_not_looked_at_is_refused_and_what_it_has_is_lost() {
    // REFUSED_STREAM.
    let (mut server, _caller, _ended, refused, stream) = begun().await;
    server.put(3, 0, stream, &7_u32.to_be_bytes()).await;
    assert!(matches!(in_time(refused).await, Err(CallError::Refused)));
    // A farewell that ends before it.
    let (mut server, _caller, _ended, unseen, _) = begun().await;
    server.put(7, 0, 0, &[0; 8]).await;
    assert!(matches!(in_time(unseen).await, Err(CallError::Refused)));
    // Any other reset, before and within the answer.
    for begins in [false, true] {
        let (mut server, _caller, _ended, reset, stream) = begun().await;
        if begins {
            server.put(1, END_HEADERS, stream, OK).await;
        }
        server.put(3, 0, stream, &8_u32.to_be_bytes()).await;
        assert!(matches!(lost(in_time(reset).await), Lost::Reset(reason) if reason.0 == 8));
    }
}

#[tokio::test]
async fn a_peer_that_has_begun_to_answer_cannot_say_that_it_has_not_looked() {
    let farewell = [0; 8];
    let refused = 7_u32.to_be_bytes();
    for (kind, payload) in [(3, &refused[..]), (7, &farewell[..])] {
        let (mut server, _caller, _ended, call, stream) = begun().await;
        server.put(1, END_HEADERS, stream, OK).await;
        server.put(kind, 0, if kind == 3 { stream } else { 0 }, payload).await;
        assert_eq!(lost(in_time(call).await), Lost::Connection);
    }
}

#[tokio::test]
async fn a_caller_hears_how_many_calls_go_at_once() {
    let (mut server, caller, _ended) = Server::new(limits()).await;
    assert_eq!(caller.calls_max(), 100);
    server.put(4, 0, 0, &[0, 3, 0, 0, 0, 50]).await;
    assert_eq!((server.next(4).await.flags, server.next(4).await.flags), (1, 1));
    assert_eq!(caller.calls_max(), 50);
}

/// Takes what is written and keeps it to itself; of two flushes the first never comes to its end by itself, as TLS has it when the
/// socket is full.
struct Reluctant {
    io: DuplexStream,
    kept: Vec<u8>,
    has_refused: bool,
}

impl tokio::io::AsyncRead for Reluctant {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl tokio::io::AsyncWrite for Reluctant {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.kept.extend_from_slice(bytes);
        self.has_refused = false;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.has_refused, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while !self.kept.is_empty() {
            let Self { io, kept, .. } = &mut *self;
            let written = ready!(Pin::new(io).poll_write(cx, kept))?;
            kept.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn what_is_written_and_not_flushed_is_flushed_later() {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let (caller, calls) = http2::connect(Reluctant { io: ours, kept: Vec::new(), has_refused: false }, limits());
    tokio::spawn(calls);
    let mut server = Server { io: theirs, read: BytesMut::new() };
    assert!(server.fill(24).await, "the preface comes");
    server.read.split_to(24).clear();
    server.io.write_all(SETTINGS).await.expect("goes");
    let call = caller.call(post("/a.B/C", ""), WHOLE);
    let stream = server.asked().await;
    server.put(1, END_HEADERS | END_STREAM, stream, OK).await;
    in_time(call).await.expect("is answered");
}

#[tokio::test]
async fn a_call_that_is_dropped_is_reset_and_its_late_answer_is_no_offence() {
    let (mut server, caller, _ended) = Server::new(limits()).await;
    for _ in 0..500 {
        let call = caller.call(post("/a.B/C", ""), WHOLE);
        let stream = server.asked().await;
        drop(call);
        let reset = server.next(3).await;
        assert_eq!((reset.stream, reset.payload.as_ref()), (stream, 8_u32.to_be_bytes().as_slice()), "CANCEL");
        server.put(1, END_HEADERS, stream, OK).await;
        server.put(0, 0, stream, b"late").await;
        server.put(1, END_HEADERS | END_STREAM, stream, b"").await;
    }
    let last = caller.call(post("/a.B/C", ""), WHOLE);
    let stream = server.asked().await;
    server.put(1, END_HEADERS | END_STREAM, stream, OK).await;
    in_time(last).await.expect("the connection goes on");
}

#[tokio::test]
async fn a_stream_that_nobody_reads_is_reset() {
    let (mut server, caller, _ended) = Server::new(limits()).await;
    let call = caller.call(post("/a.B/C", ""), Wanted::Pieces);
    let stream = server.asked().await;
    server.put(1, END_HEADERS, stream, OK).await;
    let answer = in_time(call).await.expect("has begun");
    server.put(0, 0, stream, b"piece").await;
    drop(answer);
    assert_eq!(server.next(3).await.stream, stream);
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_so_to_its_reader() {
    for by_reset in [true, false] {
        let (mut server, caller, _ended) = Server::new(limits()).await;
        let call = caller.call(post("/a.B/C", ""), Wanted::Pieces);
        let stream = server.asked().await;
        server.put(1, END_HEADERS, stream, OK).await;
        server.put(0, 0, stream, b"piece").await;
        let mut body = in_time(call).await.expect("has begun").into_body();
        assert_eq!(body.frame().await.expect("comes").expect("is whole").into_data().expect("is data"), "piece");
        if by_reset {
            server.put(3, 0, stream, &2_u32.to_be_bytes()).await;
        } else {
            drop(server);
        }
        assert!(in_time(body.frame()).await.expect("is told").is_err());
    }
}

#[tokio::test]
async fn an_answer_against_the_rules_is_lost_and_the_connection_goes_on() {
    for (frames, why) in [
        (vec![(0, END_STREAM, b"data".as_slice())], "data before the head"),
        (vec![(1, END_HEADERS | END_STREAM, b"".as_slice())], "a head without a status"),
        (vec![(1, END_HEADERS | END_STREAM, b"\x83\x88".as_slice())], "a method in an answer"),
        (vec![(1, END_HEADERS, OK), (1, END_HEADERS, b"".as_slice())], "trailers that end nothing"),
        (vec![(1, END_HEADERS, OK), (1, END_HEADERS | END_STREAM, OK)], "a second head"),
        // content-length: 3
        (
            vec![(1, END_HEADERS, b"\x88\x0f\x0d\x013".as_slice()), (0, END_STREAM, b"four".as_slice())],
            "another length",
        ),
        // :status 100, as a literal
        (vec![(1, END_HEADERS | END_STREAM, b"\x08\x03100".as_slice())], "an end before the answer"),
        (vec![(1, END_HEADERS, b"\x08\x03101".as_slice())], "another protocol"),
        (vec![(8, 0, [0; 4].as_slice())], "a window update of nothing"),
    ] {
        let (mut server, caller, _ended, call, stream) = begun().await;
        for (kind, flags, payload) in frames {
            server.put(kind, flags, stream, payload).await;
        }
        assert_eq!(lost(in_time(call).await), Lost::Malformed, "{why}");
        let next = caller.call(post("/a.B/C", ""), WHOLE);
        let stream = server.asked().await;
        server.put(1, END_HEADERS | END_STREAM, stream, OK).await;
        in_time(next).await.expect(why);
    }
}

#[tokio::test]
async fn an_answer_that_came_before_the_connection_broke_is_taken() {
    let (mut server, caller, ended, call, stream) = begun().await;
    let piece = [b'x'; 16 * 1024];
    server.put(1, END_HEADERS, stream, OK).await;
    for flags in [0, 0, END_STREAM] {
        server.put(0, flags, stream, &piece).await;
    }
    let next = caller.call(post("/a.B/C", ""), WHOLE);
    drop(server);
    let answer = in_time(call).await.expect("is answered");
    assert_eq!(answer.into_body().collect().await.expect("is whole").to_bytes().len(), 3 * piece.len());
    assert_eq!(lost(in_time(next).await), Lost::Connection);
    assert!(matches!(in_time(ended).await.expect("does not panic"), Err(Error::Io(_))));
}

#[tokio::test]
async fn a_first_informational_head_is_passed_over() {
    let (mut server, _caller, _ended, call, stream) = begun().await;
    server.put(1, END_HEADERS, stream, b"\x08\x03103").await;
    server.put(1, END_HEADERS | END_STREAM, stream, b"\x8d").await;
    assert_eq!(in_time(call).await.expect("is answered").status().as_u16(), 404);
}

#[tokio::test]
async fn a_server_that_breaks_the_protocol_is_sent_away() {
    let settings_twice_as_wide = [&4_u16.to_be_bytes()[..], &0x8000_0000_u32.to_be_bytes()].concat();
    for (kind, flags, stream, payload, reason, why) in [
        (1, END_HEADERS, 2, OK, 1, "a stream of its own"),
        (1, END_HEADERS, 9, OK, 1, "a stream that was not opened"),
        (5, END_HEADERS, 1, b"\0\0\0\x02\x83".as_slice(), 1, "a promise"),
        (1, END_HEADERS, 1, b"\x80".as_slice(), 9, "a block that cannot be read"),
        (6, 0, 0, b"short".as_slice(), 6, "a ping of another length"),
        (4, 0, 0, settings_twice_as_wide.as_slice(), 3, "a window that there is not"),
        (8, 0, 0, [0x7f, 0xff, 0xff, 0xff].as_slice(), 3, "a window too wide"),
        (7, 0, 1, [0; 8].as_slice(), 1, "a farewell on a stream"),
        (7, 0, 0, [0; 4].as_slice(), 6, "half a farewell"),
    ] {
        let (mut server, caller, ended, call, _) = begun().await;
        server.put(kind, flags, stream, payload).await;
        let farewell = server.next(7).await;
        assert_eq!(farewell.payload[4..], u32::to_be_bytes(reason), "{why}");
        assert_eq!(lost(in_time(call).await), Lost::Connection, "{why}");
        assert!(matches!(in_time(ended).await.expect("does not panic"), Err(Error::Peer { .. })), "{why}");
        assert!(!caller.is_open(), "{why}");
    }
}

#[tokio::test]
async fn a_server_that_sends_more_than_its_window_loses_the_stream() {
    // In pieces that nobody reads yet: an answer that is wanted whole gives its window back.
    let (mut server, caller, _ended) = Server::new(limits()).await;
    let call = caller.call(post("/a.B/C", ""), Wanted::Pieces);
    let stream = server.asked().await;
    server.put(1, END_HEADERS, stream, OK).await;
    let mut body = in_time(call).await.expect("has begun").into_body();
    for _ in 0..5 {
        server.put(0, 0, stream, &[7; 16_000]).await;
    }
    assert_eq!(server.next(3).await.payload.as_ref(), 3_u32.to_be_bytes(), "FLOW_CONTROL_ERROR");
    let mut came = 0;
    while let Some(Ok(frame)) = in_time(body.frame()).await {
        came += frame.into_data().map_or(0, |data| data.len());
    }
    assert_eq!(came, 4 * 16_000, "what was within the window");
}

#[tokio::test]
async fn a_server_that_only_keeps_us_busy_is_sent_away() {
    let (mut server, _caller, ended, call, _) = begun().await;
    let pings = async {
        loop {
            if server.io.write_all(b"\0\0\x08\x06\0\0\0\0\0are you?").await.is_err() {
                return;
            }
            let mut answer = [0; 17];
            if server.io.read_exact(&mut answer).await.is_err() {
                return;
            }
        }
    };
    in_time(pings).await;
    assert_eq!(lost(in_time(call).await), Lost::Connection);
    assert!(matches!(in_time(ended).await.expect("does not panic"), Err(Error::Peer { .. })));
}

#[tokio::test]
async fn settings_of_the_peer_are_kept() {
    let (mut server, caller, _ended) = Server::new(limits()).await;
    // One stream at once, four bytes on it, and no table.
    let settings: Vec<u8> = [(3_u16, 1_u32), (4, 4), (1, 0)]
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    server.put(4, 0, 0, &settings).await;
    assert_eq!((server.next(4).await.flags, server.next(4).await.flags), (1, 1), "both are acknowledged");
    let first = caller.call(post("/first", "12345678"), WHOLE);
    let second = caller.call(post("/second", ""), WHOLE);
    let head = server.next(1).await;
    assert_eq!(head.payload.first(), Some(&0x20), "the table's size is answered");
    assert_eq!(server.next(0).await.payload, "1234");
    server.put(8, 0, head.stream, &4_u32.to_be_bytes()).await;
    let rest = server.frame().await.expect("comes");
    assert_eq!((rest.kind, rest.flags, rest.payload.as_ref()), (0, END_STREAM, b"5678".as_slice()));
    server.put(1, END_HEADERS | END_STREAM, head.stream, OK).await;
    in_time(first).await.expect("is answered");
    let head = server.frame().await.expect("comes");
    assert_eq!((head.kind, head.stream), (1, 3), "the second had to wait");
    assert_ne!(head.payload.first(), Some(&0x20), "once is enough");
    server.put(1, END_HEADERS | END_STREAM, 3, OK).await;
    in_time(second).await.expect("is answered");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_asked_and_then_left() {
    let (mut server, _caller, ended, call, _) = begun().await;
    // Nothing is read: the clock runs as soon as everybody waits.
    let ended = ended.await.expect("does not panic");
    assert!(matches!(ended, Err(Error::Silent)));
    assert_eq!(lost(call.await), Lost::Connection);
    assert_eq!(server.next(6).await.payload.as_ref(), b"alive?\0\0");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_is_asked_again_and_one_that_only_talks_is_left() {
    let (mut server, _caller, ended, call, _) = begun().await;
    for _ in 0..3 {
        let asked = server.io.read_buf(&mut server.read).await.expect("reads");
        assert_eq!(asked, 17, "a ping");
        let ping = server.next(6).await;
        server.put(6, 0x1, 0, &ping.payload).await;
    }
    while server.io.write_all(b"\0\0\x08\x06\0\0\0\0\0are you?").await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(matches!(ended.await.expect("does not panic"), Err(Error::Silent)));
    assert_eq!(lost(call.await), Lost::Connection);
}
