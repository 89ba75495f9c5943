//! The crash-point drill on the real binary: dies at every point that the binary lists, recovers, and every book agrees.

use std::io::Write as _;

use lastmile_tests::drill::points::{Plot, run};
use lastmile_tests::drill::process::binary;

/// Deaths per point; `make drill` goes to twenty.
const ROUNDS: u32 = 3;
const LANES: u32 = 2;
const SEED: u64 = 20_261_122;

#[test]
fn a_process_that_is_killed_at_any_crash_point_loses_and_doubles_nothing() {
    let plot = Plot { binary: binary(None).expect("built"), rounds: ROUNDS, lanes: LANES, seed: SEED };
    let tell = |line: String| drop(writeln!(std::io::stderr(), "{line}"));
    let outcome = run(&plot, &tell).expect("runs");
    tell(format!("{:?}\n{:?}", outcome.ends, outcome.deaths));
    outcome.assert_passed().expect("nothing lost, nothing doubled");
}
