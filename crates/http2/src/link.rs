//! What both ends of a connection share: bytes in and out, the frames that concern no stream, and the time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::calm::Calm;
use crate::frame::{self, HEAD_BYTES, Head, PREFACE, Reason, WINDOW_MAX, flag, kind, setting};
use crate::hpack::{Decoder, Name, Value};
use crate::{Error, Limits, gone};

/// Read at once, where so much has come.
const READ_BYTES: usize = 16 * 1024;
/// Written together; with more waiting, no further piece of a body is taken.
const WRITE_BYTES: usize = 256 * 1024;
/// With so much waiting nothing is read either. Both ends may be full of bodies; what comes must still be read then, or each waits for
/// the other. So only what is owed for what came, windows and acknowledgements, can go so far.
const WRITE_BYTES_MAX: usize = 2 * WRITE_BYTES;
/// The part of a window that is worth a frame. More of it kept back could hold up a peer whose other streams nobody reads.
const RELEASED_AT: u32 = 8;
/// How often the times of a connection at work are looked at.
const TICK: Duration = Duration::from_millis(250);
/// What a frame costs that brings nothing; a reset costs more, since work was begun for it.
pub(crate) const IDLE_COST: u32 = 1;
pub(crate) const RESET_COST: u32 = 10;
/// Pieces of a body below this are counted: who works does not cut so small.
const PIECE_BYTES_MIN: usize = 64;
const ALIVE_PING: [u8; 8] = *b"alive?\0\0";

/// The connection without its streams.
pub(crate) struct Link<T> {
    io: T,
    pub(crate) limits: Limits,
    inbound: BytesMut,
    pub(crate) outbound: BytesMut,
    /// Whether all that was written has left: what encrypts keeps some of it to itself.
    is_flushed: bool,
    pub(crate) peer: Peer,
    begun: Begun,
    decoder: Decoder,
    /// A header block that is not whole yet.
    block: Option<Block>,
    /// Bytes received on the connection and not given back yet, and how many of them nobody holds any more.
    received: u32,
    released: u32,
    calm: Calm,
    alarm: Pin<Box<Sleep>>,
    heard: Instant,
    asked: Option<Instant>,
    taken: Instant,
    /// Since when the peer takes nothing of what is there for it.
    stuck: Option<Instant>,
}

/// How far the connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    No,
    Preface,
    Settings,
}

/// What the peer takes.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Bytes that may still be sent on the connection.
    pub(crate) window: i64,
    /// The same on a stream that begins.
    pub(crate) stream_window: i64,
    pub(crate) payload_max: usize,
    /// Streams at once.
    pub(crate) streams_max: u32,
    /// It has named a size for the table that we do not use: the next block must say so (RFC 7541, 4.2).
    has_table_size: bool,
}

/// A header block under way.
struct Block {
    stream: u32,
    ends: bool,
    bytes: BytesMut,
}

/// What came that concerns a stream, or how the two ends stand. Streams are numbered from 1.
#[derive(Debug)]
pub(crate) enum Event {
    Head {
        stream: u32,
        block: Bytes,
        ends: bool,
    },
    /// `flow` is what it counts for in the windows: the data and its padding.
    Data {
        stream: u32,
        data: Bytes,
        flow: u32,
        ends: bool,
    },
    Reset {
        stream: u32,
        reason: Reason,
    },
    /// A stream may be sent so much more.
    Window {
        stream: u32,
        more: u32,
    },
    /// All of them may.
    Windows {
        change: i64,
    },
    /// The peer begins and takes nothing any more. Of what it was sent it has looked at streams up to `last` alone.
    Leaving {
        last: u32,
    },
    Pong([u8; 8]),
}

impl<T: AsyncRead + AsyncWrite + Unpin> Link<T> {
    /// A connection whose client has sent, or will send, the preface. `read` is what was read of it before.
    pub(crate) fn of_server(io: T, read: BytesMut, limits: Limits) -> Self {
        let mut link = Self::new(io, limits, Begun::No, read);
        link.greet((setting::MAX_CONCURRENT_STREAMS, limits.streams_max));
        link
    }

