//! The body of a request or an answer, as it came.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

const SMALL_BYTES: usize = 4 * 1024;

/// The body of a request or an answer.
#[derive(Debug)]
pub enum Received {
    /// All of it.
    Whole {
        /// The body.
        data: Bytes,
        /// The fields after it. Those of a request are not kept.
        trailers: Option<Box<HeaderMap>>,
    },
    /// What comes, as it comes.
    Pieces(Pieces),
}

/// The other side broke off: there is no more of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side broke off")]
pub struct Broken;

impl Received {
    pub(crate) fn whole(data: Bytes) -> Self {
        Self::Whole { data, trailers: None }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Self::Whole { data, trailers } if data.is_empty() => {
                Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))))
            }
            Self::Whole { data, .. } => Poll::Ready(Some(Ok(Frame::data(std::mem::take(data))))),
            Self::Pieces(pieces) => pieces.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole { data, trailers: None } if data.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { data, .. } => SizeHint::with_exact(data.len() as u64),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}

/// The reader's end.
#[derive(Debug)]
pub struct Pieces(Arc<Mutex<Inbox>>);

/// The connection's end. At most a window of bytes lies between the two.
#[derive(Debug)]
pub(crate) struct Feed(Arc<Mutex<Inbox>>);

#[derive(Debug, Default)]
struct Inbox {
    pieces: VecDeque<Bytes>,
    end: Option<Result<Option<HeaderMap>, Broken>>,
    reader: Option<Waker>,
    has_reader_left: bool,
    connection: Option<Waker>,
    /// Read since the connection last asked.
    taken: usize,
}

pub(crate) fn pieces() -> (Feed, Pieces) {
    let inbox = Arc::default();
    (Feed(Arc::clone(&inbox)), Pieces(inbox))
}

impl Pieces {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut inbox = lock(&self.0);
        if let Some(piece) = inbox.pieces.pop_front() {
            inbox.taken += piece.len();
            if let Some(connection) = inbox.connection.take() {
                connection.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &mut inbox.end {
            Some(Ok(trailers)) => Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            Some(Err(Broken)) => Poll::Ready(Some(Err(Broken))),
            None => {
                inbox.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        let mut inbox = lock(&self.0);
        inbox.has_reader_left = true;
        if let Some(connection) = inbox.connection.take() {
            connection.wake();
        }
    }
}

impl Feed {
    /// Hands a piece over; false when nobody reads any more.
    pub(crate) fn push(&self, piece: Bytes) -> bool {
        // A small piece must not hold on to all that was read with it.
        let piece = if piece.len() < SMALL_BYTES { Bytes::copy_from_slice(&piece) } else { piece };
        let mut inbox = lock(&self.0);
        if inbox.has_reader_left {
            return false;
        }
        inbox.pieces.push_back(piece);
        wake(&mut inbox);
        true
    }

    pub(crate) fn end(&self, end: Result<Option<HeaderMap>, Broken>) {
        let mut inbox = lock(&self.0);
        inbox.end.get_or_insert(end);
        wake(&mut inbox);
    }

    /// How many bytes were read since this was last asked; wakes the asking task at the next, and when the reader leaves.
    ///
    /// Errors: None when nobody reads any more.
    pub(crate) fn taken(&self, cx: &mut Context<'_>) -> Option<usize> {
        let mut inbox = lock(&self.0);
        if inbox.has_reader_left {
            return None;
        }
        inbox.connection = Some(cx.waker().clone());
        Some(std::mem::take(&mut inbox.taken))
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.end(Err(Broken));
    }
}

fn wake(inbox: &mut Inbox) {
    if let Some(reader) = inbox.reader.take() {
        reader.wake();
    }
}

fn lock(inbox: &Mutex<Inbox>) -> MutexGuard<'_, Inbox> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}
