//! One span and one measurement for every public call.

use std::borrow::Cow;
use std::future::Future;

use http::{HeaderMap, Response};
use runtime::telemetry::{Durations, Metrics};
use tokio::time::Instant;
use tonic::body::Body;
use tracing::Instrument;

/// Measures calls.
pub(crate) struct Observe {
    durations: Durations,
}

/// A call that began.
pub(crate) struct Observed<'a> {
    observe: &'a Observe,
    span: tracing::Span,
    method: Cow<'static, str>,
    begun: Instant,
}

impl Observe {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let help = "Time from the head of a public call to the head of its answer, by method and code";
        Self { durations: metrics.seconds("lastmile_gateway_call_seconds", help) }
    }

    /// Begins a call: continues the caller's trace, or begins one.
    pub(crate) fn begin(&self, path: &str, headers: &HeaderMap, request_id: &str) -> Observed<'_> {
        let known = rpc::Contract::lastmile().ok().and_then(|contract| contract.method(path));
        let method = known.map_or(Cow::Borrowed("unknown"), |method| Cow::Borrowed(method.path.as_str()));
        let span = tracing::info_span!(
            "gateway",
            otel.kind = "server",
            rpc.system = "grpc",
            rpc.method = method.as_ref(),
            rpc.grpc.status_code = tracing::field::Empty,
            request_id,
        );
        runtime::telemetry::set_parent(&span, headers);
        Observed { observe: self, span, method, begun: Instant::now() }
    }
}

impl Observed<'_> {
    /// Runs the call to the head of its answer.
    pub(crate) async fn run(self, call: impl Future<Output = Response<Body>>) -> Response<Body> {
        let response = call.instrument(self.span.clone()).await;
        let code = response.headers().get(tonic::Status::GRPC_STATUS);
        let code = code.map_or(tonic::Code::Ok, |code| tonic::Code::from_bytes(code.as_bytes()));
        self.span.record("rpc.grpc.status_code", i32::from(code));
        let labels = vec![("method", self.method), ("code", Cow::Owned(i32::from(code).to_string()))];
        self.observe.durations.get_or_create(&labels).observe(self.begun.elapsed().as_secs_f64());
        response
    }
}
