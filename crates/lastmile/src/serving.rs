//! Whether the process says that it serves.
//!
//! `grpc.health.v1` and the operations listener tell the same: serving while every role is ready, and not from the moment of a stop, so
//! that no new traffic comes while work in hand is finished.

use std::time::Duration;

use runtime::Context;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::ops::Probe;

/// How often readiness is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The same while a start is waited for.
const START_LOOK_EVERY: Duration = Duration::from_millis(10);

/// Keeps the health services of the listeners equal to what the probes say.
pub(crate) async fn report(probes: Vec<Probe>, reporters: Vec<HealthReporter>, context: Context) {
    let stop = context.tasks.token();
    loop {
        // Read once: what is told after the stop must be that nothing is served.
        let is_stopping = stop.is_cancelled();
        let is_serving = !is_stopping && missing(&probes).is_empty();
        let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for reporter in &reporters {
            reporter.set_service_status("", status).await;
        }
        if is_stopping {
            return;
        }
        tokio::select! {
            biased;
            () = context.clock.sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Waits until every role is ready.
///
/// Errors: what is missing when `within` is over, or the process is told to stop.
pub(crate) async fn ready(probes: &[Probe], within: Duration, context: &Context) -> Result<(), Vec<String>> {
    let stop = context.tasks.token();
    let waiting = async {
        while !missing(probes).is_empty() {
            tokio::select! {
            biased;
                () = context.clock.sleep(START_LOOK_EVERY) => {}
                () = stop.cancelled() => return,
            }
        }
    };
    let _ = context.clock.timeout(within, waiting).await;
    match missing(probes) {
        missing if missing.is_empty() => Ok(()),
        missing => Err(missing),
    }
}

fn missing(probes: &[Probe]) -> Vec<String> {
    probes
        .iter()
        .filter_map(|probe| probe.complaint().map(|complaint| format!("{}: {complaint}", probe.name())))
        .collect()
}
