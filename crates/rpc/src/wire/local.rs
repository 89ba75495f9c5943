//! The wire to a server in the same process.

use std::panic::resume_unwind;

use futures::future::BoxFuture;
use http::{Extensions, Version};
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::body::Body;

use super::{ANSWER_BYTES_MAX, Answer, Flight, Transport};
use crate::fault::Common;
use crate::frames::{CollectError, Collected, answer};
use crate::peer::Peer;
use crate::role::Role;
use crate::stack::Server;
use crate::stack::chain::{Request, Response};

/// Frames of a stream that may wait between the service's runtime and the caller's.
const STREAM_FRAMES_MAX: usize = 4;

pub(crate) struct Local {
    server: Server,
    runtime: Option<Handle>,
    caller: Role,
}

impl Local {
    pub(crate) fn new(server: Server, runtime: Option<Handle>, caller: Role) -> Self {
        Self { server, runtime, caller }
    }
}

impl Transport for Local {
    fn send<'a>(&'a self, request: Request, streaming: bool, flight: &'a Flight) -> BoxFuture<'a, Answer> {
        let request = as_if_remote(request, self.caller);
        let server = self.server.clone();
        flight.leave();
        Box::pin(async move {
            match &self.runtime {
                None => Answer { response: finish(server.handle(request).await, streaming).await, failed: false },
                Some(runtime) => across(runtime, server, request, streaming).await,
            }
        })
    }
}

/// Leaves of the request what a network would carry, and says who calls.
fn as_if_remote(mut request: Request, caller: Role) -> Request {
    *request.extensions_mut() = Extensions::new();
    *request.version_mut() = Version::HTTP_2;
    request.extensions_mut().insert(Peer::local(caller));
    request
}

/// Makes of an answer what a network would hand over: no extensions; a unary body whole, encoded on this side.
async fn finish(response: Response, streaming: bool) -> Response {
    let (mut parts, body) = response.into_parts();
    parts.extensions = Extensions::new();
    parts.version = Version::HTTP_2;
    if streaming {
        return Response::from_parts(parts, body);
    }
    match Collected::read(body, ANSWER_BYTES_MAX as u64).await {
        Ok(collected) => Response::from_parts(parts, collected.into_body()),
        Err(CollectError::Body(status)) => answer(status),
        Err(CollectError::TooLong) => answer(crate::status(&Common::Internal)),
    }
}

/// Runs the call on the service's runtime. Dropping the returned future cancels it there, as a reset stream would.
async fn across(runtime: &Handle, server: Server, request: Request, streaming: bool) -> Answer {
    let mut call = AbortOnDrop(runtime.spawn(async move { finish(server.handle(request).await, streaming).await }));
    match (&mut call.0).await {
        Ok(response) if streaming => Answer { response: pump(runtime, response), failed: false },
        Ok(response) => Answer { response, failed: false },
        Err(error) => match error.try_into_panic() {
            Ok(payload) if runtime::crash::is_crash(payload.as_ref()) => resume_unwind(payload),
            Ok(_) | Err(_) => Answer { response: answer(crate::status(&Common::Internal)), failed: true },
        },
    }
}

/// Moves a stream's frames over: the service's runtime makes them, the caller's only takes them.
fn pump(runtime: &Handle, response: Response) -> Response {
    let (parts, mut body) = response.into_parts();
    let (frames, received) = mpsc::channel(STREAM_FRAMES_MAX);
    let task = runtime.spawn(async move {
        while let Some(frame) = body.frame().await {
            if frames.send(frame).await.is_err() {
                return;
            }
        }
    });
    Response::from_parts(parts, Body::new(Pumped { received, _task: AbortOnDrop(task) }))
}

struct Pumped {
    received: mpsc::Receiver<Result<http_body::Frame<bytes::Bytes>, tonic::Status>>,
    _task: AbortOnDrop<()>,
}

impl http_body::Body for Pumped {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, tonic::Status>>> {
        self.received.poll_recv(cx)
    }
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
