//! No call outlives its caller's patience.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use runtime::Ids;
use tokio::time::{Instant, Sleep};
use tonic::body::Body;

use super::ServerOptions;
use super::chain::{Handle, Request, Response, Step};
use crate::call::{self, Call};
use crate::contract::Contract;
use crate::fault::{Common, Effect, Violation, refusal, status};
use crate::frames::answer;

/// The header of gRPC that carries the time left.
pub(crate) const GRPC_TIMEOUT: &str = "grpc-timeout";

pub(super) struct Deadline {
    contract: &'static Contract,
    ids: Ids,
    call_timeout_max: Duration,
    stream_age_max: Duration,
}

impl Deadline {
    pub(super) fn new(contract: &'static Contract, ids: Ids, options: &ServerOptions) -> Self {
        let ServerOptions { call_timeout_max, stream_age_max, .. } = *options;
        Self { contract, ids, call_timeout_max, stream_age_max }
    }
}

impl Step for Deadline {
    async fn run(&self, request: Request, next: &impl Handle) -> Response {
        let request_id = call::request_id().unwrap_or_default();
        let asked = match timeout_of(request.headers()) {
            Ok(asked) => asked,
            Err(violation) => return answer(refusal(&Common::Invalid { violations: vec![violation] }, &request_id)),
        };
        if asked == Some(Duration::ZERO) {
            return answer(status(&Common::Deadline { effect: Effect::None }));
        }
        let now = Instant::now();
        let streaming = self.streams(request.uri().path());
        let until_head = now + asked.unwrap_or(self.call_timeout_max).min(self.call_timeout_max);
        let call = Call { request_id: request_id.into(), deadline: (!streaming).then_some(until_head) };
        let work = call::scope(call.clone(), next.handle(request));
        let Ok(response) = tokio::time::timeout_at(until_head, work).await else {
            // The handler was running: what it had sent on is not called back by dropping it.
            return answer(status(&Common::Deadline { effect: Effect::Possible }));
        };
        if !streaming {
            return response;
        }
        let age = crate::jitter_below(&self.ids, self.stream_age_max);
        let end = match asked {
            Some(asked) if asked < age => End { at: now + asked, by_caller: true },
            _ => End { at: now + age, by_caller: false },
        };
        response.map(|body| Body::new(Aged::new(body, end, call)))
    }
}

impl Deadline {
    fn streams(&self, path: &str) -> bool {
        match self.contract.method(path) {
            Some(method) => method.server_streaming,
            None => crate::standard::streams(path),
        }
    }
}

/// Reads grpc-timeout: at most 8 digits and a unit. Source: gRPC over HTTP/2, "Timeout".
///
/// Errors: a violation when it is malformed or given twice.
pub fn timeout_of(headers: &HeaderMap) -> Result<Option<Duration>, Violation> {
    let mut given = headers.get_all(GRPC_TIMEOUT).iter();
    let (Some(value), second) = (given.next(), given.next()) else { return Ok(None) };
    let bad = || Violation::new(GRPC_TIMEOUT, "must be 1 to 8 digits and one of H, M, S, m, u, n");
    if second.is_some() {
        return Err(bad());
    }
    let (digits, unit) = value.as_bytes().split_at_checked(value.len().saturating_sub(1)).ok_or_else(bad)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    if !is_number {
        return Err(bad());
    }
    let count = digits.iter().fold(0_u64, |count, digit| count * 10 + u64::from(digit - b'0'));
    let timeout = match unit {
        b"H" => Duration::from_secs(count * 3_600),
        b"M" => Duration::from_secs(count * 60),
        b"S" => Duration::from_secs(count),
        b"m" => Duration::from_millis(count),
        b"u" => Duration::from_micros(count),
        b"n" => Duration::from_nanos(count),
        _ => return Err(bad()),
    };
    Ok(Some(timeout))
}

