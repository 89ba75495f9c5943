//! The server's side of a connection: a future that reads, hands over, and writes, until the peer goes or is sent away.

mod receive;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::{AbortHandle, Abortable, CatchUnwind};
use futures::stream::{FuturesUnordered, Stream as _};
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{Request, Response, request};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::frame::{self, Reason, kind};
use crate::hpack::encoder;
use crate::intake::Intake;
use crate::link::Link;
use crate::outgoing::{End, Outgoing};
use crate::received::{Feed, Received};
use crate::{Error, Limits, TURNS, Turn};

/// What answers requests.
pub trait Handler: Send + 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes> + Send + Unpin + 'static;
    /// An answer to come.
    type Answer: Future<Output = Response<Self::Body>> + Send + Unpin + 'static;

    /// Answers. The credential is in the extensions, see [`Authorization`](crate::Authorization).
    fn answer(&self, request: Request<Received>) -> Self::Answer;
}

/// Streams that are remembered after a reset.
const RESETS_KEPT: usize = 128;
const DRAIN_PING: [u8; 8] = *b"draining";
/// After our end a peer has so long for its own.
const PARTING: Duration = Duration::from_secs(1);

/// One connection. It ends when the peer goes, when it breaks the rules, or when all is answered after
/// [`Connection::graceful_shutdown`].
pub struct Connection<T, H: Handler> {
    link: Link<T>,
    handler: H,
    streams: BTreeMap<u32, Stream>,
    answers: FuturesUnordered<Answering<H::Answer>>,
    outgoing: Outgoing<H::Body>,
    /// Answers that came to their end with what was sent last.
    ended: Vec<(u32, End)>,
    /// Streams that began with what was read last: nobody was asked yet.
    fresh: Vec<u32>,
    /// Streams whose body comes in pieces.
    feeding: Vec<u32>,
    /// What was reset of late: frames that were on their way are no offence.
    reset: VecDeque<u32>,
    /// The highest stream that was taken.
    last: u32,
    leaving: Leaving,
    /// All is said: how long the peer is still listened to.
    parting: Option<Pin<Box<Sleep>>>,
}

/// Nothing in it is pinned in place: answers stand on the heap.
impl<T: Unpin, H: Handler> Unpin for Connection<T, H> {}

/// How far it has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// The peer was told; what it sent before it heard of that is still taken.
    Told,
    /// The peer has heard: no further stream.
    Heard,
}

struct Stream {
    inbound: Inbound,
    intake: Intake,
    abort: Option<AbortHandle>,
    begun: Instant,
}

/// What comes on a stream.
enum Inbound {
    /// It began just now. What comes with the head makes the body whole before anybody is asked: so it is for most.
    Fresh { head: Box<request::Parts>, body: Bytes, is_whole: bool },
    /// It goes to its reader in pieces, as it comes.
    Pieces { feed: Feed, is_whole: bool },
    /// Nothing further.
    Ended,
}

