//! Everything that is tested across crates, in one binary: it links once, and a test is found by its path.

mod contract;
mod doctor;
mod drill;
mod errors;
mod query;
mod roles;
mod slice;
mod tidy;
mod wire;