    /// A connection to a server that has agreed to HTTP/2.
    pub(crate) fn of_client(io: T, limits: Limits) -> Self {
        let mut link = Self::new(io, limits, Begun::Preface, BytesMut::new());
        link.outbound.extend_from_slice(PREFACE);
        link.greet((setting::ENABLE_PUSH, 0));
        link
    }

    fn new(io: T, limits: Limits, begun: Begun, inbound: BytesMut) -> Self {
        let now = Instant::now();
        Self {
            io,
            limits,
            inbound,
            outbound: BytesMut::new(),
            is_flushed: true,
            peer: Peer {
                window: frame::WINDOW_DEFAULT.into(),
                stream_window: frame::WINDOW_DEFAULT.into(),
                payload_max: frame::PAYLOAD_BYTES_MAX,
                streams_max: u32::MAX,
                has_table_size: false,
            },
            begun,
            decoder: Decoder::new(frame::TABLE_BYTES_DEFAULT),
            block: None,
            received: 0,
            released: 0,
            calm: Calm::new(now),
            alarm: Box::pin(tokio::time::sleep_until(now + TICK)),
            heard: now,
            asked: None,
            taken: now,
            stuck: None,
        }
    }

    fn greet(&mut self, own: (u16, u32)) {
        let Limits { stream_window_bytes, header_list_bytes_max, connection_window_bytes, .. } = self.limits;
        let windows = (setting::INITIAL_WINDOW_SIZE, stream_window_bytes);
        let heads = (setting::MAX_HEADER_LIST_SIZE, header_list_bytes_max);
        frame::settings(&mut self.outbound, &[own, windows, heads]);
        if let Some(more) = connection_window_bytes.checked_sub(frame::WINDOW_DEFAULT).filter(|more| *more > 0) {
            frame::number(&mut self.outbound, kind::WINDOW_UPDATE, 0, more);
        }
    }

    /// Whether enough waits to be written.
    pub(crate) fn is_full(&self) -> bool {
        self.outbound.len() >= WRITE_BYTES
    }

    /// Whether the peer takes so little that nothing more is read from it.
    fn is_clogged(&self) -> bool {
        self.outbound.len() >= WRITE_BYTES_MAX
    }

    /// Reads what has come; nought at the end.
    pub(crate) fn read(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<usize>> {
        if self.is_clogged() {
            return Ok(Poll::Pending);
        }
        if self.inbound.capacity() - self.inbound.len() < READ_BYTES / 4 {
            self.inbound.reserve(READ_BYTES);
        }
        let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.inbound);
        match read {
            Poll::Ready(Ok(bytes)) => {
                self.heard = Instant::now();
                Ok(Poll::Ready(bytes))
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Reads what has come and forgets it; nought at the end.
    pub(crate) fn skip(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<usize>> {
        self.inbound.clear();
        self.read(cx)
    }

    /// Gives up what waits to be written: the peer takes nothing any more. What it has sent can still be read.
    pub(crate) fn give_up_writing(&mut self) {
        self.outbound.clear();
    }

    /// Writes what is there; whether any of it went.
    pub(crate) fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut has_moved = false;
        while !self.outbound.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, &self.outbound) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(bytes)) => {
                    self.outbound.advance(bytes);
                    self.taken = Instant::now();
                    self.is_flushed = false;
                    has_moved = true;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(has_moved),
            }
        }
        if !self.is_flushed {
            self.is_flushed = Pin::new(&mut self.io).poll_flush(cx)?.is_ready();
        }
        Ok(has_moved)
    }

    /// Says that nothing more comes.
    pub(crate) fn shut_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Sends the peer away, with as many words as go at once; nobody waits for it.
    pub(crate) fn send_away(&mut self, cx: &mut Context<'_>, last: u32, reason: Reason) {
        frame::go_away(&mut self.outbound, last, reason);
        let _ = self.write(cx);
    }

