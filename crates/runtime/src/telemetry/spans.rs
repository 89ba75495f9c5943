//! The way of a span to the collector: a bounded queue, one task, batches with a deadline. A full queue drops and counts.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter, SpanProcessor};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::metrics::Counter;
use super::{Error, Metrics, OtlpConfig};

const BATCH_MAX: usize = 512;
const BATCH_WAIT: Duration = Duration::from_secs(1);

/// The running export.
#[derive(Debug)]
pub(super) struct Exporting {
    provider: SdkTracerProvider,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Starts the export task; the connection is made when the first batch is sent.
    pub(super) fn start(config: &OtlpConfig, service: &str, metrics: &Metrics) -> Result<Self, Error> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(config.endpoint.clone())
            .with_timeout(config.timeout.get())
            .build()?;
        Ok(Self::with_exporter(exporter, config, service, metrics))
    }

    fn with_exporter(
        mut exporter: impl SpanExporter + 'static,
        config: &OtlpConfig,
        service: &str,
        metrics: &Metrics,
    ) -> Self {
        let resource = Resource::builder_empty().with_service_name(service.to_owned()).build();
        exporter.set_resource(&resource);
        let dropped = metrics.counter("lastmile_runtime_spans_dropped", "Spans that did not reach the collector");
        let counted = |why: &'static str| dropped.get_or_create_owned(&vec![("why", why.into())]);
        let (queue, waiting) = mpsc::channel(config.queue_max as usize);
        let processor = Queue { sender: Mutex::new(Some(queue)), full: counted("queue_full") };
        #[expect(clippy::disallowed_methods, reason = "it must outlive the tasks, whose last spans it sends")]
        let task = tokio::spawn(export(exporter, waiting, config.timeout.get(), counted("export_failed")));
        let ratio = f64::from(config.sample_per_mille) / 1_000.0;
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
            .with_resource(resource)
            .build();
        Self { provider, task }
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("lastmile")
    }

    /// Closes the queue and waits for the last batches.
    pub(super) async fn shutdown(self, span: Duration) {
        let _ = self.provider.shutdown_with_timeout(span);
        if tokio::time::timeout(span, self.task).await.is_err() {
            tracing::warn!("the last spans were not exported in time");
        }
    }
}

/// Takes ended spans without ever waiting.
#[derive(Debug)]
struct Queue {
    /// Gone after the shutdown.
    sender: Mutex<Option<mpsc::Sender<SpanData>>>,
    full: Counter,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.as_ref().is_none_or(|sender| sender.try_send(span).is_err()) {
            self.full.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }
}

async fn export(
    exporter: impl SpanExporter,
    mut waiting: mpsc::Receiver<SpanData>,
    deadline: Duration,
    failed: Counter,
) {
    while let Some(first) = waiting.recv().await {
        let mut batch = vec![first];
        let full = tokio::time::Instant::now() + BATCH_WAIT;
        while batch.len() < BATCH_MAX {
            match tokio::time::timeout_at(full, waiting.recv()).await {
                Ok(Some(span)) => batch.push(span),
                Ok(None) | Err(_) => break,
            }
        }
        let count = batch.len() as u64;
        let sent = tokio::time::timeout(deadline, exporter.export(batch)).await;
        if !matches!(sent, Ok(Ok(()))) {
            failed.inc_by(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{Span as _, Tracer};
    use opentelemetry_sdk::error::OTelSdkError;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Clone, Debug, Default)]
    struct Collector {
        received: Arc<AtomicUsize>,
        is_away: bool,
    }

    impl SpanExporter for Collector {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            if self.is_away {
                return Err(OTelSdkError::InternalFailure("away".into()));
            }
            self.received.fetch_add(batch.len(), Ordering::SeqCst);
            Ok(())
        }
    }

    fn config(queue_max: u32) -> OtlpConfig {
        OtlpConfig { queue_max, ..OtlpConfig::default() }
    }

    fn make(exporting: &Exporting, count: usize) {
        for _ in 0..count {
            exporting.tracer().start("work").end();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_shutdown_sends_what_is_queued() {
        let collector = Collector::default();
        let exporting = Exporting::with_exporter(collector.clone(), &config(2_000), "test", &Metrics::new());
        make(&exporting, 1_200);
        exporting.shutdown(Duration::from_secs(5)).await;
        assert_eq!(collector.received.load(Ordering::SeqCst), 1_200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_and_an_absent_collector_are_counted() {
        let metrics = Metrics::new();
        let collector = Collector { is_away: true, ..Collector::default() };
        let exporting = Exporting::with_exporter(collector, &config(10), "test", &metrics);
        make(&exporting, 15);
        exporting.shutdown(Duration::from_secs(5)).await;
        let text = metrics.encode();
        assert!(text.contains("lastmile_runtime_spans_dropped_total{why=\"queue_full\"} 5"), "{text}");
        assert!(text.contains("lastmile_runtime_spans_dropped_total{why=\"export_failed\"} 10"), "{text}");
    }
}
