//! The server's side of a connection: a future that reads, hands over, and writes, until the peer goes or is sent away.

mod head;
mod receive;
mod send;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::future::{AbortHandle, Abortable, CatchUnwind};
use futures::stream::{FuturesUnordered, Stream as _};
use http::{HeaderMap, Request, Response, request};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::calm::Calm;
use crate::frame::{self, HEAD_BYTES, Head, PREFACE, Reason, kind, setting};
use crate::hpack::Decoder;
use crate::received::{Feed, Received};

pub use head::Authorization;

/// What one connection may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams at once.
    pub streams_max: u32,
    /// What may be on its way on one stream, bytes.
    pub stream_window_bytes: u32,
    /// What may be on its way on all of them, bytes.
    pub connection_window_bytes: u32,
    /// All fields of one head together, bytes.
    pub header_list_bytes_max: u32,
    /// Silence after which the peer is asked whether it is there.
    pub keepalive_interval: Duration,
    /// How long its answer may take, and how long it may read nothing of what it asked for.
    pub keepalive_timeout: Duration,
}

/// What answers requests.
pub trait Handler: Send + 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes> + Send + 'static;
    /// An answer to come.
    type Answer: Future<Output = Response<Self::Body>> + Send + Unpin + 'static;

    /// Answers. The credential is in the extensions, see [`Authorization`].
    fn answer(&self, request: Request<Received>) -> Self::Answer;
}

/// Why a connection ended other than by agreement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes could not be moved.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// The peer broke the protocol, or asked for too much.
    #[error("the peer was sent away: {what}")]
    Peer {
        /// What was told to it.
        reason: Reason,
        /// What it did.
        what: &'static str,
    },
    /// The peer was not there any more.
    #[error("the peer does not answer")]
    Silent,
}

/// What ends a connection.
fn gone(reason: Reason, what: &'static str) -> Error {
    Error::Peer { reason, what }
}

/// Read at once, where so much has come.
const READ_BYTES: usize = 16 * 1024;
/// Written together; with more waiting, no further piece of an answer is taken and nothing is read.
const WRITE_BYTES: usize = 256 * 1024;
/// How often the times of a connection at work are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Turns of reading and writing before other tasks get theirs.
const TURNS: u32 = 16;
const DRAIN_PING: [u8; 8] = *b"draining";
const ALIVE_PING: [u8; 8] = *b"alive?\0\0";

/// One connection. It ends when the peer goes, when it breaks the rules, or when all is answered after
/// [`Connection::graceful_shutdown`].
pub struct Connection<T, H: Handler> {
    io: T,
    handler: H,
    limits: Limits,
    inbound: BytesMut,
    outbound: BytesMut,
    begun: Begun,
    decoder: Decoder,
    /// A header block that is not whole yet.
    block: Option<Block>,
    streams: BTreeMap<u32, Stream<H::Body>>,
    answers: FuturesUnordered<Answering<H::Answer>>,
    /// Streams with something to send, in turn.
    sending: VecDeque<u32>,
    /// Streams whose body had nothing at hand.
    waiting: Vec<u32>,
    /// Streams that began with what was read last: nobody was asked yet.
    fresh: Vec<u32>,
    /// Streams whose body comes in pieces.
    feeding: Vec<u32>,
    /// What was reset of late: frames that were on their way are no offence.
    reset: VecDeque<u32>,
    /// The highest stream that was taken.
    last: u32,
    leaving: Leaving,
    peer: Peer,
    /// Bytes received on the connection and not given back yet.
    unreturned: u32,
    calm: Calm,
    alarm: Pin<Box<Sleep>>,
    heard: Instant,
    asked: Option<Instant>,
    taken: Instant,
    /// Since when the peer takes nothing of what is there for it.
    stuck: Option<Instant>,
}

/// Nothing in it is pinned in place: answers stand on the heap.
impl<T: Unpin, H: Handler> Unpin for Connection<T, H> {}

/// How far the connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    No,
    Preface,
    Settings,
}

/// How far it has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// The peer was told; what it sent before it heard of that is still taken.
    Told,
    /// The peer has heard: no further stream.
    Heard,
}

/// What the peer takes.
#[derive(Debug)]
struct Peer {
    /// Bytes that may still be sent on the connection.
    window: i64,
    /// The same on a stream that begins.
    stream_window: i64,
    payload_max: usize,
}

/// A header block under way.
struct Block {
    stream: u32,
    ends: bool,
    bytes: BytesMut,
}

