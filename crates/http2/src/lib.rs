//! HTTP/2 for the data path.
//!
//! A gateway of short unary calls spends its time in moving frames, not in deciding. So this takes what the common libraries leave on
//! the table for that case: one task a connection and none a stream, everything that has come is read before anything is written,
//! answers leave in one write, header blocks are written without a table, and the one long header, the credential, is not decoded
//! before somebody asks for its text.
//!
//! What a peer can make this process hold or do is bounded: streams, windows, header lists, bodies, frames that bring nothing, and
//! bytes that it does not read.

mod calm;
mod frame;
mod hpack;
mod received;
mod server;

pub use frame::{PREFACE, Reason};
pub use hpack::Value;
pub use received::{Broken, Pieces, Received};
pub use server::{Authorization, Connection, Error, Handler, Limits};
