//! Bodies: collected under a limit, replayed, wrapped.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tonic::body::Body;

/// Why a body could not be collected.
#[derive(Debug)]
pub(crate) enum CollectError {
    /// More than the limit.
    TooLong,
    /// The body failed.
    Body(tonic::Status),
}

/// A whole body, kept as the pieces in which it came.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    data: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    remaining: u64,
}

impl Collected {
    /// Reads a body to its end, at most `bytes_max`.
    pub(crate) async fn read(mut body: Body, bytes_max: u64) -> Result<Self, CollectError> {
        let mut collected = Self::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(CollectError::Body)?;
            collected.push(frame);
            if collected.remaining > bytes_max {
                return Err(CollectError::TooLong);
            }
        }
        Ok(collected)
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) => {
                self.remaining = self.remaining.saturating_add(data.len() as u64);
                if !data.is_empty() {
                    self.data.push_back(data);
                }
            }
            Err(frame) => self.trailers = frame.into_trailers().ok(),
        }
    }

    /// The body again, from its beginning.
    pub(crate) fn into_body(self) -> Body {
        Body::new(self)
    }

    /// The same body once more; the pieces are shared, not copied.
    pub(crate) fn again(&self) -> Body {
        Body::new(Self { data: self.data.clone(), trailers: self.trailers.clone(), remaining: self.remaining })
    }
}

impl http_body::Body for Collected {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(data) = self.data.pop_front() {
            self.remaining = self.remaining.saturating_sub(data.len() as u64);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

/// A body that holds something until it ends or is dropped, and maps its error.
pub(crate) struct Holding<G, F> {
    pub(crate) body: Body,
    pub(crate) guard: Option<G>,
    pub(crate) map_error: F,
}

impl<G, F> http_body::Body for Holding<G, F>
where
    G: Unpin,
    F: Fn(tonic::Status) -> tonic::Status + Unpin,
{
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = futures::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.guard = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|status| (self.map_error)(status))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Renders a status as a whole answer (trailers only).
pub(crate) fn answer(status: tonic::Status) -> http::Response<Body> {
    let mut response = status.into_http::<Body>();
    response.extensions_mut().clear();
    response
}
