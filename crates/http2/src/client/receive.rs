//! What comes from the server.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, Version};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{CallError, Calls, Coming, Data, Lost, Stream, Wanted, lock};
use crate::frame::{self, Reason, kind};
use crate::head::{Collector, Fault};
use crate::link::{Event, IDLE_COST};
use crate::outgoing::TooWide;
use crate::received::{Received, pieces};
use crate::{Error, gone};

impl<T, B> Calls<T, B>
where
    T: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    /// Takes what came.
    pub(super) fn take(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Head { stream, .. }
            | Event::Data { stream, .. }
            | Event::Reset { stream, .. }
            | Event::Window { stream, .. }
                if stream.is_multiple_of(2) || stream >= self.next =>
            {
                Err(gone(Reason::PROTOCOL_ERROR, "a frame of a stream that was not opened"))
            }
            Event::Head { stream, block, ends } => self.head(stream, block, ends),
            Event::Data { stream, data, flow, ends } => self.data(stream, data, flow, ends),
            Event::Reset { stream, reason } => {
                if !self.streams.contains_key(&stream) {
                    return self.link.spend(IDLE_COST);
                }
                let is_refused = reason == Reason::REFUSED_STREAM;
                let error = if is_refused { CallError::Refused } else { CallError::Lost(Lost::Reset(reason)) };
                self.fail(stream, error);
                Ok(())
            }
            Event::Window { stream, more } => {
                if more == 0 {
                    self.give_up(stream, Reason::PROTOCOL_ERROR, CallError::Lost(Lost::Malformed));
                } else if self.outgoing.widen(stream, more).is_err() {
                    self.give_up(stream, Reason::FLOW_CONTROL_ERROR, CallError::Lost(Lost::Malformed));
                }
                Ok(())
            }
            Event::Windows { change } => {
                let too_wide = |TooWide| gone(Reason::FLOW_CONTROL_ERROR, "a window too wide");
                self.outgoing.widen_all(change).map_err(too_wide)
            }
            Event::Leaving { last } => {
                lock(&self.inbox).is_open = false;
                // What it has not looked at it never will.
                let unseen: Vec<u32> = self.streams.range(last.saturating_add(1)..).map(|(id, _)| *id).collect();
                unseen.into_iter().for_each(|id| self.fail(id, CallError::Refused));
                Ok(())
            }
            Event::Pong(_) => Ok(()),
        }
    }

    /// A header block is whole: an answer's, or the trailers of one.
    fn head(&mut self, id: u32, block: Bytes, ends: bool) -> Result<(), Error> {
        let mut collector = Collector::new(self.link.limits.header_list_bytes_max as usize);
        self.link.fields(block, |name, value| collector.take(name, value))?;
        let Some(stream) = self.streams.get_mut(&id) else {
            // It was on its way when the stream was given up.
            return self.link.spend(IDLE_COST);
        };
        let taken = match &stream.answer {
            Coming::Nothing { .. } => collector.answer().and_then(|(status, headers, declared)| {
                if status.is_informational() {
                    // The answer itself comes later; there is nothing to switch to (RFC 9113, 8.6).
                    let is_none = ends || status == StatusCode::SWITCHING_PROTOCOLS;
                    return if is_none { Err(Fault::Malformed) } else { Ok(None) };
                }
                stream.intake.declare(declared);
                Ok(Some((status, headers)))
            }),
            Coming::Part { .. } | Coming::Pieces { .. } if !ends => Err(Fault::Malformed),
            Coming::Part { .. } | Coming::Pieces { .. } => {
                return match collector.trailers() {
                    Ok(trailers) => self.complete(id, Some(trailers)),
                    Err(_) => self.malformed(id),
                };
            }
        };
        match taken {
            Ok(None) => self.link.spend(IDLE_COST),
            Ok(Some(head)) => {
                self.begun(id, head);
                if ends { self.complete(id, None) } else { Ok(()) }
            }
            Err(_) => self.malformed(id),
        }
    }

    /// An answer has begun.
    fn begun(&mut self, id: u32, head: (StatusCode, HeaderMap)) {
        let Some(mut stream) = self.streams.remove(&id) else { return };
        stream.answer = match stream.answer {
            Coming::Nothing { reply, wanted: Wanted::Whole { bytes_max } } => {
                Coming::Part { reply, head: Box::new(head), data: Data::One(Bytes::new()), bytes_max }
            }
            Coming::Nothing { reply, wanted: Wanted::Pieces } => {
                let (feed, pieces) = pieces();
                // A caller that has gone has said so.
                let _ = reply.send(Ok(response(head, Received::Pieces(pieces))));
                self.feeding.push(id);
                Coming::Pieces { feed }
            }
            begun => begun,
        };
        self.streams.insert(id, stream);
    }

    fn data(&mut self, id: u32, data: Bytes, flow: u32, ends: bool) -> Result<(), Error> {
        // The connection's window is given back at once: a stream that its reader leaves lying must not hold up everybody's calls.
        // What is held is bounded by the windows of the streams.
        self.link.release(flow as usize);
        let Some(Stream { answer, intake, .. }) = self.streams.get_mut(&id) else {
            // It was on its way when the stream was given up.
            return Ok(());
        };
        if !intake.take(data.len(), flow) {
            self.give_up(id, Reason::FLOW_CONTROL_ERROR, CallError::Lost(Lost::Malformed));
            return Ok(());
        }
        match answer {
            Coming::Nothing { .. } => return self.malformed(id),
            Coming::Part { bytes_max, .. } if intake.came() > *bytes_max as u64 => {
                self.give_up(id, Reason::CANCEL, CallError::Lost(Lost::TooLong));
                return Ok(());
            }
            Coming::Part { data: whole, .. } => {
                let read = data.len();
                whole.push(data);
                if !ends {
                    intake.give_back(id, read, &mut self.link.outbound);
                }
            }
            Coming::Pieces { feed } => {
                feed.push(data);
            }
        }
        if ends { self.complete(id, None) } else { Ok(()) }
    }

    /// All of an answer has come.
    fn complete(&mut self, id: u32, trailers: Option<HeaderMap>) -> Result<(), Error> {
        if self.streams.get(&id).is_some_and(|stream| !stream.intake.is_as_declared()) {
            return self.malformed(id);
        }
        let Some(stream) = self.close(id) else { return Ok(()) };
        if !stream.is_sent {
            // The rest of the request is not wanted (RFC 9113, 8.1).
            frame::number(&mut self.link.outbound, kind::RST_STREAM, id, Reason::NO_ERROR.0);
        }
        self.link.earn();
        match stream.answer {
            Coming::Part { reply, head, data, .. } => {
                // A caller that has gone has said so.
                let _ = reply.send(Ok(response(
                    *head,
                    Received::Whole { data: data.whole(), trailers: trailers.map(Box::new) },
                )));
            }
            Coming::Pieces { feed } => feed.end(Ok(trailers)),
            Coming::Nothing { .. } => {}
        }
        Ok(())
    }

    fn malformed(&mut self, id: u32) -> Result<(), Error> {
        self.give_up(id, Reason::PROTOCOL_ERROR, CallError::Lost(Lost::Malformed));
        Ok(())
    }
}

fn response((status, headers): (StatusCode, HeaderMap), body: Received) -> Response<Received> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.version_mut() = Version::HTTP_2;
    *response.headers_mut() = headers;
    response
}
