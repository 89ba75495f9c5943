//! What comes from the peer.

use std::panic::AssertUnwindSafe;

use bytes::{Buf, Bytes, BytesMut};
use futures::FutureExt as _;
use futures::future::Abortable;
use http::{Request, request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::head::{Collector, Fault};
use super::{
    Answering, Begun, Block, Connection, DRAIN_PING, Error, Handler, Inbound, Leaving, Outbound, Stream, gone,
};
use crate::frame::{self, Head, Reason, WINDOW_MAX, flag, kind, setting};
use crate::received::{Received, pieces};

/// What a frame costs that brings nothing; a reset costs more, since work was begun for it.
const IDLE_COST: u32 = 1;
const RESET_COST: u32 = 10;
/// Pieces of a body below this are counted: who works does not cut so small.
const PIECE_BYTES_MIN: usize = 64;
/// Streams that are remembered after a reset.
const RESETS_KEPT: usize = 128;
const BUSY: Error = Error::Peer { reason: Reason::ENHANCE_YOUR_CALM, what: "frames that bring nothing" };

impl<T, H> Connection<T, H>
where
    T: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    /// Handles a frame.
    pub(super) fn received(&mut self, head: Head, payload: Bytes) -> Result<(), Error> {
        if self.begun == Begun::Preface && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(gone(Reason::PROTOCOL_ERROR, "no settings first"));
        }
        if let Some(block) = &self.block
            && (head.kind != kind::CONTINUATION || head.stream != block.stream)
        {
            return Err(gone(Reason::PROTOCOL_ERROR, "a frame within a header block"));
        }
        match head.kind {
            kind::DATA => self.data(head, payload),
            kind::HEADERS => self.headers(head, payload),
            kind::CONTINUATION => self.continuation(head, &payload),
            kind::RST_STREAM => self.reset_by_peer(head, &payload),
            kind::SETTINGS => self.settings(head, payload),
            kind::PING => self.ping(head, &payload),
            kind::WINDOW_UPDATE => self.window_update(head, &payload),
            kind::PRIORITY => self.priority(head, &payload),
            kind::GOAWAY if head.stream != 0 => Err(gone(Reason::PROTOCOL_ERROR, "GOAWAY on a stream")),
            // The peer opens nothing any more; what it has opened is answered.
            kind::GOAWAY => self.spend(IDLE_COST),
            kind::PUSH_PROMISE => Err(gone(Reason::PROTOCOL_ERROR, "a promise by a client")),
            _ => self.spend(IDLE_COST),
        }
    }

    fn spend(&mut self, cost: u32) -> Result<(), Error> {
        if self.calm.spend(cost) { Ok(()) } else { Err(BUSY) }
    }

    fn headers(&mut self, head: Head, payload: Bytes) -> Result<(), Error> {
        if head.stream.is_multiple_of(2) {
            return Err(gone(Reason::PROTOCOL_ERROR, "HEADERS on no stream of a client"));
        }
        let Some(block) = frame::unpadded(head, payload) else {
            return Err(gone(Reason::PROTOCOL_ERROR, "more padding than payload"));
        };
        let ends = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.head(head.stream, ends, block);
        }
        self.block = Some(Block { stream: head.stream, ends, bytes: BytesMut::from(block.as_ref()) });
        Ok(())
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
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
            return self.head(block.stream, block.ends, block.bytes.freeze());
        }
        self.block = Some(block);
        Ok(())
    }

    /// A header block is whole: a request, or the trailers of one.
    fn head(&mut self, id: u32, ends: bool, block: Bytes) -> Result<(), Error> {
        let mut collector = Collector::new(self.limits.header_list_bytes_max as usize);
        self.decoder
            .read(block, |name, value| collector.take(name, value))
            .map_err(|error| gone(Reason::COMPRESSION_ERROR, error.0))?;
        if id <= self.last {
            return self.trailers(id, ends);
        }
        self.last = id;
        if self.leaving == Leaving::Heard || self.streams.len() >= self.limits.streams_max as usize {
            // Who has not read our settings yet may well send more than they allow. Nothing of it was looked at: it can be sent again.
            self.spend(IDLE_COST)?;
            self.reset(id, Reason::REFUSED_STREAM);
            return Ok(());
        }
        match collector.finish() {
            Ok((parts, declared)) => {
                self.begin(id, parts, declared, ends);
                Ok(())
            }
            Err(Fault::Malformed) => {
                self.spend(RESET_COST)?;
                self.reset(id, Reason::PROTOCOL_ERROR);
                Ok(())
            }
            Err(Fault::TooLarge) => {
                self.spend(RESET_COST)?;
                frame::block(&mut self.outbound, id, true, self.peer.payload_max, |out| {
                    crate::hpack::encoder::status(out, http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
                });
                if !ends {
                    self.reset(id, Reason::NO_ERROR);
                }
                Ok(())
            }
        }
    }

    /// Fields after a body say nothing here; they end it.
    fn trailers(&mut self, id: u32, ends: bool) -> Result<(), Error> {
        match self.streams.get(&id) {
            Some(stream) if matches!(stream.inbound, Inbound::Ended | Inbound::Fresh { is_whole: true, .. }) => {
                self.spend(RESET_COST)?;
                self.end_stream(id, Reason::STREAM_CLOSED);
                Ok(())
            }
            Some(_) => {
                if ends {
                    self.ended(id);
                } else {
                    self.end_stream(id, Reason::PROTOCOL_ERROR);
                }
                Ok(())
            }
            None if self.reset.contains(&id) => self.spend(IDLE_COST),
            None => Err(gone(Reason::STREAM_CLOSED, "HEADERS on a closed stream")),
        }
    }

    fn begin(&mut self, id: u32, parts: request::Parts, declared: Option<u64>, ends: bool) {
        let stream = Stream {
            inbound: Inbound::Fresh { head: Box::new(parts), body: Bytes::new(), is_whole: ends },
            outbound: Outbound::Awaited,
            window: self.peer.stream_window,
            // Before it has read our settings, a peer goes by the protocol's own window.
            credit: i64::from(self.limits.stream_window_bytes.max(frame::WINDOW_DEFAULT)),
            taken: 0,
            came: 0,
            declared,
            abort: None,
            moved: Instant::now(),
        };
        self.streams.insert(id, stream);
        self.fresh.push(id);
        if ends {
            self.ended(id);
        }
    }

    /// Hands over what began with the bytes that were just read.
    pub(super) fn ask_for_fresh(&mut self) {
        for id in std::mem::take(&mut self.fresh) {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let (head, body) = match std::mem::replace(&mut stream.inbound, Inbound::Ended) {
                Inbound::Fresh { head, body, is_whole: true } => (head, Received::Whole(body)),
                Inbound::Fresh { head, body, is_whole: false } => {
                    let (feed, pieces) = pieces();
                    if !body.is_empty() {
                        feed.push(body);
                    }
                    stream.inbound = Inbound::Pieces { feed };
                    self.feeding.push(id);
                    (head, Received::Pieces(pieces))
                }
                other => {
                    stream.inbound = other;
                    continue;
                }
            };
            let (abort, registration) = futures::future::AbortHandle::new_pair();
            stream.abort = Some(abort);
            let answer = AssertUnwindSafe(self.handler.answer(Request::from_parts(*head, body))).catch_unwind();
            self.answers.push(Answering { stream: id, answer: Abortable::new(answer, registration) });
        }
    }

    fn data(&mut self, head: Head, payload: Bytes) -> Result<(), Error> {
        if head.stream == 0 || head.stream > self.last {
            return Err(gone(Reason::PROTOCOL_ERROR, "DATA on a stream that was not opened"));
        }
        let flow = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.unreturned = self.unreturned.saturating_add(flow);
        if self.unreturned > self.limits.connection_window_bytes.max(frame::WINDOW_DEFAULT) {
            return Err(gone(Reason::FLOW_CONTROL_ERROR, "more than the connection's window"));
        }
        let Some(data) = frame::unpadded(head, payload) else {
            return Err(gone(Reason::PROTOCOL_ERROR, "more padding than payload"));
        };
        let ends = head.has(flag::END_STREAM);
        if data.len() < PIECE_BYTES_MIN && !ends {
            self.spend(IDLE_COST)?;
        }
        self.take(head.stream, data, flow, ends)?;
        self.return_window();
        Ok(())
    }

    fn take(&mut self, id: u32, data: Bytes, flow: u32, ends: bool) -> Result<(), Error> {
        let Some(stream) = self.streams.get_mut(&id) else {
            // On a stream that was just reset it was on its way; on any other it is an offence, and cheap.
            self.spend(IDLE_COST)?;
            if !self.reset.contains(&id) {
                self.reset(id, Reason::STREAM_CLOSED);
            }
            return Ok(());
        };
        stream.credit -= i64::from(flow);
        if stream.credit < 0 {
            self.end_stream(id, Reason::FLOW_CONTROL_ERROR);
            return Ok(());
        }
        stream.came += data.len() as u64;
        // Padding is read by nobody, and used the window all the same.
        stream.taken += i64::from(flow) - data.len() as i64;
        match &mut stream.inbound {
            Inbound::Ended | Inbound::Fresh { is_whole: true, .. } => {
                self.spend(RESET_COST)?;
                self.end_stream(id, Reason::STREAM_CLOSED);
                return Ok(());
            }
            Inbound::Pieces { feed } => feed.push(data),
            // The common case: all of it in one frame, which is not copied.
            Inbound::Fresh { body, .. } if body.is_empty() => *body = data,
            Inbound::Fresh { body, .. } => *body = [body.as_ref(), &data].concat().into(),
        }
        if ends {
            self.ended(id);
        }
        Ok(())
    }

    /// The peer has sent all of a stream.
    fn ended(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.declared.is_some_and(|declared| declared != stream.came) {
            return self.end_stream(id, Reason::PROTOCOL_ERROR);
        }
        match &mut stream.inbound {
            Inbound::Fresh { is_whole, .. } => *is_whole = true,
            Inbound::Pieces { feed } => {
                feed.end(Ok(()));
                stream.inbound = Inbound::Ended;
            }
            Inbound::Ended => {}
        }
    }

    /// Gives the connection's window back. What is held is bounded by the windows of the streams.
    fn return_window(&mut self) {
        let window = self.limits.connection_window_bytes.max(frame::WINDOW_DEFAULT);
        if self.unreturned > window / 2 {
            frame::number(&mut self.outbound, kind::WINDOW_UPDATE, 0, self.unreturned);
            self.unreturned = 0;
        }
    }

    /// Gives the windows of bodies in pieces back as they are read.
    pub(super) fn feed(&mut self, cx: &mut std::task::Context<'_>) {
        let (streams, outbound) = (&mut self.streams, &mut self.outbound);
        let window = i64::from(self.limits.stream_window_bytes);
        self.feeding.retain(|id| {
            let Some(stream) = streams.get_mut(id) else { return false };
            let Inbound::Pieces { feed } = &stream.inbound else { return false };
            stream.taken += feed.taken(cx) as i64;
            if stream.taken > window / 4 {
                stream.credit += stream.taken;
                frame::number(outbound, kind::WINDOW_UPDATE, *id, u32::try_from(stream.taken).unwrap_or(0));
                stream.taken = 0;
            }
            true
        });
    }

    fn reset_by_peer(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if payload.len() != 4 {
            return Err(gone(Reason::FRAME_SIZE_ERROR, "RST_STREAM of another length"));
        }
        if head.stream == 0 || head.stream > self.last {
            return Err(gone(Reason::PROTOCOL_ERROR, "RST_STREAM of a stream that was not opened"));
        }
        let cost = if self.streams.contains_key(&head.stream) { RESET_COST } else { IDLE_COST };
        self.close(head.stream);
        self.spend(cost)
    }

    /// Ends a stream on both sides.
    pub(super) fn end_stream(&mut self, id: u32, reason: Reason) {
        self.close(id);
        self.reset(id, reason);
    }

    pub(super) fn reset(&mut self, id: u32, reason: Reason) {
        frame::number(&mut self.outbound, kind::RST_STREAM, id, reason.0);
        if self.reset.len() == RESETS_KEPT {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    /// Forgets a stream; whoever works for it is told to stop.
    pub(super) fn close(&mut self, id: u32) {
        let Some(stream) = self.streams.remove(&id) else { return };
        if let (Outbound::Awaited, Some(abort)) = (&stream.outbound, &stream.abort) {
            abort.abort();
        }
    }

    fn settings(&mut self, head: Head, mut payload: Bytes) -> Result<(), Error> {
        if head.stream != 0 {
            return Err(gone(Reason::PROTOCOL_ERROR, "SETTINGS on a stream"));
        }
        let is_ack = head.has(flag::ACK);
        if !payload.len().is_multiple_of(6) || is_ack && !payload.is_empty() {
            return Err(gone(Reason::FRAME_SIZE_ERROR, "SETTINGS of another length"));
        }
        if is_ack {
            return self.spend(IDLE_COST);
        }
        self.begun = Begun::Settings;
        self.spend(IDLE_COST)?;
        while payload.has_remaining() {
            let (name, value) = (payload.get_u16(), payload.get_u32());
            self.setting(name, value)?;
        }
        frame::put(&mut self.outbound, kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }

    fn setting(&mut self, name: u16, value: u32) -> Result<(), Error> {
        match name {
            setting::ENABLE_PUSH if value > 1 => Err(gone(Reason::PROTOCOL_ERROR, "ENABLE_PUSH")),
            setting::MAX_FRAME_SIZE if !(16_384..=16_777_215).contains(&value) => {
                Err(gone(Reason::PROTOCOL_ERROR, "MAX_FRAME_SIZE"))
            }
            setting::INITIAL_WINDOW_SIZE => {
                let window = i64::from(value);
                if window > WINDOW_MAX {
                    return Err(gone(Reason::FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE"));
                }
                let change = window - self.peer.stream_window;
                self.peer.stream_window = window;
                for (id, stream) in &mut self.streams {
                    stream.window += change;
                    if stream.window > WINDOW_MAX {
                        return Err(gone(Reason::FLOW_CONTROL_ERROR, "a window too wide"));
                    }
                    if change > 0 && stream.has_piece() && !self.sending.contains(id) {
                        self.sending.push_back(*id);
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if payload.len() != 8 {
            return Err(gone(Reason::FRAME_SIZE_ERROR, "PING of another length"));
        }
        if head.stream != 0 {
            return Err(gone(Reason::PROTOCOL_ERROR, "PING on a stream"));
        }
        self.spend(IDLE_COST)?;
        if !head.has(flag::ACK) {
            frame::put(&mut self.outbound, kind::PING, flag::ACK, 0, payload);
        } else if payload == DRAIN_PING && self.leaving == Leaving::Told {
            // The peer has heard: whatever comes now it has sent knowing it.
            self.leaving = Leaving::Heard;
            frame::go_away(&mut self.outbound, self.last, Reason::NO_ERROR);
        }
        Ok(())
    }

    fn priority(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if head.stream == 0 {
            return Err(gone(Reason::PROTOCOL_ERROR, "PRIORITY on no stream"));
        }
        if payload.len() != 5 {
            return Err(gone(Reason::FRAME_SIZE_ERROR, "PRIORITY of another length"));
        }
        self.spend(IDLE_COST)
    }

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        let Ok(more) = <[u8; 4]>::try_from(payload) else {
            return Err(gone(Reason::FRAME_SIZE_ERROR, "WINDOW_UPDATE of another length"));
        };
        let more = i64::from(u32::from_be_bytes(more) & 0x7fff_ffff);
        if head.stream > self.last {
            return Err(gone(Reason::PROTOCOL_ERROR, "WINDOW_UPDATE of a stream that was not opened"));
        }
        if more == 0 {
            if head.stream == 0 {
                return Err(gone(Reason::PROTOCOL_ERROR, "a window update of nothing"));
            }
            self.spend(RESET_COST)?;
            self.end_stream(head.stream, Reason::PROTOCOL_ERROR);
            return Ok(());
        }
        if head.stream == 0 {
            self.peer.window += more;
            if self.peer.window > WINDOW_MAX {
                return Err(gone(Reason::FLOW_CONTROL_ERROR, "a window too wide"));
            }
            return Ok(());
        }
        let Some(stream) = self.streams.get_mut(&head.stream) else { return self.spend(IDLE_COST) };
        stream.window += more;
        if stream.window > WINDOW_MAX {
            self.end_stream(head.stream, Reason::FLOW_CONTROL_ERROR);
        } else if stream.has_piece() && !self.sending.contains(&head.stream) {
            self.sending.push_back(head.stream);
        }
        // A window that is opened bit by bit costs more than it brings.
        if more < PIECE_BYTES_MIN as i64 { self.spend(IDLE_COST) } else { Ok(()) }
    }
}
