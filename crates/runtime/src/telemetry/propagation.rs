//! W3C trace context in headers.

use ::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Writes the current span's `traceparent` and `tracestate`; nothing when the span has no id because nothing is exported.
pub fn inject(headers: &mut HeaderMap) {
    let context = Span::current().context();
    if context.span().span_context().is_valid() {
        TraceContextPropagator::new().inject_context(&context, &mut Headers(headers));
    }
}

/// Reads the caller's trace context; an empty one when there is none or it is malformed.
pub fn extract(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &HeadersRef(headers))
}

/// Writes the current span as text, to be kept with work that goes on later, in this process or another; `None` when nothing is exported.
pub fn kept() -> Option<String> {
    let mut headers = HeaderMap::new();
    inject(&mut headers);
    headers.get(TRACEPARENT)?.to_str().ok().map(str::to_owned)
}

/// Makes the span that was kept the parent of `span`.
pub fn go_on(span: &Span, kept: &str) {
    if let Ok(kept) = HeaderValue::from_str(kept) {
        set_parent(span, &HeaderMap::from_iter([(TRACEPARENT, kept)]));
    }
}

/// Makes the caller's span, named in the headers, the parent of `span`.
pub fn set_parent(span: &Span, headers: &HeaderMap) {
    let context = extract(headers);
    if context.span().span_context().is_valid() {
        // It fails only for a span that nothing records; then there is nothing to link.
        let _ = span.set_parent(context);
    }
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(key.as_bytes()), HeaderValue::from_str(&value)) {
            self.0.insert(name, value);
        }
    }
}

struct HeadersRef<'a>(&'a HeaderMap);

impl Extractor for HeadersRef<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::TracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_callers_trace_goes_on_in_the_next_hop() {
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let mut incoming = HeaderMap::new();
            incoming.insert("traceparent", HeaderValue::from_static(PARENT));
            let span = tracing::info_span!("hop");
            set_parent(&span, &incoming);
            let mut outgoing = HeaderMap::new();
            span.in_scope(|| inject(&mut outgoing));
            let sent = outgoing["traceparent"].to_str().expect("ascii");
            assert_eq!(sent[..35], PARENT[..35], "the trace is the same");
            assert_ne!(sent, PARENT, "the span is the hop's own");

            let kept = span.in_scope(kept).expect("it has an id");
            assert_eq!(kept, sent, "the span itself is what is kept");
            let later = tracing::info_span!("later");
            go_on(&later, &kept);
            let gone_on = later.in_scope(super::kept).expect("it has an id");
            assert_eq!((&gone_on[..35], gone_on == kept), (&PARENT[..35], false), "the same trace, a span of its own");
        });
    }

    #[test]
    fn without_export_no_id_is_made_up() {
        tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            let mut headers = HeaderMap::new();
            tracing::info_span!("hop").in_scope(|| inject(&mut headers));
            assert!(headers.is_empty());
            assert_eq!(tracing::info_span!("hop").in_scope(kept), None);
        });
    }

    #[test]
    fn a_malformed_header_is_no_parent() {
        for bad in ["", "00-0-0-0", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_static(bad));
            assert!(!extract(&headers).span().span_context().is_valid(), "{bad:?}");
        }
    }
}
