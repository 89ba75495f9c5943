//! The invariants, as one function that every fault test calls at its end.
//!
//! [`check_all`] gathers what everybody knows (ledger, cases, the journals of channel and departments, the clients' own records) and
//! [`judge`] compares them. An invariant that has no service yet is *not served*; one for which the test brought no evidence, or of which
//! nothing happened, is *not judged*. Neither is ever reported as held, and [`Report::require`] fails on what a caller must have brought
//! and did not. The report prints each with its numbers.

mod evidence;
mod judge;
mod leaks;
mod report;
pub mod stores;
#[cfg(test)]
mod tests;

pub use evidence::{Bound, Call, Evidence, Journals, OrderFact, Probe, World};
pub use judge::judge;
pub use leaks::{Leaks, Searched};
pub use report::{Report, SERVED, Verdict};

/// Gathers the evidence and judges it. Run it when everything has come to rest.
pub async fn check_all(world: &World) -> anyhow::Result<Report> {
    Ok(judge(&Evidence::gather(world).await?))
}
