//! What the tests of the whole workspace share.

pub mod cluster;
pub mod servers;
pub mod simulation;

pub use cluster::{Cluster, Topology};
