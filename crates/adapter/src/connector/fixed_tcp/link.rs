//! TCP with a length before each frame: one request and one reply at a time on a connection, few connections, none kept for long.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use runtime::http::Effect;
use runtime::{Io, Net};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::{LENGTH, Settings, UNFRAMED, frame_length};
use crate::connector::{Call, Frame, Link, LinkError, LinkErrorKind, ReadFlaw, Reply, Unreadable};

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Most connections kept unused.
const IDLE_MAX: usize = 32;

/// Carries frames to the one address that the installation configured.
pub struct TcpLink {
    net: Net,
    address: String,
    length_digits: usize,
    keep: Duration,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    io: Io,
    since: Instant,
}

/// An address that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an address such as \"127.0.0.1:7512\": host and port")]
pub struct BadAddress;

impl TcpLink {
    /// Binds a link to `host:port`.
    pub fn new(net: Net, endpoint: &str, settings: &Settings) -> Result<Self, BadAddress> {
        let address = endpoint.strip_prefix("tcp://").unwrap_or(endpoint);
        let (host, port) = address.rsplit_once(':').ok_or(BadAddress)?;
        let is_host = !host.is_empty() && !host.contains(['/', '@', ' ']);
        port.parse::<u16>().ok().filter(|port| *port > 0 && is_host).ok_or(BadAddress)?;
        Ok(Self {
            net,
            address: address.to_owned(),
            length_digits: settings.length_digits,
            keep: settings.idle.get(),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Takes the connection that was used last, if it is young and silent: bytes that nobody asked for, or an end, spoil it.
    fn reuse(&self) -> Option<Io> {
        loop {
            let Idle { mut io, since } = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            let is_young = since.elapsed() < self.keep;
            let is_silent = io.read_u8().now_or_never().is_none();
            if is_young && is_silent {
                return Some(io);
            }
        }
    }

    fn keep(&self, io: Io) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|kept| kept.since.elapsed() < self.keep);
        if idle.len() < IDLE_MAX {
            idle.push(Idle { io, since: Instant::now() });
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Io, LinkError> {
        let left = deadline.saturating_duration_since(Instant::now()).min(CONNECT_MAX);
        let connected = self.net.connect(&self.address, left).await;
        connected.map_err(|_| LinkError { effect: Effect::None, kind: LinkErrorKind::Connect })
    }

    async fn talk(&self, frame: &Bytes, call: Call<'_>, deadline: Instant) -> Result<Reply, LinkError> {
        let mut io = match self.reuse() {
            Some(io) => io,
            None => self.connect(deadline).await?,
        };
        let mut sent = 0;
        let writing = timeout_at(deadline, write(&mut io, frame, &mut sent)).await;
        // Before the first byte nothing can have happened; after it anything may have.
        let effect = if sent == 0 { Effect::None } else { Effect::Possible };
        match writing {
            Err(_) => return Err(LinkError { effect, kind: LinkErrorKind::Timeout }),
            Ok(Err(_)) => return Err(LinkError { effect, kind: LinkErrorKind::Broken }),
            Ok(Ok(())) => {}
        }
        if let Some(point) = call.sent_point {
            runtime::crash::point(point);
        }
        let reading = timeout_at(deadline, read(&mut io, self.length_digits, call.reply_bytes_max)).await;
        let kind = match reading {
            Ok(Ok(bytes)) => {
                self.keep(io);
                return Ok(Reply { bytes, status: None, content_type: None });
            }
            Ok(Err(kind)) => kind,
            Err(_) => LinkErrorKind::Timeout,
        };
        Err(LinkError { effect: Effect::Possible, kind })
    }
}

impl Link for TcpLink {
    fn exchange<'a>(&'a self, frame: Frame, call: Call<'a>) -> BoxFuture<'a, Result<Reply, LinkError>> {
        async move {
            let deadline = Instant::now() + call.budget;
            match self.talk(&frame.bytes, call, deadline).await {
                // A kept connection that broke before its first byte proves nothing about the department: a new one is tried, once.
                Err(LinkError { effect: Effect::None, kind: LinkErrorKind::Broken }) => {
                    self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    self.talk(&frame.bytes, call, deadline).await
                }
                done => done,
            }
        }
        .boxed()
    }
}

/// Writes a frame and counts what was taken, so that a failure tells whether anything left.
async fn write(io: &mut Io, frame: &[u8], sent: &mut usize) -> std::io::Result<()> {
    while let Some(rest) = frame.get(*sent..).filter(|rest| !rest.is_empty()) {
        let taken = poll_fn(|cx| Pin::new(&mut *io).poll_write(cx, rest)).await?;
        if taken == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        *sent = sent.saturating_add(taken);
    }
    io.flush().await
}

/// Reads one frame, its length included; never more than is allowed.
async fn read(io: &mut Io, length_digits: usize, bytes_max: usize) -> Result<Bytes, LinkErrorKind> {
    let mut frame = vec![0; length_digits];
    io.read_exact(&mut frame).await.map_err(|_| LinkErrorKind::Broken)?;
    let refuse = |flaw| LinkErrorKind::Reply(Unreadable::new(LENGTH, 0, flaw));
    let length = frame_length(&frame).ok_or_else(|| refuse(UNFRAMED))?;
    if length > bytes_max {
        return Err(refuse(ReadFlaw::TooLong(bytes_max)));
    }
    frame.resize(length_digits.saturating_add(length), 0);
    let payload = frame.get_mut(length_digits..).unwrap_or_default();
    io.read_exact(payload).await.map_err(|_| LinkErrorKind::Broken)?;
    Ok(Bytes::from(frame))
}
