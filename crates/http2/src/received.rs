//! The body of a request.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The body of a request: whole, except of the few methods that read while they answer.
#[derive(Debug)]
pub enum Received {
    /// All of it.
    Whole(Bytes),
    /// It is not there, and will not be.
    Missing(Missing),
    /// What comes, as it comes.
    Pieces(Pieces),
}

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// More than is taken.
    #[error("the body is longer than is taken")]
    TooLong,
    /// Not whole in the time that there was.
    #[error("the body did not come in time")]
    Late,
    /// The caller broke off.
    #[error("the caller broke off")]
    Broken,
}

impl Received {
    /// The whole body.
    ///
    /// Errors: why it is not there.
    pub fn whole(self) -> Result<Bytes, Missing> {
        match self {
            Self::Whole(bytes) => Ok(bytes),
            Self::Missing(missing) => Err(missing),
            Self::Pieces(_) => Err(Missing::Broken),
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Missing;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Missing>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Missing(missing) => Poll::Ready(Some(Err(*missing))),
            Self::Pieces(pieces) => pieces.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Missing(_) | Self::Pieces(_) => SizeHint::default(),
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
    end: Option<Result<(), Missing>>,
    reader: Option<Waker>,
    connection: Option<Waker>,
    /// Read since the connection last asked.
    taken: usize,
}

pub(crate) fn pieces() -> (Feed, Pieces) {
    let inbox = Arc::default();
    (Feed(Arc::clone(&inbox)), Pieces(inbox))
}

impl Pieces {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Missing>>> {
        let mut inbox = lock(&self.0);
        if let Some(piece) = inbox.pieces.pop_front() {
            inbox.taken += piece.len();
            if let Some(connection) = inbox.connection.take() {
                connection.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match inbox.end {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(missing)) => Poll::Ready(Some(Err(missing))),
            None => {
                inbox.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Feed {
    pub(crate) fn push(&self, piece: Bytes) {
        let mut inbox = lock(&self.0);
        inbox.pieces.push_back(piece);
        wake(&mut inbox);
    }

    pub(crate) fn end(&self, end: Result<(), Missing>) {
        let mut inbox = lock(&self.0);
        inbox.end.get_or_insert(end);
        wake(&mut inbox);
    }

    /// How many bytes were read since this was last asked; wakes the asking task at the next.
    pub(crate) fn taken(&self, cx: &mut Context<'_>) -> usize {
        let mut inbox = lock(&self.0);
        inbox.connection = Some(cx.waker().clone());
        std::mem::take(&mut inbox.taken)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.end(Err(Missing::Broken));
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
