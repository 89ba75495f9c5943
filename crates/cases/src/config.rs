//! What an operator sets for cases: how long each part of a case may take, and how the worker goes about it.

use std::path::PathBuf;

use runtime::config::{Duration, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::{Backoff, Policy};

/// The settings of cases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where this role keeps its keys: `sign.pem` and `seal.pem` (their public halves are registered with identity) and `rows.key`,
    /// under which citizens' input is stored. Made when they are missing.
    pub keys_dir: PathBuf,
    /// How long each part of a case may take.
    pub times: Times,
    /// How due cases are worked on.
    pub worker: Worker,
    /// Calls to other roles.
    pub calls: Calls,
    /// Watch streams.
    pub watch: Watch,
}

/// How long each part of a case may take. What passes its time ends, or a clerk has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Times {
    /// For the department to hold the bill.
    pub confirm_within: Duration,
    /// For payments to have an order.
    pub order_within: Duration,
    /// For the citizen to pay.
    pub pay_within: Duration,
    /// An order that would be payable for less than this is not made.
    pub pay_min: Duration,
    /// How much longer than the order the department is asked to hold the bill.
    pub hold_beyond: Duration,
    /// For the channel to confirm that an order is closed.
    pub close_within: Duration,
    /// For the department to take a hold back; it lapses by itself in any case.
    pub release_within: Duration,
    /// For the department to be reached once the money is there; after it the money goes back. Longer than its closed hours.
    pub deliver_within: Duration,
    /// For a settlement without an answer to be resolved by inquiry; after it a clerk decides.
    pub settle_within: Duration,
    /// For the ledger to post.
    pub post_within: Duration,
    /// For the channel to return the money.
    pub refund_within: Duration,
    /// For a clerk to decide, each time; after it the task escalates.
    pub clerk_within: Duration,
    /// Between inquiries while a clerk has the case.
    pub clerk_recheck: Duration,
    /// How much longer than all of these the citizen's grant is asked for: the time that clerks may need.
    pub grant_beyond: Duration,
    /// First pause between tries of one call; it doubles.
    pub retry_first: Duration,
    /// Longest pause between tries of one call.
    pub retry_max: Duration,
    /// First pause before payments is asked whether the money came, in case its event was lost; it doubles.
    pub refresh_first: Duration,
    /// Longest such pause.
    pub refresh_max: Duration,
    /// After a crash: how long a settlement that may be in flight is left alone before it is inquired.
    pub settle_rest: Duration,
    /// Settlements sent at most, each after proof that the one before never happened.
    pub sends_max: u32,
    /// Final refusals of an adapter, each before anything was sent, that are taken for an answer.
    pub refusals_max: u32,
}

/// How due cases are worked on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// The name under which this replica leases cases; its own leases from before a restart are taken back at once, so every replica
    /// needs another. Empty: a new name at every start, and a restart waits for the old leases to run out.
    pub name: String,
    /// How often the store is asked for what is due, when nothing wakes the worker sooner.
    pub poll: Duration,
    /// Cases in hand at once.
    pub cases_max: u32,
    /// How long a case stays with a worker that does not report back. Longer than any call.
    pub lease: Duration,
    /// How often the census of all cases is taken for the metrics.
    pub census: Duration,
}

/// Calls to other roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Calls {
    /// For one call to a department.
    pub department: Duration,
    /// For one call to payments.
    pub payments: Duration,
    /// For one call to identity or the catalogue.
    pub other: Duration,
    /// How long payments may hold a question for events open.
    pub events_wait: Duration,
    /// How long a profile's description is taken to hold.
    pub describe_age: Duration,
}

/// Watch streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Watch {
    /// How often a stream looks by itself, when nothing wakes it.
    pub poll: Duration,
    /// Longest life of a stream; each ends up to a tenth earlier.
    pub age_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            keys_dir: PathBuf::from("keys/cases"),
            times: Times::default(),
            worker: Worker::default(),
            calls: Calls::default(),
            watch: Watch::default(),
        }
    }
}

impl Default for Times {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let secs = Duration::from_secs;
        Self {
            confirm_within: secs(2 * MINUTE),
            order_within: secs(MINUTE),
            pay_within: secs(15 * MINUTE),
            pay_min: secs(MINUTE),
            hold_beyond: secs(15 * MINUTE),
            close_within: secs(5 * MINUTE),
            release_within: secs(MINUTE),
            deliver_within: secs(24 * HOUR),
            settle_within: secs(30 * MINUTE),
            post_within: secs(30 * MINUTE),
            refund_within: secs(72 * HOUR),
            clerk_within: secs(24 * HOUR),
            clerk_recheck: secs(5 * MINUTE),
            grant_beyond: secs(60 * 24 * HOUR),
            retry_first: Duration::from_millis(500),
            retry_max: secs(MINUTE),
            refresh_first: secs(5),
            refresh_max: secs(MINUTE),
            settle_rest: secs(2),
            sends_max: 3,
            refusals_max: 5,
        }
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            name: "cases".to_owned(),
            poll: Duration::from_millis(200),
            cases_max: 64,
            lease: Duration::from_secs(30),
            census: Duration::from_secs(15),
        }
    }
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            department: Duration::from_secs(15),
            payments: Duration::from_secs(12),
            other: Duration::from_secs(5),
            events_wait: Duration::from_secs(10),
            describe_age: Duration::from_secs(60),
        }
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self { poll: Duration::from_secs(1), age_max: Duration::from_secs(14 * 60) }
    }
}

