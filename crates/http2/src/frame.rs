//! Frames (RFC 9113, 4 and 6).

use bytes::{Buf, BufMut, BytesMut};

/// What a client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const HEAD_BYTES: usize = 9;
/// Longest payload that everybody takes, and the longest that is taken here.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 16_384;
pub(crate) const WINDOW_DEFAULT: u32 = 65_535;
pub(crate) const WINDOW_MAX: i64 = 0x7fff_ffff;
pub(crate) const TABLE_BYTES_DEFAULT: usize = 4_096;

pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

pub(crate) mod flag {
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Parameters of SETTINGS.
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Why a stream or a connection ends (RFC 9113, 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason(pub u32);

impl Reason {
    pub(crate) const NO_ERROR: Self = Self(0);
    pub(crate) const PROTOCOL_ERROR: Self = Self(1);
    pub(crate) const INTERNAL_ERROR: Self = Self(2);
    pub(crate) const FLOW_CONTROL_ERROR: Self = Self(3);
    pub(crate) const STREAM_CLOSED: Self = Self(5);
    pub(crate) const FRAME_SIZE_ERROR: Self = Self(6);
    /// Nothing of the stream was looked at.
    pub const REFUSED_STREAM: Self = Self(7);
    pub(crate) const CANCEL: Self = Self(8);
    pub(crate) const COMPRESSION_ERROR: Self = Self(9);
    pub(crate) const ENHANCE_YOUR_CALM: Self = Self(11);
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) len: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    /// Reads the head at the front, where it is there whole.
    pub(crate) fn peek(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, s, t, u, v] = bytes.first_chunk::<HEAD_BYTES>()?;
        let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        // The first bit is reserved and not looked at.
        Some(Self { len, kind, flags, stream: u32::from_be_bytes([s & 0x7f, t, u, v]) })
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

pub(crate) fn put(out: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    head(out, kind, flags, stream, payload.len());
    out.put_slice(payload);
}

fn head(out: &mut BytesMut, kind: u8, flags: u8, stream: u32, len: usize) {
    out.put_uint(len as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
}

pub(crate) fn settings(out: &mut BytesMut, all: &[(u16, u32)]) {
    head(out, kind::SETTINGS, 0, 0, 6 * all.len());
    for (name, value) in all {
        out.put_u16(*name);
        out.put_u32(*value);
    }
}

pub(crate) fn number(out: &mut BytesMut, kind: u8, stream: u32, number: u32) {
    put(out, kind, 0, stream, &number.to_be_bytes());
}

pub(crate) fn go_away(out: &mut BytesMut, last: u32, reason: Reason) {
    head(out, kind::GOAWAY, 0, 0, 8);
    out.put_u32(last);
    out.put_u32(reason.0);
}

/// Writes a header block that `write` makes, in as many frames as it takes.
pub(crate) fn block(out: &mut BytesMut, stream: u32, end: bool, payload_max: usize, write: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    head(out, kind::HEADERS, if end { flag::END_STREAM } else { 0 }, stream, 0);
    let begin = out.len();
    write(out);
    let len = out.len() - begin;
    let end_headers = |out: &mut BytesMut, at: usize| out[at + 4] |= flag::END_HEADERS;
    let first = len.min(payload_max);
    out[at..at + 3].copy_from_slice(&(first as u32).to_be_bytes()[1..]);
    if first == len {
        return end_headers(out, at);
    }
    let rest = out.split_off(begin + first);
    let mut pieces = rest.chunks(payload_max).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { flag::END_HEADERS } else { 0 };
        put(out, kind::CONTINUATION, flags, stream, piece);
    }
}

/// Takes the padding and, of HEADERS, the priority away.
///
/// Errors: None when there is more of them than payload.
pub(crate) fn unpadded(head: Head, mut payload: bytes::Bytes) -> Option<bytes::Bytes> {
    let padding = if head.has(flag::PADDED) { usize::from(payload.try_get_u8().ok()?) } else { 0 };
    if head.kind == kind::HEADERS && head.has(flag::PRIORITY) {
        if payload.len() < 5 {
            return None;
        }
        payload.advance(5);
    }
    let len = payload.len().checked_sub(padding)?;
    payload.truncate(len);
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_long_block_goes_on_in_continuations() {
        let mut out = BytesMut::from(&b"before"[..]);
        block(&mut out, 3, true, 10, |out| out.put_slice(&[7; 25]));
        out.advance(6);
        let mut read = Vec::new();
        while let Some(head) = Head::peek(&out) {
            out.advance(HEAD_BYTES);
            read.push((head.kind, head.flags, head.stream, out.split_to(head.len).len()));
        }
        let (headers, more) = (kind::HEADERS, kind::CONTINUATION);
        assert_eq!(read, [(headers, flag::END_STREAM, 3, 10), (more, 0, 3, 10), (more, flag::END_HEADERS, 3, 5)]);
    }

    #[test]
    fn padding_and_priority_are_taken_away() {
        let head = |flags| Head { len: 0, kind: kind::HEADERS, flags, stream: 1 };
        let bytes = |bytes: &'static [u8]| Bytes::from_static(bytes);
        assert_eq!(unpadded(head(0), bytes(b"ab")), Some(bytes(b"ab")));
        assert_eq!(unpadded(head(flag::PADDED), bytes(b"\x02ab..")), Some(bytes(b"ab")));
        assert_eq!(unpadded(head(flag::PADDED | flag::PRIORITY), bytes(b"\x01.....ab.")), Some(bytes(b"ab")));
        assert_eq!(unpadded(head(flag::PADDED), bytes(b"\x03ab")), None);
        assert_eq!(unpadded(head(flag::PADDED), bytes(b"")), None);
        assert_eq!(unpadded(head(flag::PRIORITY), bytes(b"abcd")), None);
    }
}