/// Writes grpc-timeout in the finest unit that keeps to 8 digits, rounded down: a hop never gains time.
pub fn timeout_header(left: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let text = if left.as_micros() <= MOST {
        format!("{}u", left.as_micros())
    } else if left.as_millis() <= MOST {
        format!("{}m", left.as_millis())
    } else {
        format!("{}S", u128::from(left.as_secs()).min(MOST))
    };
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("0u"))
}

/// When a stream ends at the latest.
#[derive(Clone, Copy)]
struct End {
    at: Instant,
    by_caller: bool,
}

/// A streaming body that ends in time: with OK at our own limit, for the caller resumes; with DEADLINE_EXCEEDED at the caller's.
/// A panic in the stream becomes INTERNAL, as it does in a handler.
struct Aged {
    body: Body,
    call: Call,
    sleep: Pin<Box<Sleep>>,
    end: End,
    ended: bool,
}

impl Aged {
    fn new(body: Body, end: End, call: Call) -> Self {
        Self { body, call, sleep: Box::pin(tokio::time::sleep_until(end.at)), end, ended: false }
    }

    fn last(&mut self, fault: Option<Common>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        self.ended = true;
        self.body = Body::empty();
        let mut trailers = HeaderMap::new();
        let written = match fault {
            None => {
                trailers.insert(tonic::Status::GRPC_STATUS, HeaderValue::from_static("0"));
                Ok(())
            }
            Some(fault) => call::scope_sync(&self.call, || status(&fault)).add_header(&mut trailers),
        };
        Poll::Ready(Some(written.map(|()| Frame::trailers(trailers))))
    }
}

impl http_body::Body for Aged {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Self { body, call, .. } = &mut *self;
        let poll = || call::scope_sync(call, || Pin::new(body).poll_frame(cx));
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(poll));
        match polled {
            Ok(Poll::Ready(frame)) => return Poll::Ready(frame),
            Ok(Poll::Pending) => {}
            Err(payload) if runtime::crash::is_crash(payload.as_ref()) => std::panic::resume_unwind(payload),
            Err(_) => {
                tracing::error!("a stream panicked");
                return self.last(Some(Common::Internal));
            }
        }
        futures::ready!(self.sleep.as_mut().poll(cx));
        let by_caller = self.end.by_caller;
        self.last(by_caller.then_some(Common::Deadline { effect: Effect::Possible }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Duration>, Violation> {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_str(text).expect("a header value"));
        timeout_of(&headers)
    }

    #[test]
    fn reads_what_grpc_writes() {
        for (text, expected) in [
            ("1H", Duration::from_secs(3_600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("400m", Duration::from_millis(400)),
            ("5u", Duration::from_micros(5)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("0S", Duration::ZERO),
        ] {
            assert_eq!(read(text), Ok(Some(expected)), "{text}");
        }
        assert_eq!(timeout_of(&HeaderMap::new()), Ok(None));
    }

    #[test]
    fn refuses_what_is_malformed() {
        for text in ["", "S", "1", "1s", "1 S", "-1S", "1.5S", "999999999S", "１S"] {
            let value = HeaderValue::from_bytes(text.as_bytes()).expect("a header value");
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, value);
            assert!(timeout_of(&headers).is_err(), "{text:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append(GRPC_TIMEOUT, HeaderValue::from_static("1S"));
        twice.append(GRPC_TIMEOUT, HeaderValue::from_static("2S"));
        assert!(timeout_of(&twice).is_err());
    }

    #[test]
    fn what_is_written_never_reads_back_longer() {
        for micros in [0, 1, 99_999_999, 100_000_000, 123_456_789, 200_000_000_000] {
            let left = Duration::from_micros(micros);
            let header = timeout_header(left);
            let back = read(header.to_str().expect("ascii")).expect("reads").expect("is there");
            assert!(back <= left, "{left:?} became {back:?}");
            assert!(left - back < Duration::from_secs(1));
        }
    }
}
