//! Orders, refunds and the ledger.
#![deny(clippy::arithmetic_side_effects, clippy::float_arithmetic, clippy::as_conversions)]
pub mod channel;
pub mod config;
pub mod domain;
pub use config::Config;
