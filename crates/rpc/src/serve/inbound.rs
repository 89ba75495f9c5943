//! The body of a request as a service gets it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http2::{Missing, Received};
use tonic::Status;

use crate::Effect;
use crate::fault::{Common, status};

/// The body of a request: whole, but for the methods that read while they answer. What is missing of it ends with the status that says
/// why.
#[derive(Debug)]
pub struct Inbound {
    received: Received,
    bytes_max: usize,
}

impl Inbound {
    pub(super) fn new(received: Received, bytes_max: usize) -> Self {
        Self { received, bytes_max }
    }

    /// The whole body.
    ///
    /// Errors: why it is not there.
    pub fn whole(self) -> Result<Bytes, Missing> {
        self.received.whole()
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.received).poll_frame(cx));
        let max = self.bytes_max as u64;
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|missing| {
                status(&match missing {
                    Missing::TooLong => Common::Limit { limit: "messageBytes", max, unit: "bytes" },
                    Missing::Late | Missing::Broken => Common::Deadline { effect: Effect::None },
                })
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.received.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.received.size_hint()
    }
}
