//! The body is weighed before the decoder unpacks it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Frame;
use tonic::body::Body;

use super::chain::{Handle, Request, Response, Step};
use crate::contract::{Contract, Method};
use crate::fault::{Common, Violation, status};
use crate::shape::Refusal;

const FRAME_HEAD_BYTES: usize = 5;

pub(super) struct Elements {
    contract: &'static Contract,
    bytes_max: usize,
}

impl Elements {
    pub(super) fn new(contract: &'static Contract, bytes_max: usize) -> Self {
        Self { contract, bytes_max }
    }
}

impl Step for Elements {
    async fn run(&self, request: Request, next: &impl Handle) -> Response {
        let Some(method) = self.contract.method(request.uri().path()) else {
            return next.handle(request).await;
        };
        let Self { contract, bytes_max } = *self;
        next.handle(request.map(|body| Body::new(Weighed::new(body, contract, method, bytes_max)))).await
    }
}

/// A request body that lets a message through only when it is whole, within the limits and well formed.
struct Weighed {
    body: Body,
    contract: &'static Contract,
    method: &'static Method,
    bytes_max: usize,
    held: BytesMut,
}

impl Weighed {
    fn new(body: Body, contract: &'static Contract, method: &'static Method, bytes_max: usize) -> Self {
        Self { body, contract, method, bytes_max, held: BytesMut::new() }
    }

    /// Returns the whole messages at hand, checked; keeps what is not whole yet. One piece that is exactly whole is passed as it is.
    fn admit(&mut self, piece: Bytes) -> Result<Bytes, Common> {
        if self.held.is_empty() && self.whole(&piece)? == piece.len() {
            return Ok(piece);
        }
        self.held.extend_from_slice(&piece);
        let held = std::mem::take(&mut self.held);
        let whole = self.whole(&held)?;
        self.held = held;
        Ok(self.held.split_to(whole).freeze())
    }

    /// Checks the messages at the head of `bytes` and returns how many bytes they take.
    fn whole(&self, bytes: &[u8]) -> Result<usize, Common> {
        let mut rest = bytes;
        while let Some((mut head, tail)) = rest.split_at_checked(FRAME_HEAD_BYTES) {
            if head.get_u8() != 0 {
                return Err(Common::NotSpoken { what: "a compressed message" });
            }
            let length = head.get_u32() as usize;
            if length > self.bytes_max {
                return Err(Common::Limit { limit: "messageBytes", max: self.bytes_max as u64, unit: "bytes" });
            }
            let Some((message, after)) = tail.split_at_checked(length) else { break };
            self.contract.check_request(self.method, message).map_err(Common::from)?;
            rest = after;
        }
        Ok(bytes.len() - rest.len())
    }
}

impl From<Refusal> for Common {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(what) => {
                Self::Invalid { violations: vec![Violation::new("", format!("malformed: {what}"))] }
            }
            Refusal::TooMuch { limit, max, unit } => Self::Limit { limit, max, unit },
        }
    }
}

impl http_body::Body for Weighed {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        loop {
            let frame = match futures::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                None if self.held.is_empty() => return Poll::Ready(None),
                None => {
                    self.held.clear();
                    let violations = vec![Violation::new("", "malformed: the message is cut")];
                    return Poll::Ready(Some(Err(status(&Common::Invalid { violations }))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            };
            let piece = match frame.into_data() {
                Ok(piece) => piece,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            };
            match self.admit(piece) {
                Ok(whole) if whole.is_empty() => {}
                Ok(whole) => return Poll::Ready(Some(Ok(Frame::data(whole)))),
                Err(fault) => {
                    // Nothing after a refused message is read.
                    self.body = Body::empty();
                    self.held.clear();
                    return Poll::Ready(Some(Err(status(&fault))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.body.is_end_stream()
    }
}
