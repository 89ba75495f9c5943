//! What the process says about itself: logs, spans, metrics.
//!
//! Logs go to standard error, spans to an OTLP collector where one is configured, metrics to whoever asks the operations listener.
//! None of them may slow a request down: the span queue is bounded, and what does not fit is dropped and counted. Without a
//! collector no span gets an id, so that logs and headers never carry one that nobody can look up.

mod metrics;
mod propagation;
mod spans;

use std::io::IsTerminal;
use std::time::Duration as Span;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Duration, Problem};

pub use metrics::{Counter, Durations, Family, Gauge, Histogram, Labels, Metrics};
pub use propagation::{extract, go_on, inject, kept, set_parent};

const SHUTDOWN_MAX: Span = Span::from_secs(5);
/// Spans of the exporter's own transport would export themselves for ever.
const NOT_TRACED: [&str; 5] = ["h2", "hyper", "hyper_util", "tonic", "opentelemetry"];

/// How the process logs and traces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The log on standard error.
    pub log: LogConfig,
    /// The export of spans.
    pub otlp: OtlpConfig,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// One line of text, or one JSON object, per event.
    pub format: LogFormat,
    /// What is logged: `info`, `payments=debug,info`, … (the syntax of `tracing`).
    pub filter: String,
}

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// The export of spans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpConfig {
    /// The collector's gRPC address, such as `http://127.0.0.1:4317`; empty: no spans are made. Plain HTTP/2:
    /// the collector stands beside the process, and what goes further is its business.
    pub endpoint: String,
    /// How many of a thousand traces that begin here are recorded; a caller's decision is followed.
    pub sample_per_mille: u32,
    /// Spans that may wait for export; a further one is dropped and counted.
    pub queue_max: u32,
    /// For one export.
    pub timeout: Duration,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self { endpoint: String::new(), sample_per_mille: 1_000, queue_max: 2_048, timeout: Duration::from_secs(5) }
    }
}

impl Config {
    /// Reports a filter that cannot be read and limits that make no sense.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        if let Err(error) = EnvFilter::try_new(&self.log.filter) {
            problems.push(Problem::new(format!("{path}.log.filter"), error.to_string()));
        }
        if self.otlp.sample_per_mille > 1_000 {
            problems.push(Problem::new(format!("{path}.otlp.sample_per_mille"), "must be at most 1000"));
        }
        if self.otlp.queue_max == 0 {
            problems.push(Problem::new(format!("{path}.otlp.queue_max"), "must be more than zero"));
        }
        let endpoint = &self.otlp.endpoint;
        if !endpoint.is_empty() && !endpoint.starts_with("http://") {
            let problem = Problem::new(format!("{path}.otlp.endpoint"), "is not an http address");
            problems.push(problem.hint("write it as http://127.0.0.1:4317, or leave it empty"));
        }
    }
}

/// What this binary was built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// The version of the package.
    pub version: &'static str,
    /// The commit, where the build was told.
    pub commit: &'static str,
}

/// Returns what this binary was built from.
pub fn build() -> Build {
    Build { version: env!("CARGO_PKG_VERSION"), commit: option_env!("LASTMILE_BUILD_COMMIT").unwrap_or("unknown") }
}

/// Telemetry could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter cannot be read.
    #[error("log filter cannot be read")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter cannot be built for the configured endpoint.
    #[error("OTLP exporter cannot be built")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Something else already took the process's log.
    #[error("logging was already started")]
    AlreadyStarted,
}

/// The running telemetry. Keep it to the very end and call [`Telemetry::shutdown`], also when the start of something else failed.
#[derive(Debug)]
#[must_use = "spans are lost unless it is shut down last"]
pub struct Telemetry {
    spans: Option<spans::Exporting>,
}

/// Starts logging and, where configured, the export of spans under the name `service`.
///
/// Shape: once per process, inside a tokio runtime.
/// Errors: a filter or endpoint that cannot be used, or a second start.
pub fn start(config: &Config, service: &str, metrics: &Metrics) -> Result<Telemetry, Error> {
    let filter = EnvFilter::try_new(&config.log.filter)?;
    let is_terminal = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(is_terminal);
    let log = match config.log.format {
        LogFormat::Text => log.boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    let spans = match config.otlp.endpoint.as_str() {
        "" => None,
        _ => Some(spans::Exporting::start(&config.otlp, service, metrics)?),
    };
    let traced = spans.as_ref().map(|spans| {
        let layer = tracing_opentelemetry::layer().with_tracer(spans.tracer()).with_location(false).with_threads(false);
        layer.with_filter(tracing_subscriber::filter::filter_fn(|meta| is_traced(meta.target())))
    });
    let subscriber = tracing_subscriber::registry().with(filter).with(traced).with(log);
    subscriber.try_init().map_err(|_| Error::AlreadyStarted)?;
    log_panics();
    let Build { version, commit } = build();
    metrics
        .gauge("lastmile_runtime_build_info", "What this binary was built from; always 1")
        .get_or_create(&vec![("version", version.into()), ("commit", commit.into())])
        .set(1);
    Ok(Telemetry { spans })
}

impl Telemetry {
    /// Sends what is still queued, for at most five seconds, and ends.
    pub async fn shutdown(self) {
        if let Some(spans) = self.spans {
            spans.shutdown(SHUTDOWN_MAX).await;
        }
    }
}

fn is_traced(target: &str) -> bool {
    let root = target.split("::").next().unwrap_or_default();
    !NOT_TRACED.contains(&root)
}

/// Turns panics into log events. A message that was put together at run time may hold personal data and is not repeated.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(formatted message hidden)");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, message, "panic");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_the_configuration_are_told_by_path() {
        let config = Config {
            log: LogConfig { filter: "a=b=c".into(), ..LogConfig::default() },
            otlp: OtlpConfig {
                endpoint: "collector:4317".into(),
                sample_per_mille: 1_001,
                queue_max: 0,
                ..OtlpConfig::default()
            },
        };
        let mut problems = Vec::new();
        config.validate("telemetry", &mut problems);
        let mut paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        paths.sort_unstable();
        let expected = [
            "telemetry.log.filter",
            "telemetry.otlp.endpoint",
            "telemetry.otlp.queue_max",
            "telemetry.otlp.sample_per_mille",
        ];
        assert_eq!(paths, expected);

        problems.clear();
        Config::default().validate("telemetry", &mut problems);
        assert!(problems.is_empty());
    }

    #[test]
    fn the_exporters_own_transport_is_not_traced() {
        assert!(is_traced("payments::ledger"));
        assert!(!is_traced("h2::codec"));
        assert!(!is_traced("tonic"));
    }
}
