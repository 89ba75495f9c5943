//! The sandbox over sockets: real ones and simulated ones. What third-party clients say of it stands in tests/judges.

mod client;
mod control;
mod simulation;
mod throughput;
