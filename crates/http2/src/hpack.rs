//! HPACK (RFC 7541).

mod decoder;
pub(crate) mod encoder;
mod huffman;
mod table;

pub(crate) use decoder::Decoder;
pub use decoder::Value;
pub(crate) use table::{LINE_BYTES, Name};
