//! One span and one measurement for every call.

use std::borrow::Cow;

use runtime::telemetry::{self, Durations, Gauge, Metrics};
use tokio::time::Instant;
use tracing::Instrument;

use super::chain::{Handle, Request, Response, Step};
use crate::contract::Contract;

pub(super) struct Observe {
    contract: &'static Contract,
    durations: Durations,
    open: Gauge,
}

impl Observe {
    pub(super) fn server(contract: &'static Contract, metrics: &Metrics) -> Self {
        let durations =
            metrics.seconds("lastmile_rpc_server_call_seconds", "Time to the head of the answer, by method and code");
        let open = metrics.gauge("lastmile_rpc_server_calls_open", "Calls whose answer has not begun");
        Self { contract, durations, open: open.get_or_create(&Vec::new()).clone() }
    }

    /// The method as a label: a name of the contract, so that a caller cannot make up series.
    fn method(&self, path: &str) -> Cow<'static, str> {
        match self.contract.method(path) {
            Some(method) => Cow::Borrowed(method.path.as_str()),
            None if crate::standard::is_standard(path) => Cow::Borrowed("standard"),
            None => Cow::Borrowed("unknown"),
        }
    }
}

impl Step for Observe {
    async fn run(&self, request: Request, next: &impl Handle) -> Response {
        let method = self.method(request.uri().path());
        let span = tracing::info_span!(
            "rpc.server",
            otel.kind = "server",
            rpc.system = "grpc",
            rpc.method = method.as_ref(),
            rpc.grpc.status_code = tracing::field::Empty,
            request_id = tracing::field::Empty,
            caller = tracing::field::Empty,
        );
        telemetry::set_parent(&span, request.headers());
        let begun = Instant::now();
        let open = Open::new(&self.open);
        let response = next.handle(request).instrument(span.clone()).await;
        drop(open);
        let code = code_of(&response);
        span.record("rpc.grpc.status_code", i32::from(code));
        let labels = vec![("method", method), ("code", Cow::Borrowed(code_name(code)))];
        self.durations.get_or_create(&labels).observe(begun.elapsed().as_secs_f64());
        response
    }
}

/// The client's side: how calls of a peer end, as its caller sees it.
pub(super) struct ObserveClient {
    peer: Cow<'static, str>,
    traffic: &'static str,
    durations: Durations,
}

impl ObserveClient {
    pub(super) fn new(peer: &str, traffic: &'static str, metrics: &Metrics) -> Self {
        let help = "Time to the head of the answer, by peer, code and traffic, retries included";
        let durations = metrics.seconds("lastmile_rpc_client_call_seconds", help);
        Self { peer: peer.to_owned().into(), traffic, durations }
    }
}

impl Step for ObserveClient {
    async fn run(&self, request: Request, next: &impl Handle) -> Response {
        let begun = Instant::now();
        let response = next.handle(request).await;
        let code = code_name(code_of(&response));
        let labels =
            vec![("peer", self.peer.clone()), ("code", Cow::Borrowed(code)), ("traffic", Cow::Borrowed(self.traffic))];
        self.durations.get_or_create(&labels).observe(begun.elapsed().as_secs_f64());
        response
    }
}

/// Counts a call while it is open, also when its future is dropped.
struct Open<'a>(&'a Gauge);

impl<'a> Open<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The code in the head of an answer; OK when the head has none, for then the body carries it.
pub(super) fn code_of(response: &Response) -> tonic::Code {
    match response.headers().get(tonic::Status::GRPC_STATUS) {
        Some(code) => tonic::Code::from_bytes(code.as_bytes()),
        None => tonic::Code::Ok,
    }
}

fn code_name(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Ok => "OK",
        tonic::Code::Cancelled => "CANCELLED",
        tonic::Code::Unknown => "UNKNOWN",
        tonic::Code::InvalidArgument => "INVALID_ARGUMENT",
        tonic::Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        tonic::Code::NotFound => "NOT_FOUND",
        tonic::Code::AlreadyExists => "ALREADY_EXISTS",
        tonic::Code::PermissionDenied => "PERMISSION_DENIED",
        tonic::Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        tonic::Code::FailedPrecondition => "FAILED_PRECONDITION",
        tonic::Code::Aborted => "ABORTED",
        tonic::Code::OutOfRange => "OUT_OF_RANGE",
        tonic::Code::Unimplemented => "UNIMPLEMENTED",
        tonic::Code::Internal => "INTERNAL",
        tonic::Code::Unavailable => "UNAVAILABLE",
        tonic::Code::DataLoss => "DATA_LOSS",
        tonic::Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
