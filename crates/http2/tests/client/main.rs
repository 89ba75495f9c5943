//! The client's side of a connection, against servers that keep the rules and one that does not.

#![allow(clippy::disallowed_methods, reason = "this crate stands below the one that has Tasks")]

mod by_hand;
mod kept;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use http2::{CallError, Caller, Error, Limits, Lost, Received, Wanted};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(10);
const PIPE_BYTES: usize = 64 * 1024;
const WHOLE: Wanted = Wanted::Whole { bytes_max: 4 * 1024 * 1024 };

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn limits() -> Limits {
    Limits {
        streams_max: 100,
        stream_window_bytes: 64 * 1024,
        connection_window_bytes: 1024 * 1024,
        header_list_bytes_max: 16 * 1024,
        keepalive_interval: Duration::from_secs(30),
        keepalive_timeout: Duration::from_secs(20),
        reset_cost: 10,
    }
}

type Ended = JoinHandle<Result<(), Error>>;

/// A client over one end of a pipe.
fn connect(io: DuplexStream, limits: Limits) -> (Caller<Body>, Ended) {
    let (caller, calls) = http2::connect(io, limits);
    (caller, tokio::spawn(calls))
}

fn post(path: &str, body: impl Into<Bytes>) -> Request<Body> {
    Request::post(format!("http://peer{path}")).body(Full::new(body.into()).boxed_unsync()).expect("a request")
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

async fn call(caller: &Caller<Body>, request: Request<Body>) -> Result<Response<Received>, CallError<Body>> {
    in_time(caller.call(request, WHOLE)).await
}

fn lost<T: std::fmt::Debug>(answer: Result<T, CallError<Body>>) -> Lost {
    match answer.expect_err("is lost") {
        CallError::Lost(lost) => lost,
        other => panic!("{other}"),
    }
}
