//! The invariants, as one function that every fault test calls at its end.
//!
//! [`check_all`] gathers what everybody knows (ledger, cases, the journals of channel and departments, the clients' own records) and
//! [`judge`] compares them. An invariant that has no service yet is *not served*, one for which the test brought no evidence is *not
//! judged*; neither is ever reported as held. The report prints each with its numbers.

mod evidence;
mod judge;
mod report;
#[cfg(test)]
mod tests;

pub use evidence::{Bound, Call, Evidence, Journals, Leaks, OrderFact, Probe, World};
pub use judge::judge;
pub use report::{Report, Verdict};

/// Gathers the evidence and judges it. Run it when everything has come to rest.
pub async fn check_all(world: &World) -> anyhow::Result<Report> {
    Ok(judge(&Evidence::gather(world).await?))
}
