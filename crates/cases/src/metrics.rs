//! What cases tells about itself: how cases move, and that none of them is silent.

use runtime::telemetry::{Counter, Family, Gauge, Labels};

use crate::domain::{Census, Transition};
use crate::repo::Code as _;

/// The metrics of cases.
pub(crate) struct Metrics {
    moves: Family<Labels, Counter>,
    census: Family<Labels, Gauge>,
    orphans: Family<Labels, Counter>,
    in_hand: Family<Labels, Gauge>,
}

impl Metrics {
    pub(crate) fn new(metrics: &runtime::telemetry::Metrics) -> Self {
        Self {
            moves: metrics.counter("lastmile_cases_moves", "Lines written into histories, by state and reason"),
            census: metrics.gauge(
                "lastmile_cases_census",
                "Cases: accepted = terminal + open_in_time + with_clerk + silent, and silent is 0",
            ),
            orphans: metrics.counter("lastmile_cases_orphan_events", "Events of payments whose case is not known here"),
            in_hand: metrics.gauge("lastmile_cases_in_hand", "Cases that the worker has in hand, when it last looked"),
        }
    }

    /// Counts what was committed.
    pub(crate) fn moved(&self, moved: &Transition) {
        for line in &moved.lines {
            let labels = vec![("state", line.to.code().into()), ("reason", line.reason.clone())];
            self.moves.get_or_create(&labels).inc();
        }
    }

    /// Shows a census.
    pub(crate) fn counted(&self, census: &Census) {
        let parts = [
            ("accepted", census.accepted),
            ("terminal", census.terminal),
            ("open_in_time", census.open_in_time),
            ("with_clerk", census.with_clerk),
            ("silent", census.silent()),
        ];
        for (part, count) in parts {
            self.census.get_or_create(&vec![("part", part.into())]).set(count);
        }
    }

    /// Shows how many cases the worker has in hand.
    pub(crate) fn in_hand(&self, cases: usize) {
        self.in_hand.get_or_create(&Vec::new()).set(i64::try_from(cases).unwrap_or(i64::MAX));
    }

    /// Counts an event that nobody owns.
    pub(crate) fn orphan(&self) {
        self.orphans.get_or_create(&Vec::new()).inc();
    }
}