    /// Writes a header block that `write` makes.
    pub(crate) fn head(&mut self, stream: u32, ends: bool, write: impl FnOnce(&mut BytesMut)) {
        let has_table_size = std::mem::take(&mut self.peer.has_table_size);
        frame::block(&mut self.outbound, stream, ends, self.peer.payload_max, |out| {
            if has_table_size {
                crate::hpack::encoder::no_table(out);
            }
            write(out);
        });
    }

    /// Reads a header block to its end. Every block must be read: what follows depends on it.
    pub(crate) fn fields(&mut self, block: Bytes, sink: impl FnMut(Name, Value)) -> Result<(), Error> {
        self.decoder.read(block, sink).map_err(|error| gone(Reason::COMPRESSION_ERROR, error.0))
    }

    pub(crate) fn spend(&mut self, cost: u32) -> Result<(), Error> {
        if self.calm.spend(cost) { Ok(()) } else { Err(gone(Reason::ENHANCE_YOUR_CALM, "frames that bring nothing")) }
    }

    /// A call came to its end.
    pub(crate) fn earn(&mut self) {
        self.calm.earn();
    }

    /// What came next; None when there is no frame whole.
    pub(crate) fn event(&mut self) -> Result<Option<Event>, Error> {
        while !self.is_clogged() {
            let Some((head, payload)) = self.frame()? else { return Ok(None) };
            if let Some(event) = self.received(head, payload)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn frame(&mut self) -> Result<Option<(Head, Bytes)>, Error> {
        if self.begun == Begun::No {
            let there = self.inbound.len().min(PREFACE.len());
            if self.inbound.get(..there) != PREFACE.get(..there) {
                return Err(gone(Reason::PROTOCOL_ERROR, "no preface"));
            }
            if there < PREFACE.len() {
                return Ok(None);
            }
            self.inbound.advance(PREFACE.len());
            self.begun = Begun::Preface;
        }
        let Some(head) = Head::peek(&self.inbound) else { return Ok(None) };
        if head.len > frame::PAYLOAD_BYTES_MAX {
            return Err(gone(Reason::FRAME_SIZE_ERROR, "a frame longer than is taken"));
        }
        if self.inbound.len() < HEAD_BYTES + head.len {
            return Ok(None);
        }
        self.inbound.advance(HEAD_BYTES);
        Ok(Some((head, self.inbound.split_to(head.len).freeze())))
    }

    fn received(&mut self, head: Head, payload: Bytes) -> Result<Option<Event>, Error> {
        if self.begun == Begun::Preface && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(gone(Reason::PROTOCOL_ERROR, "no settings first"));
        }
        if let Some(block) = &self.block
            && (head.kind != kind::CONTINUATION || head.stream != block.stream)
        {
            return Err(gone(Reason::PROTOCOL_ERROR, "a frame within a header block"));
        }
        match head.kind {
            kind::DATA | kind::HEADERS | kind::PRIORITY | kind::RST_STREAM if head.stream == 0 => {
                Err(gone(Reason::PROTOCOL_ERROR, "a stream's frame on none"))
            }
            kind::SETTINGS | kind::PING | kind::GOAWAY if head.stream != 0 => {
                Err(gone(Reason::PROTOCOL_ERROR, "the connection's frame on a stream"))
            }
            kind::DATA => self.data(head, payload).map(Some),
            kind::HEADERS => self.headers(head, payload),
            kind::CONTINUATION => self.continuation(head, &payload),
            kind::RST_STREAM => {
                let reason = Reason(u32::from_be_bytes(exactly(&payload)?));
                Ok(Some(Event::Reset { stream: head.stream, reason }))
            }
            kind::SETTINGS => self.settings(head, payload),
            kind::PING => self.ping(head, exactly(&payload)?),
            kind::WINDOW_UPDATE => self.window_update(head, u32::from_be_bytes(exactly(&payload)?) & 0x7fff_ffff),
            kind::PRIORITY => {
                exactly::<5>(&payload)?;
                self.spend(IDLE_COST)?;
                Ok(None)
            }
            kind::GOAWAY => {
                self.spend(IDLE_COST)?;
                let Some(&[a, b, c, d, ..]) = payload.first_chunk::<8>() else {
                    return Err(gone(Reason::FRAME_SIZE_ERROR, "a farewell cut short"));
                };
                Ok(Some(Event::Leaving { last: u32::from_be_bytes([a & 0x7f, b, c, d]) }))
            }
            kind::PUSH_PROMISE => Err(gone(Reason::PROTOCOL_ERROR, "a promise that nobody asked for")),
            _ => {
                self.spend(IDLE_COST)?;
                Ok(None)
            }
        }
    }

    fn headers(&mut self, head: Head, payload: Bytes) -> Result<Option<Event>, Error> {
        let Some(block) = frame::unpadded(head, payload) else {
            return Err(gone(Reason::PROTOCOL_ERROR, "more padding than payload"));
        };
        let ends = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return Ok(Some(Event::Head { stream: head.stream, block, ends }));
        }
        self.block = Some(Block { stream: head.stream, ends, bytes: BytesMut::from(block.as_ref()) });
        Ok(None)
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<Option<Event>, Error> {
        let Some(mut block) = self.block.take() else {
            return Err(gone(Reason::PROTOCOL_ERROR, "CONTINUATION of nothing"));
        };
        block.bytes.extend_from_slice(payload);
        // A block is hardly longer than the list that it makes.
        if block.bytes.len() > 2 * self.limits.header_list_bytes_max as usize {
            return Err(gone(Reason::ENHANCE_YOUR_CALM, "a header block without an end"));
        }
        if payload.len() < PIECE_BYTES_MIN {
            self.spend(RESET_COST)?;
        }
        if head.has(flag::END_HEADERS) {
            let Block { stream, ends, bytes } = block;
            return Ok(Some(Event::Head { stream, block: bytes.freeze(), ends }));
        }
        self.block = Some(block);
        Ok(None)
    }

    fn data(&mut self, head: Head, payload: Bytes) -> Result<Event, Error> {
        let flow = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.received = self.received.saturating_add(flow);
        if self.received > self.window() {
            return Err(gone(Reason::FLOW_CONTROL_ERROR, "more than the connection's window"));
        }
        let Some(data) = frame::unpadded(head, payload) else {
            return Err(gone(Reason::PROTOCOL_ERROR, "more padding than payload"));
        };
        let ends = head.has(flag::END_STREAM);
        if data.len() < PIECE_BYTES_MIN && !ends {
            self.spend(IDLE_COST)?;
        }
        Ok(Event::Data { stream: head.stream, data, flow, ends })
    }

    /// The connection's window. Before it has read our settings, a peer goes by the protocol's own.
    fn window(&self) -> u32 {
        self.limits.connection_window_bytes.max(frame::WINDOW_DEFAULT)
    }

    /// Gives the connection's window back for bytes that nobody holds any more, where it is worth a frame.
    pub(crate) fn release(&mut self, bytes: usize) {
        self.released = self.released.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.released > self.window() / RELEASED_AT {
            frame::number(&mut self.outbound, kind::WINDOW_UPDATE, 0, self.released);
            self.received = self.received.saturating_sub(self.released);
            self.released = 0;
        }
    }

    fn settings(&mut self, head: Head, mut payload: Bytes) -> Result<Option<Event>, Error> {
        let is_ack = head.has(flag::ACK);
        if !payload.len().is_multiple_of(6) || is_ack && !payload.is_empty() {
            return Err(gone(Reason::FRAME_SIZE_ERROR, "SETTINGS of another length"));
        }
        self.spend(IDLE_COST)?;
        if is_ack {
            return Ok(None);
        }
        self.begun = Begun::Settings;
        let before = self.peer.stream_window;
        while payload.has_remaining() {
            let (name, value) = (payload.get_u16(), payload.get_u32());
            match name {
                setting::HEADER_TABLE_SIZE => self.peer.has_table_size = true,
                setting::ENABLE_PUSH if value > 1 => return Err(gone(Reason::PROTOCOL_ERROR, "ENABLE_PUSH")),
                setting::MAX_CONCURRENT_STREAMS => self.peer.streams_max = value,
                setting::MAX_FRAME_SIZE if !(16_384..=16_777_215).contains(&value) => {
                    return Err(gone(Reason::PROTOCOL_ERROR, "MAX_FRAME_SIZE"));
                }
                setting::INITIAL_WINDOW_SIZE if i64::from(value) > WINDOW_MAX => {
                    return Err(gone(Reason::FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE"));
                }
                setting::INITIAL_WINDOW_SIZE => self.peer.stream_window = value.into(),
                _ => {}
            }
        }
        frame::put(&mut self.outbound, kind::SETTINGS, flag::ACK, 0, &[]);
        let change = self.peer.stream_window - before;
        Ok((change != 0).then_some(Event::Windows { change }))
    }

    fn ping(&mut self, head: Head, payload: [u8; 8]) -> Result<Option<Event>, Error> {
        self.spend(IDLE_COST)?;
        if head.has(flag::ACK) {
            // Nothing less will do: a peer that is heard may hear nothing itself.
            self.asked = self.asked.filter(|_| payload != ALIVE_PING);
            return Ok(Some(Event::Pong(payload)));
        }
        frame::put(&mut self.outbound, kind::PING, flag::ACK, 0, &payload);
        Ok(None)
    }

    fn window_update(&mut self, head: Head, more: u32) -> Result<Option<Event>, Error> {
        // A window that is opened bit by bit costs more than it brings.
        if more < PIECE_BYTES_MIN as u32 {
            self.spend(IDLE_COST)?;
        }
        if head.stream != 0 {
            return Ok(Some(Event::Window { stream: head.stream, more }));
        }
        if more == 0 {
            return Err(gone(Reason::PROTOCOL_ERROR, "a window update of nothing"));
        }
        self.peer.window += i64::from(more);
        if self.peer.window > WINDOW_MAX {
            return Err(gone(Reason::FLOW_CONTROL_ERROR, "a window too wide"));
        }
        Ok(None)
    }

    /// Looks at the clock; true when it has rung.
    ///
    /// Shape: `has_streams`: whether anything is under way; `has_unsent`: whether something of it waits for the peer's windows.
    /// Errors: the peer does not answer, or takes nothing.
    pub(crate) fn tick(&mut self, cx: &mut Context<'_>, has_streams: bool, has_unsent: bool) -> Result<bool, Error> {
        let mut has_rung = false;
        while self.alarm.as_mut().poll(cx).is_ready() {
            has_rung = true;
            let now = Instant::now();
            let silent = now.duration_since(self.heard);
            let is_stuck = !self.outbound.is_empty() || !self.is_flushed || has_unsent;
            match self.stuck.filter(|since| is_stuck && self.taken <= *since) {
                Some(since) if now.duration_since(since) > self.limits.keepalive_timeout => return Err(Error::Silent),
                Some(_) => {}
                None => self.stuck = is_stuck.then_some(now),
            }
            match self.asked {
                Some(asked) if now.duration_since(asked) > self.limits.keepalive_timeout => return Err(Error::Silent),
                None if silent >= self.limits.keepalive_interval => {
                    self.asked = Some(now);
                    frame::put(&mut self.outbound, kind::PING, 0, 0, &ALIVE_PING);
                }
                _ => {}
            }
            let has_work = has_streams || !self.outbound.is_empty() || !self.is_flushed;
            if !has_work && self.inbound.is_empty() {
                // Nothing is under way: an idle connection holds no buffer.
                self.inbound = BytesMut::new();
                self.outbound = BytesMut::new();
            }
            let is_busy = has_work || self.asked.is_some();
            let rest = if is_busy { TICK } else { self.limits.keepalive_interval.saturating_sub(silent).max(TICK) };
            self.alarm.as_mut().reset(now + rest);
        }
        Ok(has_rung)
    }
}

/// A payload of a fixed length.
fn exactly<const LENGTH: usize>(payload: &[u8]) -> Result<[u8; LENGTH], Error> {
    payload.try_into().map_err(|_| gone(Reason::FRAME_SIZE_ERROR, "a frame of another length"))
}