impl Times {
    /// The rules that the domain goes by.
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            confirm_within: self.confirm_within.get(),
            order_within: self.order_within.get(),
            pay_within: self.pay_within.get(),
            pay_min: self.pay_min.get(),
            hold_beyond: self.hold_beyond.get(),
            close_within: self.close_within.get(),
            release_within: self.release_within.get(),
            deliver_within: self.deliver_within.get(),
            settle_within: self.settle_within.get(),
            post_within: self.post_within.get(),
            refund_within: self.refund_within.get(),
            clerk_within: self.clerk_within.get(),
            sends_max: self.sends_max,
            refusals_max: self.refusals_max,
            settle_call: self.settle_rest.get(),
            retry: Backoff { first: self.retry_first.get(), max: self.retry_max.get() },
            refresh: Backoff { first: self.refresh_first.get(), max: self.refresh_max.get() },
            clerk_recheck: self.clerk_recheck.get(),
        }
    }

    /// The longest that a case can go on without a clerk, and the time that clerks may need.
    pub(crate) fn grant_for(&self) -> std::time::Duration {
        let parts = [
            self.confirm_within,
            self.order_within,
            self.pay_within,
            self.close_within,
            self.release_within,
            self.deliver_within,
            self.settle_within,
            self.post_within,
            self.grant_beyond,
        ];
        parts.iter().map(|part| part.get()).sum()
    }

    fn spans(&self) -> [(&'static str, Duration); 19] {
        [
            ("confirm_within", self.confirm_within),
            ("order_within", self.order_within),
            ("pay_within", self.pay_within),
            ("pay_min", self.pay_min),
            ("hold_beyond", self.hold_beyond),
            ("close_within", self.close_within),
            ("release_within", self.release_within),
            ("deliver_within", self.deliver_within),
            ("settle_within", self.settle_within),
            ("post_within", self.post_within),
            ("refund_within", self.refund_within),
            ("clerk_within", self.clerk_within),
            ("clerk_recheck", self.clerk_recheck),
            ("grant_beyond", self.grant_beyond),
            ("retry_first", self.retry_first),
            ("retry_max", self.retry_max),
            ("refresh_first", self.refresh_first),
            ("refresh_max", self.refresh_max),
            ("settle_rest", self.settle_rest),
        ]
    }
}

impl Config {
    /// Notes everything that is wrong, each under its dotted path below `path`.
    pub fn validate(&self, path: &str, problems: &mut Vec<Problem>) {
        let mut note = |key: &str, message: &str| problems.push(Problem::new(format!("{path}.{key}"), message));
        for (key, span) in self.times.spans() {
            if span.get().is_zero() {
                note(&format!("times.{key}"), "must be more than zero");
            }
        }
        let Self { times, worker, calls, watch, .. } = self;
        for (key, low, high) in [
            ("times.pay_min", times.pay_min, times.pay_within),
            ("times.retry_first", times.retry_first, times.retry_max),
            ("times.refresh_first", times.refresh_first, times.refresh_max),
            ("calls.department", calls.department, worker.lease),
            ("calls.payments", calls.payments, worker.lease),
        ] {
            if low > high {
                note(key, "is longer than what it must fit into");
            }
        }
        if times.grant_for() > std::time::Duration::from_secs(400 * 24 * 60 * 60) {
            note("times.grant_beyond", "a grant cannot live longer than 400 days in all");
        }
        for (key, count, high) in
            [("times.sends_max", times.sends_max, 10), ("times.refusals_max", times.refusals_max, 100)]
        {
            if !(1..=high).contains(&count) {
                note(key, &format!("must be from 1 to {high}"));
            }
        }
        if !(1..=256).contains(&worker.cases_max) {
            note("worker.cases_max", "must be from 1 to 256");
        }
        for (key, span) in [
            ("worker.poll", worker.poll),
            ("worker.census", worker.census),
            ("calls.department", calls.department),
            ("calls.payments", calls.payments),
            ("calls.other", calls.other),
            ("calls.describe_age", calls.describe_age),
            ("watch.poll", watch.poll),
            ("watch.age_max", watch.age_max),
        ] {
            if span.get().is_zero() {
                note(key, "must be more than zero");
            }
        }
        if calls.events_wait > Duration::from_secs(20) {
            note("calls.events_wait", "payments holds a question open for at most 20s");
        }
        if watch.age_max > Duration::from_secs(15 * 60) {
            note("watch.age_max", "a stream lives at most 15m");
        }
        if worker.name.len() > 64 {
            note("worker.name", "must be at most 64 bytes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_the_domains_own() {
        let mut problems = Vec::new();
        Config::default().validate("cases", &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        let days = Times::default().grant_for().as_secs() / 86_400;
        assert!((61..=400).contains(&days), "{days} days");
    }

    #[test]
    fn every_problem_is_noted_by_its_path() {
        let mut config = Config::default();
        config.times.pay_min = Duration::from_secs(3_600);
        config.times.sends_max = 0;
        config.times.grant_beyond = Duration::from_secs(500 * 86_400);
        config.worker.cases_max = 1_000;
        config.calls.department = Duration::from_secs(60);
        config.calls.events_wait = Duration::from_secs(21);
        config.watch.poll = Duration::from_millis(0);
        let mut problems = Vec::new();
        config.validate("cases", &mut problems);
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        let expected = [
            "cases.times.pay_min",
            "cases.calls.department",
            "cases.times.grant_beyond",
            "cases.times.sends_max",
            "cases.worker.cases_max",
            "cases.watch.poll",
            "cases.calls.events_wait",
        ];
        assert_eq!(paths, expected);
    }
}
