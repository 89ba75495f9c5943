//! The last step before the transport: what the peer needs to know of the call.

use std::sync::Arc;

use http::HeaderValue;
use runtime::telemetry;
use tokio::time::Instant;
use tracing::Instrument;

use super::budget::Outgoing;
use super::chain::{Handle, Request, Response, Step};
use super::deadline::{GRPC_TIMEOUT, timeout_header};
use super::request_id::REQUEST_ID;
use crate::call;
use crate::wire::{Answer, MESH_KEY, Transport};

/// Writes mesh key, trace context, request id and the remaining time into the headers.
pub(super) struct Inject {
    key: Option<HeaderValue>,
}

impl Inject {
    pub(super) fn new(key: &str) -> Self {
        Self { key: HeaderValue::from_str(key).ok() }
    }
}

impl Step for Inject {
    async fn run(&self, mut request: Request, next: &impl Handle) -> Response {
        let span = tracing::info_span!(
            "rpc.client",
            otel.kind = "client",
            rpc.system = "grpc",
            rpc.method = request.uri().path(),
        );
        span.in_scope(|| telemetry::inject(request.headers_mut()));
        if let Some(key) = &self.key {
            request.headers_mut().insert(MESH_KEY, key.clone());
        }
        if let Some(Ok(id)) = call::request_id().map(|id| HeaderValue::from_str(&id)) {
            request.headers_mut().insert(REQUEST_ID, id);
        }
        let deadline = request.extensions().get::<Outgoing>().and_then(|outgoing| outgoing.deadline);
        if let Some(deadline) = deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            request.headers_mut().insert(GRPC_TIMEOUT, timeout_header(left));
        }
        next.handle(request).instrument(span).await
    }
}

/// Marks an answer that the wire had to make itself. Read by the breaker and the retry, gone before the caller sees the answer.
#[derive(Clone, Copy)]
pub(super) struct WireFailed;

/// The transport as the innermost handler.
pub(super) struct Send {
    transport: Arc<dyn Transport>,
}

impl Send {
    pub(super) fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport }
    }
}

impl Handle for Send {
    async fn handle(&self, mut request: Request) -> Response {
        let outgoing = request.extensions_mut().remove::<Outgoing>();
        let (streaming, flight) = match &outgoing {
            Some(outgoing) => (outgoing.streaming, outgoing.flight.clone()),
            None => (false, crate::wire::Flight::default()),
        };
        let Answer { mut response, failed } = self.transport.send(request, streaming, &flight).await;
        if failed {
            response.extensions_mut().insert(WireFailed);
        }
        response
    }
}
