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

/// A body that holds something until it ends or is dropped, and whose failure is an end with a status: whoever passes it on, over
/// whatever it travels, passes the status on too.
pub(crate) struct Holding<G, F> {
    pub(crate) body: Option<Body>,
    pub(crate) guard: Option<G>,
    pub(crate) map_error: F,
}

impl<G, F> http_body::Body for Holding<G, F>
where
    G: Unpin,
    F: Fn(tonic::Status) -> tonic::Status + Unpin,
{
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = futures::ready!(Pin::new(body).poll_frame(cx));
        if let Some(Ok(frame)) = frame {
            return Poll::Ready(Some(Ok(frame)));
        }
        (self.body, self.guard) = (None, None);
        Poll::Ready(frame.and_then(Result::err).map(|status| Ok(trailers(&(self.map_error)(status)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

/// A status as the end of an answer that has begun.
fn trailers(status: &tonic::Status) -> Frame<Bytes> {
    let mut map = HeaderMap::new();
    // A message that cannot be a header is left off; the code always can.
    if status.add_header(&mut map).is_err() {
        map.insert(tonic::Status::GRPC_STATUS, http::HeaderValue::from(i32::from(status.code())));
    }
    Frame::trailers(map)
}

/// Renders a status as a whole answer (trailers only).
pub(crate) fn answer(status: tonic::Status) -> http::Response<Body> {
    let mut response = status.into_http::<Body>();
    response.extensions_mut().clear();
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_breaks_off_ends_with_a_status() {
        let frames: [Result<_, tonic::Status>; 2] = [
            Ok(Frame::data(Bytes::from_static(b"whole"))),
            Err(crate::status(&crate::fault::Common::Deadline { effect: crate::Effect::Possible })),
        ];
        let broken = Body::new(http_body_util::StreamBody::new(futures::stream::iter(frames)));
        let guard = std::sync::Arc::new(());
        let watched = std::sync::Arc::downgrade(&guard);
        let map_error = |_| crate::status(&crate::fault::Common::Deadline { effect: crate::Effect::Possible });
        let mut body = Holding { body: Some(broken), guard: Some(guard), map_error };
        let data = body.frame().await.expect("a frame").expect("never fails").into_data().expect("data");
        assert_eq!((data.as_ref(), watched.strong_count()), (b"whole".as_slice(), 1));
        let end = body.frame().await.expect("a frame").expect("never fails").into_trailers().expect("trailers");
        assert_eq!(end.get(tonic::Status::GRPC_STATUS).map(http::HeaderValue::as_bytes), Some(b"4".as_slice()));
        assert_eq!(watched.strong_count(), 0, "what was held is let go");
        assert!(http_body::Body::is_end_stream(&body) && body.frame().await.is_none());
    }
}
