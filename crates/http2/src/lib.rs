//! HTTP/2 for the data path.
//!
//! A gateway of short unary calls spends its time in moving frames, not in deciding. So this takes what the common libraries leave on
//! the table for that case: one task a connection and none a stream, everything that has come is read before anything is written,
//! requests and answers leave in one write, header blocks are written without a table, and the one long header, the credential, is not
//! decoded before somebody asks for its text.
//!
//! What a peer can make this process hold or do is bounded: streams, windows, header lists, bodies, frames that bring nothing, and
//! bytes that it does not read.

mod calm;
mod client;
mod frame;
mod head;
mod hpack;
mod intake;
mod link;
mod outgoing;
mod received;
mod server;

use std::io;
use std::time::Duration;

pub use client::{Call, CallError, Caller, Calls, Lost, Wanted, connect};
pub use frame::{PREFACE, Reason};
pub use head::Authorization;
pub use hpack::Value;
pub use received::{Broken, Pieces, Received};
pub use server::{Connection, Handler};

/// What one connection may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams at once.
    pub streams_max: u32,
    /// What may be on its way to us on one stream, bytes.
    pub stream_window_bytes: u32,
    /// What may be on its way to us on all of them, bytes.
    pub connection_window_bytes: u32,
    /// All fields of one head together, bytes.
    pub header_list_bytes_max: u32,
    /// Silence after which the peer is asked whether it is there.
    pub keepalive_interval: Duration,
    /// How long its answer may take, and how long it may read nothing of what it asked for.
    pub keepalive_timeout: Duration,
    /// What a peer is charged for a stream that it opens and resets at once, of a budget of 2,000 with 50 more a second and 20 more a
    /// call. Nought for peers whose own callers may do so to them.
    pub reset_cost: u32,
}

/// Why a connection ended other than by agreement.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes could not be moved.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// The peer broke the protocol, or asked for too much.
    #[error("the peer was sent away: {what}")]
    Peer {
        /// What was told to it.
        reason: Reason,
        /// What it did.
        what: &'static str,
    },
    /// The peer was not there any more.
    #[error("the peer does not answer")]
    Silent,
}

/// What ends a connection.
fn gone(reason: Reason, what: &'static str) -> Error {
    Error::Peer { reason, what }
}

/// How a turn of reading and writing came out.
enum Turn {
    Again,
    Wait,
    End,
}

/// Turns before other tasks get theirs.
const TURNS: u32 = 16;
