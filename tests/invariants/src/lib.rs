//! The invariants, as one function that every fault test calls at its end.
//!
//! [`check_all`] gathers what everybody knows (ledger, cases, the journals of channel and departments, the clients' own records) and
//! compares it. An invariant that has no service yet is *not served*; one for which the test brought no evidence, or of which nothing
//! happened, is *not judged*, and the report says why. Neither is ever reported as held, and [`Report::require`] fails on what a caller
//! must have brought and did not. The report prints each with its numbers.
//!
//! This is a crate of its own so that the fault tests of every crate can have it as a dev-dependency, and nothing else of the tests with
//! it. A test that breaks a single store or a single wire has neither ledger nor cases: it brings what its own peer did as
//! [`Effect`]s, and is judged by the same lines.

mod calls;
mod evidence;
mod journals;
mod judge;
mod leaks;
mod report;
#[cfg(test)]
mod tests;

pub use calls::{Call, Deed, Effect, Found, RESOLVED_WITHIN, inquire};
pub use evidence::{Bound, Evidence, OrderFact, Probe, RefundFact, World};
pub use journals::Journals;
pub use leaks::{Leaks, Searched};
pub use report::{Report, SERVED, Verdict};

/// Gathers the evidence and judges it. Run it when everything has come to rest.
///
/// Errors: evidence that cannot be read; calls for things of which the test brought no books. What does not hold is in the report.
pub async fn check_all(world: &World) -> anyhow::Result<Report> {
    Ok(judge::judge(Evidence::gather(world).await?))
}