struct Stream<B> {
    inbound: Inbound,
    outbound: Outbound<B>,
    /// Bytes that may still be sent.
    window: i64,
    /// Bytes that the peer may still send.
    credit: i64,
    /// Bytes that were read and not given back yet.
    taken: i64,
    /// Bytes of the body that have come, and how many were declared.
    came: u64,
    declared: Option<u64>,
    abort: Option<AbortHandle>,
    /// When something of the answer last went.
    moved: Instant,
}

/// What comes on a stream.
enum Inbound {
    /// It began just now. What comes with the head makes the body whole before anybody is asked: so it is for most.
    Fresh { head: Box<request::Parts>, body: Bytes, is_whole: bool },
    /// The rest comes in pieces.
    Pieces { feed: Feed },
    /// Nothing further.
    Ended,
}

/// What goes on a stream.
enum Outbound<B> {
    /// The answer is not there yet.
    Awaited,
    /// What is left of it.
    Body { body: Pin<Box<B>>, piece: Bytes, trailers: Option<HeaderMap>, is_read: bool },
}

struct Answering<F> {
    stream: u32,
    answer: Abortable<CatchUnwind<AssertUnwindSafe<F>>>,
}

/// How the work on an answer came out.
enum Answered<R> {
    Done(R),
    Panicked,
    /// Nobody wants it any more.
    Dropped,
}

impl<F: Future + Unpin> Future for Answering<F> {
    type Output = (u32, Answered<F::Output>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = match ready!(Pin::new(&mut self.answer).poll(cx)) {
            Ok(Ok(answer)) => Answered::Done(answer),
            // The hook of the process has told of it.
            Ok(Err(_)) => Answered::Panicked,
            Err(_) => Answered::Dropped,
        };
        Poll::Ready((self.stream, answered))
    }
}

