//! The operations listener: is the process alive, is it ready, what does it count.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use runtime::Tasks;
use runtime::telemetry::Metrics;
use serde_json::json;

/// Where `lastmile health` and orchestrators ask whether traffic may come.
pub const READY_PATH: &str = "/health/ready";
/// Where they ask whether the process hangs.
pub const LIVE_PATH: &str = "/health/live";

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Asks one role whether it can work now; the error says what is missing. Must answer at once.
#[derive(Clone)]
pub struct Probe {
    name: String,
    ask: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl Probe {
    /// Names a question.
    pub fn new(name: impl Into<String>, ask: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { name: name.into(), ask: Arc::new(ask) }
    }

    /// The role.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is missing, if anything.
    pub fn complaint(&self) -> Option<String> {
        (self.ask)().err()
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Probe({})", self.name)
    }
}

#[derive(Clone)]
struct Operations {
    probes: Arc<[Probe]>,
    metrics: Metrics,
    tasks: Tasks,
}

/// The routes of the operations listener.
///
/// Shape: `/health/live` is 200 while the process runs; `/health/ready` is 200 when every probe is content and no stop was asked for,
/// else 503, with the roles and their complaints as JSON; `/metrics` is OpenMetrics text.
pub fn router(probes: Vec<Probe>, metrics: Metrics, tasks: Tasks) -> Router {
    Router::new()
        .route(LIVE_PATH, get(|| async { "alive" }))
        .route(READY_PATH, get(ready))
        .route("/metrics", get(print_metrics))
        .with_state(Operations { probes: probes.into(), metrics, tasks })
}

async fn ready(State(operations): State<Operations>) -> Response {
    let is_draining = operations.tasks.token().is_cancelled();
    let answers: BTreeMap<&str, String> = operations
        .probes
        .iter()
        .map(|probe| (probe.name(), probe.complaint().unwrap_or_else(|| "ready".to_owned())))
        .collect();
    let is_ready = !is_draining && answers.values().all(|answer| answer == "ready");
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": is_ready, "draining": is_draining, "roles": answers }))).into_response()
}

async fn print_metrics(State(operations): State<Operations>) -> Response {
    let Operations { metrics, tasks, .. } = operations;
    let running = metrics.gauge("lastmile_runtime_tasks", "Background tasks that run now");
    running.get_or_create(&Vec::new()).set(i64::try_from(tasks.running()).unwrap_or(i64::MAX));
    ([(header::CONTENT_TYPE, OPENMETRICS)], metrics.encode()).into_response()
}
