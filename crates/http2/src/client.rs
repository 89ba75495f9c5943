//! The client's side of a connection: callers put their requests in, one future moves them all.

mod receive;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use futures::channel::oneshot;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::frame::{self, Reason, kind};
use crate::hpack::encoder;
use crate::intake::Intake;
use crate::link::Link;
use crate::outgoing::{End, Outgoing};
use crate::received::{Feed, Received};
use crate::{Error, Limits, TURNS, Turn};

const STREAM_MAX: u32 = 0x7fff_ffff;

/// How an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Whole, or not at all.
    Whole {
        /// Its body is at most so long, bytes.
        bytes_max: usize,
    },
    /// As it comes: the head at once.
    Pieces,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError<B> {
    /// Nothing was sent: it can go elsewhere.
    #[error("the connection takes no requests")]
    Unsent(Box<Request<B>>),
    /// The peer promises that it has looked at nothing of it.
    #[error("the peer refused the request unseen")]
    Refused,
    /// It was sent, and what became of it is not known.
    #[error("the answer was lost: {0}")]
    Lost(Lost),
}

/// How an answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The connection ended.
    #[error("the connection ended")]
    Connection,
    /// The peer broke it off.
    #[error("the peer broke off, reason {}", .0.0)]
    Reset(Reason),
    /// The request's own body broke off.
    #[error("the request broke off")]
    Request,
    /// It is longer than was wanted.
    #[error("it is too long")]
    TooLong,
    /// It is no answer by the protocol.
    #[error("it breaks the protocol")]
    Malformed,
}

type Answer<B> = Result<Response<Received>, CallError<B>>;

/// Makes calls on a connection. Clones share it. When the last is dropped, the connection ends with its last answer.
#[derive(Debug)]
pub struct Caller<B>(Arc<Handle<B>>);

impl<B> Clone for Caller<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What the callers hold together.
#[derive(Debug)]
struct Handle<B>(Arc<Mutex<Inbox<B>>>);

/// What lies between the callers and the connection.
#[derive(Debug)]
struct Inbox<B> {
    asks: VecDeque<Ask<B>>,
    /// Calls that nobody waits for any more.
    given_up: Vec<u64>,
    calls: u64,
    connection: Option<Waker>,
    /// Whether the connection takes calls.
    is_open: bool,
    /// Calls at once, as both ends have it.
    calls_max: usize,
    has_callers: bool,
}

/// A call that is not sent yet.
#[derive(Debug)]
struct Ask<B> {
    call: u64,
    request: Box<Request<B>>,
    wanted: Wanted,
    reply: oneshot::Sender<Answer<B>>,
}

impl<B> Caller<B> {
    /// Whether the connection takes calls.
    pub fn is_open(&self) -> bool {
        lock(&self.0.0).is_open
    }

    /// Calls that go at once; further ones wait for their turn.
    pub fn calls_max(&self) -> usize {
        lock(&self.0.0).calls_max
    }

    /// Sends a request and waits for its answer. Dropping the future tells the peer to stop.
    ///
    /// Shape: an absolute URI; the body of an answer that is wanted whole is [`Received::Whole`].
    /// Errors: see [`CallError`]; each says what the peer may have seen.
    pub fn call(&self, request: Request<B>, wanted: Wanted) -> Call<B> {
        let (reply, answer) = oneshot::channel();
        let inbox = Arc::clone(&self.0.0);
        let mut held = lock(&inbox);
        let call = held.calls;
        held.calls += 1;
        let request = Box::new(request);
        if held.is_open {
            held.asks.push_back(Ask { call, request, wanted, reply });
            held.wake();
        } else {
            // The receiver is here.
            let _ = reply.send(Err(CallError::Unsent(request)));
        }
        drop(held);
        Call { inbox, call, answer, is_over: false }
    }
}

impl<B> Drop for Handle<B> {
    fn drop(&mut self) {
        let mut inbox = lock(&self.0);
        inbox.has_callers = false;
        inbox.wake();
    }
}

impl<B> Inbox<B> {
    fn wake(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.wake();
        }
    }
}

fn lock<B>(inbox: &Mutex<Inbox<B>>) -> MutexGuard<'_, Inbox<B>> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer to come.
#[derive(Debug)]
pub struct Call<B> {
    inbox: Arc<Mutex<Inbox<B>>>,
    call: u64,
    answer: oneshot::Receiver<Answer<B>>,
    is_over: bool,
}

impl<B> Future for Call<B> {
    type Output = Answer<B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        self.is_over = true;
        // A connection always replies before it goes.
        Poll::Ready(answer.unwrap_or(Err(CallError::Lost(Lost::Connection))))
    }
}

impl<B> Drop for Call<B> {
    fn drop(&mut self) {
        if !self.is_over {
            let mut inbox = lock(&self.inbox);
            inbox.given_up.push(self.call);
            inbox.wake();
        }
    }
}

