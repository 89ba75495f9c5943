//! Both cities' traffic police behind their adapters, over real sockets against the sandbox: one client, and only the region differs.

mod door;
mod faults;
mod life;
mod rig;
mod states;
