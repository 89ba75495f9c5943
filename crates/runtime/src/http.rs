//! Plain HTTP with limits: a client for channels and departments, a server for callbacks, operations and the sandbox.
//!
//! gRPC between roles does not come through here. The client's one peculiarity is [`Effect`]: every error says whether it is proven
//! that the peer saw nothing of the request, because whoever moves money must not guess.

mod client;
mod server;

pub use client::{Client, Effect, Error, ErrorKind, Flow, Options};
pub use server::{HangUp, Limits, serve};
