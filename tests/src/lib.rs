//! What the tests of the whole workspace share.

pub mod catalogue;
pub mod cluster;
pub mod drill;
pub mod golden;
pub mod pry;
pub mod servers;
pub mod simulation;
pub mod stores;
pub mod super_app;

pub use cluster::{Cluster, Topology};
pub use invariants;
