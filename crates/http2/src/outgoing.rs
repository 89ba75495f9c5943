//! Bodies that go to the peer, in turn and within its windows.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::frame::{self, WINDOW_MAX, flag, kind};
use crate::hpack::encoder;
use crate::link::Link;

/// What goes out on all streams of a connection.
pub(crate) struct Outgoing<B> {
    streams: BTreeMap<u32, Stream<B>>,
    /// Streams with something to send, in turn.
    sending: VecDeque<u32>,
    /// Streams whose body had nothing at hand.
    waiting: Vec<u32>,
}

struct Stream<B> {
    /// Bytes that may still be sent.
    window: i64,
    /// When something last went.
    moved: Instant,
    /// None before its head is written.
    message: Option<Message<B>>,
}

/// What is left of a body.
struct Message<B> {
    body: B,
    piece: Bytes,
    trailers: Option<HeaderMap>,
    is_read: bool,
}

/// How the sending of a stream came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// All of it.
    Done,
    /// Its body has nothing at hand.
    Waiting,
    /// Its window is used up.
    Blocked,
    /// The connection's window is, or enough is waiting to be written.
    Full,
    /// Its body broke.
    Broken,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    Broken,
}

/// The peer has opened a window wider than there are windows.
#[derive(Debug)]
pub(crate) struct TooWide;

impl<B> Default for Outgoing<B> {
    fn default() -> Self {
        Self { streams: BTreeMap::new(), sending: VecDeque::new(), waiting: Vec::new() }
    }
}

impl<B> Outgoing<B> {
    /// A stream begins; the peer takes so much on it.
    pub(crate) fn open(&mut self, stream: u32, window: i64) {
        self.streams.insert(stream, Stream { window, moved: Instant::now(), message: None });
    }

    pub(crate) fn close(&mut self, stream: u32) {
        self.streams.remove(&stream);
    }

    /// Whether the body of an open stream is still to come.
    pub(crate) fn is_awaited(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|stream| stream.message.is_none())
    }

    /// Whether anything waits for its turn or a window.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.sending.is_empty()
    }

    /// The peer takes so much more on a stream.
    pub(crate) fn widen(&mut self, id: u32, more: u32) -> Result<(), TooWide> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        stream.window += i64::from(more);
        if stream.window > WINDOW_MAX {
            return Err(TooWide);
        }
        if stream.has_piece() && !self.sending.contains(&id) {
            self.sending.push_back(id);
        }
        Ok(())
    }

    /// The peer takes so much more, or less, on every stream.
    pub(crate) fn widen_all(&mut self, change: i64) -> Result<(), TooWide> {
        for (id, stream) in &mut self.streams {
            stream.window += change;
            if stream.window > WINDOW_MAX {
                return Err(TooWide);
            }
            if change > 0 && stream.has_piece() && !self.sending.contains(id) {
                self.sending.push_back(*id);
            }
        }
        Ok(())
    }

    /// Streams with something that the peer has not taken for so long.
    pub(crate) fn unread(&self, longest: Duration) -> Vec<u32> {
        let is_unread = |stream: &Stream<B>| stream.has_piece() && stream.moved.elapsed() > longest;
        self.streams.iter().filter(|(_, stream)| is_unread(stream)).map(|(id, _)| *id).collect()
    }
}

impl<B: Body<Data = Bytes> + Unpin> Outgoing<B> {
    /// Takes a body whose head is written.
    pub(crate) fn begin(&mut self, id: u32, body: B) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.moved = Instant::now();
        stream.message = Some(Message { body, piece: Bytes::new(), trailers: None, is_read: false });
        self.sending.push_back(id);
    }

    /// Sends what may be sent; `ended` hears whose body came to its end.
    pub(crate) fn send<T>(&mut self, link: &mut Link<T>, cx: &mut Context<'_>, ended: &mut Vec<(u32, End)>)
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        self.sending.extend(self.waiting.drain(..));
        for _ in 0..self.sending.len() {
            let Some(id) = self.sending.pop_front() else { return };
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            match stream.send(id, link, cx) {
                Sent::Done => ended.push((id, End::Whole)),
                Sent::Broken => ended.push((id, End::Broken)),
                Sent::Waiting => self.waiting.push(id),
                Sent::Blocked => {}
                Sent::Full => {
                    self.sending.push_back(id);
                    if link.is_full() {
                        return;
                    }
                }
            }
        }
        if link.peer.window <= 0 && !self.sending.is_empty() {
            // The next window is another stream's.
            self.sending.rotate_left(1);
        }
    }
}

impl<B> Stream<B> {
    /// Whether a piece of it waits for the window.
    fn has_piece(&self) -> bool {
        self.message.as_ref().is_some_and(|message| !message.piece.is_empty())
    }
}

impl<B: Body<Data = Bytes> + Unpin> Stream<B> {
    fn send<T>(&mut self, id: u32, link: &mut Link<T>, cx: &mut Context<'_>) -> Sent
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(message) = &mut self.message else { return Sent::Blocked };
        loop {
            if link.is_full() {
                return Sent::Full;
            }
            if message.piece.is_empty() && !message.is_read {
                match message.read(cx) {
                    Poll::Pending => return Sent::Waiting,
                    Poll::Ready(Err(())) => return Sent::Broken,
                    Poll::Ready(Ok(())) => {}
                }
                if message.piece.is_empty() && !message.is_read {
                    continue;
                }
                // From now on it waits for the peer.
                self.moved = Instant::now();
            }
            if message.piece.is_empty() {
                match message.trailers.take() {
                    Some(trailers) => link.head(id, true, |out| encoder::fields(out, &trailers)),
                    None => frame::put(&mut link.outbound, kind::DATA, flag::END_STREAM, id, &[]),
                }
                return Sent::Done;
            }
            let room = link.peer.window.min(self.window).min(link.peer.payload_max as i64);
            let Some(room) = usize::try_from(room).ok().filter(|room| *room > 0) else {
                return if self.window <= 0 { Sent::Blocked } else { Sent::Full };
            };
            let now = message.piece.split_to(room.min(message.piece.len()));
            link.peer.window -= now.len() as i64;
            self.window -= now.len() as i64;
            self.moved = Instant::now();
            let is_last = message.piece.is_empty() && message.is_read && message.trailers.is_none();
            frame::put(&mut link.outbound, kind::DATA, if is_last { flag::END_STREAM } else { 0 }, id, &now);
            if is_last {
                return Sent::Done;
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Message<B> {
    /// Takes the next piece of the body, or its end.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => self.is_read = true,
            Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(())),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => self.piece = data,
                Err(frame) => {
                    self.trailers = frame.into_trailers().ok();
                    self.is_read = true;
                }
            },
        }
        self.is_read |= self.body.is_end_stream();
        Poll::Ready(Ok(()))
    }
}
