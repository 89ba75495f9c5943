//! Orders, refunds and the ledger.
pub mod domain;