impl<T, H> Connection<T, H>
where
    T: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    /// Takes a connection whose client has sent, or will send, the preface.
    ///
    /// Shape: `read` is what was read of it before.
    pub fn new(io: T, read: BytesMut, handler: H, limits: Limits) -> Self {
        let now = Instant::now();
        let mut outbound = BytesMut::new();
        frame::settings(
            &mut outbound,
            &[
                (setting::MAX_CONCURRENT_STREAMS, limits.streams_max),
                (setting::INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
                (setting::MAX_HEADER_LIST_SIZE, limits.header_list_bytes_max),
            ],
        );
        if let Some(more) = limits.connection_window_bytes.checked_sub(frame::WINDOW_DEFAULT).filter(|more| *more > 0) {
            frame::number(&mut outbound, kind::WINDOW_UPDATE, 0, more);
        }
        Self {
            io,
            handler,
            limits,
            inbound: read,
            outbound,
            begun: Begun::No,
            decoder: Decoder::new(frame::TABLE_BYTES_DEFAULT),
            block: None,
            streams: BTreeMap::new(),
            answers: FuturesUnordered::new(),
            sending: VecDeque::new(),
            waiting: Vec::new(),
            fresh: Vec::new(),
            feeding: Vec::new(),
            reset: VecDeque::new(),
            last: 0,
            leaving: Leaving::No,
            peer: Peer {
                window: frame::WINDOW_DEFAULT.into(),
                stream_window: frame::WINDOW_DEFAULT.into(),
                payload_max: frame::PAYLOAD_BYTES_MAX,
            },
            unreturned: 0,
            calm: Calm::new(now),
            alarm: Box::pin(tokio::time::sleep_until(now + TICK)),
            heard: now,
            asked: None,
            taken: now,
            stuck: None,
        }
    }

    /// Asks the peer to go: what it has sent is answered, nothing new is taken, then the connection ends.
    pub fn graceful_shutdown(mut self: Pin<&mut Self>) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Told;
            let this = self.as_mut().get_mut();
            frame::go_away(&mut this.outbound, i32::MAX as u32, Reason::NO_ERROR);
            frame::put(&mut this.outbound, kind::PING, 0, 0, &DRAIN_PING);
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Turn, Error> {
        let mut has_moved = false;
        if self.outbound.len() < WRITE_BYTES {
            match self.read(cx)? {
                Poll::Ready(0) => return Ok(Turn::End),
                Poll::Ready(_) => has_moved = true,
                Poll::Pending => {}
            }
        }
        while self.outbound.len() < WRITE_BYTES && self.frame()? {}
        self.ask_for_fresh();
        while let Poll::Ready(Some((stream, answer))) = Pin::new(&mut self.answers).poll_next(cx) {
            match answer {
                Answered::Done(answer) => self.answered(stream, answer),
                Answered::Panicked => self.end_stream(stream, Reason::INTERNAL_ERROR),
                Answered::Dropped => {}
            }
            has_moved = true;
        }
        self.feed(cx);
        self.send(cx);
        has_moved |= self.write(cx)?;
        if self.leaving == Leaving::Heard && self.streams.is_empty() && self.outbound.is_empty() {
            return Ok(match Pin::new(&mut self.io).poll_shutdown(cx)? {
                Poll::Ready(()) => Turn::End,
                Poll::Pending => Turn::Wait,
            });
        }
        Ok(if has_moved { Turn::Again } else { Turn::Wait })
    }

    /// Reads what has come.
    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<usize>> {
        if self.inbound.capacity() - self.inbound.len() < READ_BYTES / 4 {
            self.inbound.reserve(READ_BYTES);
        }
        let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.inbound);
        match read {
            Poll::Ready(Ok(bytes)) => {
                self.heard = Instant::now();
                self.asked = None;
                Ok(Poll::Ready(bytes))
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Writes what is there; whether any of it went.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut has_moved = false;
        while !self.outbound.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, &self.outbound) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(bytes)) => {
                    self.outbound.advance(bytes);
                    self.taken = Instant::now();
                    has_moved = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(has_moved),
            }
        }
        if has_moved && let Poll::Ready(Err(error)) = Pin::new(&mut self.io).poll_flush(cx) {
            return Err(error);
        }
        Ok(has_moved)
    }

    /// Handles one frame; false when there is none whole.
    fn frame(&mut self) -> Result<bool, Error> {
        if self.begun == Begun::No {
            let there = self.inbound.len().min(PREFACE.len());
            if self.inbound.get(..there) != PREFACE.get(..there) {
                return Err(gone(Reason::PROTOCOL_ERROR, "no preface"));
            }
            if there < PREFACE.len() {
                return Ok(false);
            }
            self.inbound.advance(PREFACE.len());
            self.begun = Begun::Preface;
        }
        let Some(head) = Head::peek(&self.inbound) else { return Ok(false) };
        if head.len > frame::PAYLOAD_BYTES_MAX {
            return Err(gone(Reason::FRAME_SIZE_ERROR, "a frame longer than is taken"));
        }
        if self.inbound.len() < HEAD_BYTES + head.len {
            return Ok(false);
        }
        self.inbound.advance(HEAD_BYTES);
        let payload = self.inbound.split_to(head.len).freeze();
        self.received(head, payload)?;
        Ok(true)
    }

    /// Looks at the times; true when the peer is gone.
    fn tick(&mut self, cx: &mut Context<'_>) -> bool {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let silent = now.duration_since(self.heard);
            let is_stuck = !self.outbound.is_empty() || !self.sending.is_empty();
            match self.stuck.filter(|since| is_stuck && self.taken <= *since) {
                Some(since) if now.duration_since(since) > self.limits.keepalive_timeout => return true,
                Some(_) => {}
                None => self.stuck = is_stuck.then_some(now),
            }
            match self.asked {
                Some(asked) if now.duration_since(asked) > self.limits.keepalive_timeout => return true,
                None if silent >= self.limits.keepalive_interval => {
                    self.asked = Some(now);
                    frame::put(&mut self.outbound, kind::PING, 0, 0, &ALIVE_PING);
                }
                _ => {}
            }
            self.give_up_unread_answers(now);
            let has_work = !self.streams.is_empty() || !self.outbound.is_empty();
            if !has_work && self.inbound.is_empty() {
                // Nothing is under way: an idle connection holds no buffer.
                self.inbound = BytesMut::new();
                self.outbound = BytesMut::new();
            }
            let is_busy = has_work || self.asked.is_some();
            let rest = if is_busy { TICK } else { self.limits.keepalive_interval.saturating_sub(silent).max(TICK) };
            self.alarm.as_mut().reset(now + rest);
        }
        false
    }
}

/// How a turn came out.
enum Turn {
    Again,
    Wait,
    End,
}

impl<T, H> Future for Connection<T, H>
where
    T: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.get_mut();
        if this.tick(cx) {
            return Poll::Ready(Err(Error::Silent));
        }
        for _ in 0..TURNS {
            match this.turn(cx) {
                Ok(Turn::Again) => {}
                Ok(Turn::Wait) => return Poll::Pending,
                Ok(Turn::End) => return Poll::Ready(Ok(())),
                // A peer that was asked to go has gone.
                Err(Error::Io(_)) if this.leaving != Leaving::No && this.streams.is_empty() => {
                    return Poll::Ready(Ok(()));
                }
                Err(error) => {
                    if let Error::Peer { reason, .. } = &error {
                        frame::go_away(&mut this.outbound, this.last, *reason);
                        // As much of it as goes at once; nobody waits for a peer that is sent away.
                        let _ = this.write(cx);
                    }
                    return Poll::Ready(Err(error));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
