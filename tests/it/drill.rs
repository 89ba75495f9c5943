//! The crash-point drill on the real binary: dies at every point that the binary lists, recovers, and every book agrees.

use std::io::Write as _;

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
