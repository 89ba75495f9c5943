//! The rules of money, pure: no clock, no store, no channel, no proto. Everything here is a function of its arguments.

pub mod books;
pub mod breaks;
pub mod combined;
pub mod department;
pub mod fees;
pub mod insurance;
pub mod ledger;
pub mod mixed;
pub mod order;
pub mod plan;
pub mod receipt;
pub mod refund;
pub mod settlement;

#[cfg(test)]
mod tests;
