//! What the runtime promises over real sockets, in a real process, and under the simulator.

#![expect(clippy::disallowed_methods, reason = "the peers that these tests play live outside of any role")]

mod config;
mod crash;
mod http_client;
mod http_server;
mod simulation;
