//! Both cities' traffic police behind their adapters, over real sockets against the sandbox: one client, and only the region differs.
//!
//! What a super app can call is asked at the public port of whole clusters, on both topologies (`reads.rs`; paying is in
//! `contract/cases`). What only cases may call is asked of the adapters themselves, by a caller that holds what cases holds.

mod door;
mod faults;
mod life;
mod reads;
mod rig;
mod states;
mod told;