/// One connection: the future that moves what its callers ask. It ends when the peer goes, when the peer breaks the rules, or with the
/// last answer after the last caller was dropped.
pub struct Calls<T, B> {
    link: Link<T>,
    inbox: Arc<Mutex<Inbox<B>>>,
    streams: BTreeMap<u32, Stream<B>>,
    outgoing: Outgoing<B>,
    /// Requests that were sent to their end with what was sent last.
    ended: Vec<(u32, End)>,
    /// Streams whose answer goes on in pieces.
    feeding: Vec<u32>,
    /// The stream that begins next.
    next: u32,
}

/// Nothing in it is pinned in place.
impl<T: Unpin, B> Unpin for Calls<T, B> {}

struct Stream<B> {
    call: u64,
    answer: Coming<B>,
    intake: Intake,
    /// Whether all of the request is on its way.
    is_sent: bool,
}

/// What is there of an answer.
enum Coming<B> {
    Nothing { reply: oneshot::Sender<Answer<B>>, wanted: Wanted },
    Part { reply: oneshot::Sender<Answer<B>>, head: Box<(StatusCode, HeaderMap)>, data: Data, bytes_max: usize },
    Pieces { feed: Feed },
}

/// A body that is gathered: mostly one piece, which is not copied.
enum Data {
    One(Bytes),
    Many(BytesMut),
}

impl Data {
    fn push(&mut self, piece: Bytes) {
        match self {
            Self::One(data) if data.is_empty() => *data = piece,
            Self::One(data) => {
                let mut many = BytesMut::from(data.as_ref());
                many.extend_from_slice(&piece);
                *self = Self::Many(many);
            }
            Self::Many(data) => data.extend_from_slice(&piece),
        }
    }

    fn whole(self) -> Bytes {
        match self {
            Self::One(data) => data,
            Self::Many(data) => data.freeze(),
        }
    }
}

/// Begins a connection to a server that has agreed to HTTP/2; requests may be made at once.
pub fn connect<T, B>(io: T, limits: Limits) -> (Caller<B>, Calls<T, B>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let inbox = Arc::new(Mutex::new(Inbox {
        asks: VecDeque::new(),
        given_up: Vec::new(),
        calls: 0,
        connection: None,
        is_open: true,
        calls_max: limits.streams_max as usize,
        has_callers: true,
    }));
    let calls = Calls {
        link: Link::of_client(io, limits),
        inbox: Arc::clone(&inbox),
        streams: BTreeMap::new(),
        outgoing: Outgoing::default(),
        ended: Vec::new(),
        feeding: Vec::new(),
        next: 1,
    };
    (Caller(Arc::new(Handle(inbox))), calls)
}