impl Inbound {
    /// Whether the peer has sent all of it.
    fn is_received(&self) -> bool {
        matches!(self, Self::Ended | Self::Fresh { is_whole: true, .. } | Self::Pieces { is_whole: true, .. })
    }
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
        Self {
            link: Link::of_server(io, read, limits),
            handler,
            streams: BTreeMap::new(),
            answers: FuturesUnordered::new(),
            outgoing: Outgoing::default(),
            ended: Vec::new(),
            fresh: Vec::new(),
            feeding: Vec::new(),
            reset: VecDeque::new(),
            last: 0,
            leaving: Leaving::No,
            parting: None,
        }
    }

    /// Asks the peer to go: what it has sent is answered, nothing new is taken, then the connection ends.
    pub fn graceful_shutdown(mut self: Pin<&mut Self>) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Told;
            let out = &mut self.link.outbound;
            frame::go_away(out, i32::MAX as u32, Reason::NO_ERROR);
            frame::put(out, kind::PING, 0, 0, &DRAIN_PING);
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Turn, Error> {
        let mut has_moved = false;
        match self.link.read(cx)? {
            Poll::Ready(0) => return Ok(Turn::End),
            Poll::Ready(_) => has_moved = true,
            Poll::Pending => {}
        }
        while let Some(event) = self.link.event()? {
            self.take(event)?;
        }
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
        self.outgoing.send(&mut self.link, cx, &mut self.ended);
        for (stream, end) in std::mem::take(&mut self.ended) {
            match end {
                End::Whole => self.finished(stream),
                End::Broken => self.end_stream(stream, Reason::CANCEL),
            }
        }
        has_moved |= self.link.write(cx)?;
        if self.leaving == Leaving::Heard && self.streams.is_empty() && self.link.outbound.is_empty() {
            return Ok(match self.link.shut_down(cx)? {
                Poll::Ready(()) => {
                    self.parting = Some(Box::pin(tokio::time::sleep(PARTING)));
                    Turn::Again
                }
                Poll::Pending => Turn::Wait,
            });
        }
        Ok(if has_moved { Turn::Again } else { Turn::Wait })
    }

    /// Reads, for nothing, until the peer ends too. A socket that is closed before takes back with it what the peer has not read yet:
    /// the end of the last answer.
    fn part(&mut self, cx: &mut Context<'_>) -> Result<Turn, Error> {
        if self.parting.as_mut().is_some_and(|until| until.as_mut().poll(cx).is_ready()) {
            return Ok(Turn::End);
        }
        Ok(match self.link.skip(cx)? {
            Poll::Ready(0) => Turn::End,
            Poll::Ready(_) => Turn::Again,
            Poll::Pending => Turn::Wait,
        })
    }

    /// Looks at the times. An answer that nobody reads is given up.
    fn tick(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if self.link.tick(cx, !self.streams.is_empty(), self.outgoing.has_unsent())? {
            for id in self.outgoing.unread(self.link.limits.keepalive_timeout) {
                self.end_stream(id, Reason::CANCEL);
            }
        }
        Ok(())
    }

    /// Takes an answer: its head goes at once, its body in turn.
    fn answered(&mut self, id: u32, answer: Response<H::Body>) {
        if !self.streams.contains_key(&id) {
            return;
        }
        let (mut parts, body) = answer.into_parts();
        parts.headers.remove(CONNECTION);
        parts.headers.remove(TRANSFER_ENCODING);
        let is_all = body.is_end_stream();
        self.link.head(id, is_all, |out| {
            encoder::status(out, parts.status);
            encoder::fields(out, &parts.headers);
        });
        if is_all { self.finished(id) } else { self.outgoing.begin(id, body) }
    }

    /// All of an answer is on its way.
    fn finished(&mut self, id: u32) {
        let is_received = self.streams.get(&id).is_none_or(|stream| stream.inbound.is_received());
        self.close(id);
        self.link.earn();
        if !is_received {
            // The rest of the request is not wanted (RFC 9113, 8.1).
            self.reset(id, Reason::NO_ERROR);
        }
    }

    /// Ends a stream on both sides.
    fn end_stream(&mut self, id: u32, reason: Reason) {
        self.close(id);
        self.reset(id, reason);
    }

    fn reset(&mut self, id: u32, reason: Reason) {
        frame::number(&mut self.link.outbound, kind::RST_STREAM, id, reason.0);
        if self.reset.len() == RESETS_KEPT {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    /// Forgets a stream; whoever works for it is told to stop.
    fn close(&mut self, id: u32) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.link.release(stream.intake.unread());
        if let Some(abort) = stream.abort.filter(|_| self.outgoing.is_awaited(id)) {
            abort.abort();
        }
        self.outgoing.close(id);
    }
}

impl<T, H> Future for Connection<T, H>
where
    T: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.get_mut();
        if this.parting.is_none()
            && let Err(error) = this.tick(cx)
        {
            return Poll::Ready(Err(error));
        }
        for _ in 0..TURNS {
            match if this.parting.is_some() { this.part(cx) } else { this.turn(cx) } {
                Ok(Turn::Again) => {}
                Ok(Turn::Wait) => return Poll::Pending,
                Ok(Turn::End) => return Poll::Ready(Ok(())),
                // A peer that was asked to go has gone.
                Err(Error::Io(_)) if this.leaving != Leaving::No && this.streams.is_empty() => {
                    return Poll::Ready(Ok(()));
                }
                Err(error) => {
                    if let Error::Peer { reason, .. } = &error {
                        this.link.send_away(cx, this.last, *reason);
                    }
                    return Poll::Ready(Err(error));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
