//! Drills on the real binary: it dies at every point that it lists, or its database does, it recovers, and every book agrees.

use std::io::Write as _;

use lastmile_tests::drill::money::{self, Store, Target};
use lastmile_tests::drill::points::{Plot, run};
use lastmile_tests::drill::process::binary;

/// Deaths per point.
const ROUNDS: u32 = 20;
/// One more than the cores that this is made for: a lane that waits for a death leaves its core to the others.
const LANES: u32 = 3;
const SEED: u64 = 20_261_122;

#[test]
fn a_process_that_is_killed_at_any_crash_point_loses_and_doubles_nothing() {
    let plot = Plot { binary: binary(None).expect("built"), rounds: ROUNDS, lanes: LANES, seed: SEED };
    let tell = |line: String| drop(writeln!(std::io::stderr(), "{line}"));
    let outcome = run(&plot, &tell).expect("runs");
    for report in &outcome.reports {
        tell(report.to_string());
    }
    tell(format!("{:?}\n{:?}", outcome.ends, outcome.deaths));
    outcome.assert_passed().expect("nothing lost, nothing doubled");
}

/// `bench/drill-payments.sh` in small: each point once, and as many kills at random moments as fit.
fn payments_and_its_database(target: Target, store: Store) {
    let binary = binary(None).expect("built");
    let plot = money::Plot { binary, target, store, payments: 200, clients: 16, kills: 6, rounds: 1, seed: SEED };
    let tell = |line: String| drop(writeln!(std::io::stderr(), "{line}"));
    let outcome = money::run(&plot, &tell).expect("runs");
    tell(format!("{}\n{:#}", outcome.report, outcome.summary));
    assert!(outcome.failures.is_empty(), "{}", outcome.failures.join("\n"));
}

#[test]
fn no_payment_is_lost_or_doubled_when_payments_is_killed() {
    payments_and_its_database(Target::Payments, Store::Postgres);
}

#[test]
fn no_payment_is_lost_or_doubled_when_payments_is_killed_over_a_file() {
    payments_and_its_database(Target::Payments, Store::Sqlite);
}

#[test]
fn no_payment_is_lost_or_doubled_when_postgres_is_killed() {
    payments_and_its_database(Target::Postgres, Store::Postgres);
}