impl<T, B> Calls<T, B>
where
    T: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
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
        let is_over = self.take_asks(cx);
        self.feed(cx);
        self.outgoing.send(&mut self.link, cx, &mut self.ended);
        for (id, end) in std::mem::take(&mut self.ended) {
            match (end, self.streams.get_mut(&id)) {
                (End::Whole, Some(stream)) => {
                    stream.is_sent = true;
                    self.outgoing.close(id);
                }
                (End::Broken, Some(_)) => self.give_up(id, Reason::CANCEL, CallError::Lost(Lost::Request)),
                (_, None) => {}
            }
        }
        has_moved |= self.link.write(cx)?;
        if is_over && self.streams.is_empty() && self.link.outbound.is_empty() {
            return Ok(match self.link.shut_down(cx)? {
                Poll::Ready(()) => Turn::End,
                Poll::Pending => Turn::Wait,
            });
        }
        Ok(if has_moved { Turn::Again } else { Turn::Wait })
    }

    /// Takes what had come before the connection broke: a server that answers and goes breaks what is written to it, not its answers.
    fn take_rest(&mut self, cx: &mut Context<'_>) {
        self.link.give_up_writing();
        while let Ok(Poll::Ready(1..)) = self.link.read(cx) {
            while let Ok(Some(event)) = self.link.event() {
                if self.take(event).is_err() {
                    return;
                }
                // Nothing of what is owed for it can go.
                self.link.give_up_writing();
            }
        }
    }

    /// Takes what the callers have put in; whether there is nothing more to come from them.
    fn take_asks(&mut self, cx: &mut Context<'_>) -> bool {
        let streams_max = self.link.limits.streams_max.min(self.link.peer.streams_max) as usize;
        let room = if self.link.is_full() { 0 } else { streams_max.saturating_sub(self.streams.len()) };
        let mut inbox = lock(&self.inbox);
        if inbox.connection.as_ref().is_none_or(|connection| !connection.will_wake(cx.waker())) {
            inbox.connection = Some(cx.waker().clone());
        }
        inbox.calls_max = streams_max;
        inbox.is_open &= self.next <= STREAM_MAX;
        let is_open = inbox.is_open;
        let given_up = std::mem::take(&mut inbox.given_up);
        let unwanted = |ask: &Ask<B>| given_up.contains(&ask.call);
        let (dropped, asks): (Vec<_>, VecDeque<_>) = match given_up.is_empty() {
            true => (Vec::new(), std::mem::take(&mut inbox.asks)),
            false => {
                let (dropped, kept): (VecDeque<_>, VecDeque<_>) = inbox.asks.drain(..).partition(unwanted);
                (dropped.into(), kept)
            }
        };
        inbox.asks = asks;
        let most = if is_open { room.min(inbox.asks.len()) } else { inbox.asks.len() };
        let taken: Vec<Ask<B>> = inbox.asks.drain(..most).collect();
        let is_over = inbox.asks.is_empty() && (!is_open || !inbox.has_callers);
        // What is dropped from here on may be a caller of this very connection.
        drop(inbox);
        drop(dropped);
        for call in given_up {
            let stream = self.streams.iter().find(|(_, stream)| stream.call == call).map(|(id, _)| *id);
            if let Some(id) = stream {
                self.give_up(id, Reason::CANCEL, CallError::Lost(Lost::Connection));
            }
        }
        for ask in taken {
            if is_open && self.next <= STREAM_MAX {
                self.begin(ask);
            } else {
                let _ = ask.reply.send(Err(CallError::Unsent(ask.request)));
            }
        }
        is_over
    }

    fn begin(&mut self, ask: Ask<B>) {
        let Ask { call, request, wanted, reply } = ask;
        let id = self.next;
        self.next += 2;
        let (mut parts, body) = request.into_parts();
        parts.headers.remove(CONNECTION);
        parts.headers.remove(TRANSFER_ENCODING);
        let is_sent = body.is_end_stream();
        self.link.head(id, is_sent, |out| {
            encoder::request(out, &parts.method, &parts.uri);
            encoder::fields(out, &parts.headers);
        });
        if !is_sent {
            self.outgoing.open(id, self.link.peer.stream_window);
            self.outgoing.begin(id, body);
        }
        let intake = Intake::new(self.link.limits.stream_window_bytes, None);
        self.streams.insert(id, Stream { call, answer: Coming::Nothing { reply, wanted }, intake, is_sent });
    }

    /// Gives the windows of answers in pieces back as they are read; tells the peer where nobody reads any more.
    fn feed(&mut self, cx: &mut Context<'_>) {
        for id in std::mem::take(&mut self.feeding) {
            let Some(Stream { answer: Coming::Pieces { feed }, intake, .. }) = self.streams.get_mut(&id) else {
                continue;
            };
            match feed.taken(cx) {
                Some(read) => {
                    intake.give_back(id, read, &mut self.link.outbound);
                    self.feeding.push(id);
                }
                None => self.give_up(id, Reason::CANCEL, CallError::Lost(Lost::Connection)),
            }
        }
    }

    /// Ends a stream on both sides, and says why to whoever waits.
    fn give_up(&mut self, id: u32, reason: Reason, error: CallError<B>) {
        if self.streams.contains_key(&id) {
            frame::number(&mut self.link.outbound, kind::RST_STREAM, id, reason.0);
            // What is on its way already is no offence.
            self.link.earn();
            self.fail(id, error);
        }
    }

    /// Forgets a stream, and says why to whoever waits.
    fn fail(&mut self, id: u32, error: CallError<B>) {
        match self.close(id).map(|stream| stream.answer) {
            Some(Coming::Nothing { reply, .. }) => drop(reply.send(Err(error))),
            Some(Coming::Part { reply, .. }) => {
                // Whoever has begun to answer has looked, whatever it says of it now.
                let error = if matches!(error, CallError::Refused) { CallError::Lost(Lost::Connection) } else { error };
                drop(reply.send(Err(error)));
            }
            // Its reader is told by the end of the feed.
            Some(Coming::Pieces { .. }) | None => {}
        }
    }

    fn close(&mut self, id: u32) -> Option<Stream<B>> {
        self.outgoing.close(id);
        self.streams.remove(&id)
    }
}

impl<T, B> Future for Calls<T, B>
where
    T: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.get_mut();
        if let Err(error) = this.link.tick(cx, !this.streams.is_empty(), this.outgoing.has_unsent()) {
            return Poll::Ready(Err(error));
        }
        for _ in 0..TURNS {
            match this.turn(cx) {
                Ok(Turn::Again) => {}
                Ok(Turn::Wait) => return Poll::Pending,
                Ok(Turn::End) => return Poll::Ready(Ok(())),
                Err(error) => {
                    match &error {
                        Error::Peer { reason, .. } => this.link.send_away(cx, 0, *reason),
                        Error::Io(_) => this.take_rest(cx),
                        Error::Silent => {}
                    }
                    return Poll::Ready(Err(error));
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<T, B> Drop for Calls<T, B> {
    fn drop(&mut self) {
        let mut inbox = lock(&self.inbox);
        inbox.is_open = false;
        inbox.connection = None;
        let asks = std::mem::take(&mut inbox.asks);
        drop(inbox);
        for ask in asks {
            let _ = ask.reply.send(Err(CallError::Unsent(ask.request)));
        }
        for (_, stream) in std::mem::take(&mut self.streams) {
            match stream.answer {
                Coming::Nothing { reply, .. } | Coming::Part { reply, .. } => {
                    let _ = reply.send(Err(CallError::Lost(Lost::Connection)));
                }
                // Its reader is told by the end of the feed.
                Coming::Pieces { .. } => {}
            }
        }
    }
}
