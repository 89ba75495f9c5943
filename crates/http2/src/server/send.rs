//! What goes to the peer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::Response;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Connection, Handler, Inbound, Outbound, Stream, WRITE_BYTES};
use crate::frame::{self, Reason, flag, kind};
use crate::hpack::encoder;

/// How the sending of a stream came out.
enum Sent {
    /// All of it.
    Done,
    /// Its body has nothing at hand.
    Waiting,
    /// Its window is used up.
    Blocked,
    /// The connection's window is, or enough is waiting to be written.
    Full,
    /// Its body broke.
    Broken,
}

impl<T, H> Connection<T, H>
where
    T: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    /// Takes an answer: its head goes at once, its body in turn.
    pub(super) fn answered(&mut self, id: u32, answer: Response<H::Body>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let (mut parts, body) = answer.into_parts();
        parts.headers.remove(CONNECTION);
        parts.headers.remove(TRANSFER_ENCODING);
        let is_all = body.is_end_stream();
        frame::block(&mut self.outbound, id, is_all, self.peer.payload_max, |out| {
            encoder::status(out, parts.status);
            encoder::fields(out, &parts.headers);
        });
        if is_all {
            return self.finished(id);
        }
        stream.moved = Instant::now();
        stream.outbound = Outbound::Body { body: Box::pin(body), piece: Bytes::new(), trailers: None, is_read: false };
        self.sending.push_back(id);
    }

    /// Sends what may be sent.
    pub(super) fn send(&mut self, cx: &mut Context<'_>) {
        self.sending.extend(self.waiting.drain(..));
        for _ in 0..self.sending.len() {
            let Some(id) = self.sending.pop_front() else { return };
            match self.send_one(id, cx) {
                Sent::Done => self.finished(id),
                Sent::Waiting => self.waiting.push(id),
                Sent::Blocked => {}
                Sent::Full => {
                    self.sending.push_back(id);
                    if self.outbound.len() >= WRITE_BYTES {
                        return;
                    }
                }
                Sent::Broken => self.end_stream(id, Reason::CANCEL),
            }
        }
    }

    fn send_one(&mut self, id: u32, cx: &mut Context<'_>) -> Sent {
        let Some(stream) = self.streams.get_mut(&id) else { return Sent::Blocked };
        let Outbound::Body { body, piece, trailers, is_read } = &mut stream.outbound else { return Sent::Blocked };
        loop {
            if self.outbound.len() >= WRITE_BYTES {
                return Sent::Full;
            }
            if piece.is_empty() && !*is_read {
                match body.as_mut().poll_frame(cx) {
                    Poll::Pending => return Sent::Waiting,
                    Poll::Ready(None) => *is_read = true,
                    Poll::Ready(Some(Err(_))) => return Sent::Broken,
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => *piece = data,
                        Err(frame) => {
                            *trailers = frame.into_trailers().ok();
                            *is_read = true;
                        }
                    },
                }
                *is_read |= trailers.is_none() && Pin::as_ref(body).is_end_stream();
                if piece.is_empty() && !*is_read {
                    continue;
                }
            }
            if piece.is_empty() {
                match trailers.take() {
                    Some(trailers) => frame::block(&mut self.outbound, id, true, self.peer.payload_max, |out| {
                        encoder::fields(out, &trailers);
                    }),
                    None => frame::put(&mut self.outbound, kind::DATA, flag::END_STREAM, id, &[]),
                }
                return Sent::Done;
            }
            let room = self.peer.window.min(stream.window).min(self.peer.payload_max as i64);
            let Some(room) = usize::try_from(room).ok().filter(|room| *room > 0) else {
                return if stream.window <= 0 { Sent::Blocked } else { Sent::Full };
            };
            let now = piece.split_to(room.min(piece.len()));
            self.peer.window -= now.len() as i64;
            stream.window -= now.len() as i64;
            stream.moved = Instant::now();
            let is_last = piece.is_empty() && *is_read && trailers.is_none();
            frame::put(&mut self.outbound, kind::DATA, if is_last { flag::END_STREAM } else { 0 }, id, now.chunk());
            if is_last {
                return Sent::Done;
            }
        }
    }

    /// An answer that nobody reads is given up.
    pub(super) fn give_up_unread_answers(&mut self, now: Instant) {
        let longest = self.limits.keepalive_timeout;
        let is_unread = |stream: &Stream<H::Body>| stream.has_piece() && now.duration_since(stream.moved) > longest;
        let unread: Vec<u32> = self.streams.iter().filter(|(_, stream)| is_unread(stream)).map(|(id, _)| *id).collect();
        for id in unread {
            self.end_stream(id, Reason::CANCEL);
        }
    }

    /// All of an answer is on its way.
    fn finished(&mut self, id: u32) {
        let is_received = self.streams.get(&id).is_none_or(|stream| matches!(stream.inbound, Inbound::Ended));
        self.close(id);
        if is_received {
            self.calm.earn();
        } else {
            // The rest of the request is not wanted (RFC 9113, 8.1).
            self.reset(id, Reason::NO_ERROR);
        }
    }
}

impl<B> Stream<B> {
    /// Whether something of the answer has been waiting for the window.
    pub(super) fn has_piece(&self) -> bool {
        matches!(&self.outbound, Outbound::Body { piece, .. } if !piece.is_empty())
    }
}
