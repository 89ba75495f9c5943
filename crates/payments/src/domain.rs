//! The rules of money, pure: no clock, no store, no channel, no proto. Everything here is a function of its arguments.

pub mod books;
pub mod breaks;
pub mod combined;
pub mod ledger;
pub mod order;
pub mod plan;
pub mod refund;

#[cfg(test)]
mod tests;
