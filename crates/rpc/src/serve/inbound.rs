//! The body of a request as a service gets it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http2::Received;
use hyper::body::Incoming;
use tonic::Status;

use crate::Effect;
use crate::fault::{Common, status};

/// The body of a request, over whichever protocol it comes.
#[derive(Debug)]
pub struct Inbound(Source);

#[derive(Debug)]
enum Source {
    Http2(Received),
    Http1(Incoming),
}

impl Inbound {
    /// The whole body, where it has come already: then nothing has to be waited for.
    ///
    /// Errors: the body, to be read.
    pub fn whole(self) -> Result<Bytes, Self> {
        match self.0 {
            Source::Http2(Received::Whole { data, .. }) => Ok(data),
            source => Err(Self(source)),
        }
    }
}

impl From<Received> for Inbound {
    fn from(received: Received) -> Self {
        Self(Source::Http2(received))
    }
}

impl From<Incoming> for Inbound {
    fn from(incoming: Incoming) -> Self {
        Self(Source::Http1(incoming))
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Who reads it has nobody to answer any more.
        let broken = || status(&Common::Deadline { effect: Effect::None });
        match &mut self.0 {
            Source::Http2(received) => {
                Pin::new(received).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(|_| broken())))
            }
            Source::Http1(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(|_| broken())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Http2(received) => received.is_end_stream(),
            Source::Http1(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Http2(received) => received.size_hint(),
            Source::Http1(incoming) => incoming.size_hint(),
        }
    }
}
