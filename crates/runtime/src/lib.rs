//! What every role needs from the outside world, handed over as values.
//!
//! Time, randomness, sockets, tasks, metrics and crash points reach a service through one [`Context`], never through a global.
//! That is what lets the same code run as a process on a machine and as a host inside a seeded simulator: the simulator swaps the
//! context, and nothing else. So this crate is the only one that reads the clock, the environment, the network or the random source.
//!
//! The modules: [`config`] (layered settings), [`telemetry`] (logs, spans, metrics), [`lifecycle`] (signals and the drain),
//! [`tasks`] (what runs, and what its failure means), [`clock`] (time and ids), [`secret`] (values that cannot be printed),
//! [`net`] (sockets), [`watch`] (a value to wait on), [`Lookup`] (a map that nobody can walk), [`http`] (a plain HTTP client and
//! server with limits), [`crash`] (named points where a test kills the process).

#![warn(missing_docs)]

pub mod clock;
pub mod config;
pub mod crash;
pub mod http;
pub mod lifecycle;
pub mod net;
pub mod secret;
pub mod tasks;
pub mod telemetry;
pub mod watch;

mod context;
mod lookup;

pub use clock::{Clock, Ids, Timestamp};
pub use context::Context;
pub use lookup::Lookup;
pub use net::{Io, Listener, Net};
pub use tasks::Tasks;
