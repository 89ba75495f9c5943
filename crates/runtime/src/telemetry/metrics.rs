//! The registry behind `/metrics`.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::MetricConstructor;
use prometheus_client::registry::{Metric, Registry};

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;

/// Label names and values of one series. Values come from small closed sets: never an id, never personal data.
pub type Labels = Vec<(&'static str, Cow<'static, str>)>;
/// Histograms of durations.
pub type Durations = Family<Labels, Histogram, fn() -> Histogram>;

/// The metrics of one role.
///
/// Shape: a cheap handle. Names are `lastmile_<crate>_<what>_<unit>`; asking twice for a name gives the same family, so that
/// several instances of a service may share it.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<Registered>>);

#[derive(Default)]
struct Registered {
    registry: Registry,
    families: BTreeMap<String, Box<dyn Any + Send>>,
}

impl Metrics {
    /// Makes an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the counter family `name`. Printed with `_total` at the end, so leave that off.
    pub fn counter(&self, name: &str, help: &str) -> Family<Labels, Counter> {
        self.family(name, help, Family::default)
    }

    /// Returns the gauge family `name`.
    pub fn gauge(&self, name: &str, help: &str) -> Family<Labels, Gauge> {
        self.family(name, help, Family::default)
    }

    /// Returns the histogram family `name` of durations: give it the unit `seconds`. Buckets go from 0.5 ms to 30 s.
    pub fn seconds(&self, name: &str, help: &str) -> Durations {
        self.family(name, help, || Family::new_with_constructor(duration_histogram as fn() -> Histogram))
    }

    /// Returns the family `name` of any kind, made by `make` when it is asked for first.
    ///
    /// A name that already stands for another type gives a family that is not printed, and an error in the log: a bug.
    pub fn family<S, M, C>(&self, name: &str, help: &str, make: impl FnOnce() -> Family<S, M, C>) -> Family<S, M, C>
    where
        S: Clone + Eq + std::hash::Hash + EncodeLabelSet + fmt::Debug + Send + Sync + 'static,
        M: prometheus_client::metrics::TypedMetric + Send + Sync + 'static,
        C: MetricConstructor<M> + Clone + Send + Sync + 'static,
        Family<S, M, C>: Metric,
    {
        let mut registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = registered.families.get(name) {
            if let Some(family) = known.downcast_ref::<Family<S, M, C>>() {
                return family.clone();
            }
            tracing::error!(name, "metric name stands for two types");
            return make();
        }
        let family = make();
        registered.registry.register(name, help.trim_end_matches('.'), family.clone());
        registered.families.insert(name.to_owned(), Box::new(family.clone()));
        family
    }

    /// Registers any metric once, for shapes that the families do not serve.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        let mut registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        registered.registry.register(name, help.trim_end_matches('.'), metric);
    }

    /// Returns the names registered through families, sorted.
    pub fn names(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).families.keys().cloned().collect()
    }

    /// Prints everything in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &registered.registry).is_err() {
            tracing::error!("metrics could not be printed");
        }
        text
    }
}

fn duration_histogram() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_is_one_family() {
        let metrics = Metrics::new();
        for _ in 0..2 {
            let calls = metrics.counter("lastmile_test_calls", "Calls");
            calls.get_or_create(&vec![("profile", "traffic/430100".into())]).inc();
        }
        metrics.seconds("lastmile_test_wait_seconds", "Waiting").get_or_create(&vec![]).observe(0.003);
        let text = metrics.encode();
        assert!(text.contains("lastmile_test_calls_total{profile=\"traffic/430100\"} 2"), "{text}");
        assert_eq!(text.matches("# TYPE lastmile_test_calls ").count(), 1);
        assert!(text.contains("lastmile_test_wait_seconds_bucket{le=\"0.005\"} 1"), "{text}");
        assert_eq!(metrics.names(), ["lastmile_test_calls", "lastmile_test_wait_seconds"]);
    }

    #[test]
    fn a_name_of_two_types_is_printed_once() {
        let metrics = Metrics::new();
        metrics.counter("lastmile_test_thing", "First").get_or_create(&vec![]).inc();
        metrics.gauge("lastmile_test_thing", "Second").get_or_create(&vec![]).set(7);
        assert_eq!(metrics.encode().matches("# TYPE").count(), 1);
    }
}
