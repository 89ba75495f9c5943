//! The wire between roles: the same over a local and a remote one, its limits, its behaviour when the network fails.

mod accept;
mod contract;
mod parity;
mod remote;
pub(crate) mod rig;
mod roles;
mod simulated;
