//! What comes from the client.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::Abortable;
use http::{Request, StatusCode, request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Answering, Connection, DRAIN_PING, Error, Handler, Inbound, Leaving, Stream};
use crate::frame::{self, Reason};
use crate::gone;
use crate::head::{Collector, Fault};
use crate::hpack::encoder;
use crate::intake::Intake;
use crate::link::{Event, IDLE_COST, RESET_COST};
use crate::outgoing::TooWide;
use crate::received::{Received, pieces};

/// A stream that is reset after so long was a call.
const GIVEN_UP_AFTER: Duration = Duration::from_millis(100);

impl<T, H> Connection<T, H>
where
    T: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    /// Takes what came.
    pub(super) fn take(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Head { stream, .. } if stream.is_multiple_of(2) => {
                Err(gone(Reason::PROTOCOL_ERROR, "HEADERS on no stream of a client"))
            }
            Event::Head { stream, block, ends } => self.head(stream, ends, block),
            Event::Data { stream, .. } | Event::Reset { stream, .. } | Event::Window { stream, .. }
                if stream > self.last =>
            {
                Err(gone(Reason::PROTOCOL_ERROR, "a frame of a stream that was not opened"))
            }
            Event::Data { stream, data, flow, ends } => self.data(stream, data, flow, ends),
            Event::Reset { stream, .. } => {
                let cost = match self.streams.get(&stream) {
                    // So long under way is a call that was given up, and no flood.
                    Some(stream) if stream.begun.elapsed() > GIVEN_UP_AFTER => 0,
                    Some(_) => self.link.limits.reset_cost,
                    None => IDLE_COST,
                };
                self.close(stream);
                self.link.spend(cost)
            }
            Event::Window { stream, more } => self.window(stream, more),
            Event::Windows { change } => self.outgoing.widen_all(change).map_err(|TooWide| too_wide()),
            // The peer opens nothing any more; what it has opened is answered.
            Event::Leaving { .. } => Ok(()),
            Event::Pong(payload) => {
                if payload == DRAIN_PING && self.leaving == Leaving::Told {
                    // The peer has heard: whatever comes now it has sent knowing it.
                    self.leaving = Leaving::Heard;
                    frame::go_away(&mut self.link.outbound, self.last, Reason::NO_ERROR);
                }
                Ok(())
            }
        }
    }

    /// A header block is whole: a request, or the trailers of one.
    fn head(&mut self, id: u32, ends: bool, block: Bytes) -> Result<(), Error> {
        let mut collector = Collector::new(self.link.limits.header_list_bytes_max as usize);
        self.link.fields(block, |name, value| collector.take(name, value))?;
        if id <= self.last {
            return self.trailers(id, ends);
        }
        self.last = id;
        if self.leaving == Leaving::Heard || self.streams.len() >= self.link.limits.streams_max as usize {
            // Who has not read our settings yet may well send more than they allow. Nothing of it was looked at: it can be sent again.
            self.link.spend(IDLE_COST)?;
            self.reset(id, Reason::REFUSED_STREAM);
            return Ok(());
        }
        match collector.request() {
            Ok((parts, declared)) => self.begin(id, parts, declared, ends)?,
            Err(Fault::Malformed) => {
                self.link.spend(RESET_COST)?;
                self.reset(id, Reason::PROTOCOL_ERROR);
            }
            Err(Fault::TooLarge) => {
                self.link.spend(RESET_COST)?;
                self.link.head(id, true, |out| encoder::status(out, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
                if !ends {
                    self.reset(id, Reason::NO_ERROR);
                }
            }
        }
        Ok(())
    }

    /// Fields after a body say nothing here; they end it.
    fn trailers(&mut self, id: u32, ends: bool) -> Result<(), Error> {
        match self.streams.get(&id) {
            Some(stream) if stream.inbound.is_received() => self.offence(id, Reason::STREAM_CLOSED),
            Some(_) => {
                if ends {
                    return self.ended(id);
                }
                self.offence(id, Reason::PROTOCOL_ERROR)
            }
            None if self.reset.contains(&id) => self.link.spend(IDLE_COST),
            None => Err(gone(Reason::STREAM_CLOSED, "HEADERS on a closed stream")),
        }
    }

    fn begin(&mut self, id: u32, parts: request::Parts, declared: Option<u64>, ends: bool) -> Result<(), Error> {
        let inbound = Inbound::Fresh { head: Box::new(parts), body: Bytes::new(), is_whole: ends };
        let intake = Intake::new(self.link.limits.stream_window_bytes, declared);
        self.streams.insert(id, Stream { inbound, intake, abort: None, begun: Instant::now() });
        self.outgoing.open(id, self.link.peer.stream_window);
        self.fresh.push(id);
        if ends { self.ended(id) } else { Ok(()) }
    }

    /// Ends a stream by the peer's own fault, which costs it: or it could have work begun and dropped without an end.
    fn offence(&mut self, id: u32, reason: Reason) -> Result<(), Error> {
        self.end_stream(id, reason);
        self.link.spend(RESET_COST)
    }

    /// Hands over what began with the bytes that were just read.
    pub(super) fn ask_for_fresh(&mut self) {
        for id in std::mem::take(&mut self.fresh) {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let (head, body) = match std::mem::replace(&mut stream.inbound, Inbound::Ended) {
                Inbound::Fresh { head, body, is_whole: true } => {
                    stream.intake.taken(body.len());
                    self.link.release(body.len());
                    (head, Received::whole(body))
                }
                Inbound::Fresh { head, body, is_whole: false } => {
                    let (feed, pieces) = pieces();
                    if !body.is_empty() {
                        feed.push(body);
                    }
                    stream.inbound = Inbound::Pieces { feed, is_whole: false };
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

    fn data(&mut self, id: u32, data: Bytes, flow: u32, ends: bool) -> Result<(), Error> {
        let Some(stream) = self.streams.get_mut(&id) else {
            // On a stream that was just reset it was on its way; on any other it is an offence, and cheap.
            self.link.spend(IDLE_COST)?;
            self.link.release(flow as usize);
            if !self.reset.contains(&id) {
                self.reset(id, Reason::STREAM_CLOSED);
            }
            return Ok(());
        };
        // What is not kept: padding here, and below what nobody reads.
        self.link.release((flow as usize).saturating_sub(data.len()));
        if !stream.intake.take(data.len(), flow) {
            return self.offence(id, Reason::FLOW_CONTROL_ERROR);
        }
        if stream.inbound.is_received() {
            return self.offence(id, Reason::STREAM_CLOSED);
        }
        match &mut stream.inbound {
            Inbound::Ended => {}
            Inbound::Pieces { feed, .. } => {
                let length = data.len();
                if !feed.push(data) {
                    stream.intake.taken(length);
                    self.link.release(length);
                }
            }
            // The common case: all of it in one frame, which is not copied.
            Inbound::Fresh { body, .. } if body.is_empty() => *body = data,
            Inbound::Fresh { body, .. } => *body = [body.as_ref(), &data].concat().into(),
        }
        if ends { self.ended(id) } else { Ok(()) }
    }

    /// The peer has sent all of a stream.
    fn ended(&mut self, id: u32) -> Result<(), Error> {
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if !stream.intake.is_as_declared() {
            return self.offence(id, Reason::PROTOCOL_ERROR);
        }
        match &mut stream.inbound {
            Inbound::Fresh { is_whole, .. } => *is_whole = true,
            Inbound::Pieces { feed, is_whole } => {
                feed.end(Ok(None));
                *is_whole = true;
            }
            Inbound::Ended => {}
        }
        Ok(())
    }

    /// Gives the windows of bodies in pieces back as they are read.
    pub(super) fn feed(&mut self, cx: &mut std::task::Context<'_>) {
        let (streams, link) = (&mut self.streams, &mut self.link);
        self.feeding.retain(|id| {
            let Some(Stream { inbound: inbound @ Inbound::Pieces { .. }, intake, .. }) = streams.get_mut(id) else {
                return false;
            };
            let Inbound::Pieces { feed, is_whole } = inbound else { return false };
            let Some(read) = feed.taken(cx) else {
                // Who does not read may still answer. What was left lying is nobody's.
                link.release(intake.unread());
                intake.taken(intake.unread());
                return false;
            };
            link.release(read);
            intake.taken(read);
            if !*is_whole {
                intake.give_back(*id, read, &mut link.outbound);
            } else if intake.unread() == 0 {
                *inbound = Inbound::Ended;
                return false;
            }
            true
        });
    }

    fn window(&mut self, id: u32, more: u32) -> Result<(), Error> {
        if more == 0 {
            self.offence(id, Reason::PROTOCOL_ERROR)
        } else if self.outgoing.widen(id, more).is_err() {
            self.offence(id, Reason::FLOW_CONTROL_ERROR)
        } else {
            Ok(())
        }
    }
}

fn too_wide() -> Error {
    gone(Reason::FLOW_CONTROL_ERROR, "a window too wide")
}
