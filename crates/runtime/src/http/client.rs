//! The client: a pool over our own connector, one deadline for the whole call, and an honest answer about what was sent.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, Connected, Connection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use ::http::{Request, Response, Uri};

use crate::{Clock, Io, Net};

/// How a client connects.
#[derive(Clone, Debug)]
pub struct Options {
    /// For name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept; keep it below the peer's own limit. Zero: a connection per call.
    pub pool_idle: Duration,
    /// For `https` addresses; without it they are refused.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(1), pool_idle: Duration::from_secs(20), tls: None }
    }
}

/// What a failed call may have caused at the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// It is proven that no byte of the request reached the peer. The call may be repeated or given up.
    None,
    /// The peer may have acted on it. Only an inquiry can tell.
    Possible,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request cannot be sent as it is: no absolute `http` or `https` address, or `https` without TLS.
    Request,
    /// No TCP connection came about.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The call's deadline passed.
    Timeout,
    /// The connection broke, or the peer's bytes were not HTTP.
    Broken,
    /// The reply's body is larger than the caller allows.
    TooLarge,
}

/// A call that brought no whole reply. A reply with any status is a reply, not an error.
#[derive(Debug, thiserror::Error)]
#[error("HTTP call failed ({kind:?}, effect {effect:?})")]
pub struct Error {
    /// Whether the peer may have acted.
    pub effect: Effect,
    /// What went wrong.
    pub kind: ErrorKind,
    /// Of a body that is too large: as much of it as was allowed.
    pub read: Bytes,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    fn new(effect: Effect, kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { effect, kind, read: Bytes::new(), source: Some(source.into()) }
    }

    fn bare(effect: Effect, kind: ErrorKind) -> Self {
        Self { effect, kind, read: Bytes::new(), source: None }
    }
}

/// An HTTP client with a connection pool. Clones share the pool.
///
/// Never done: redirects, proxies, cookies, decompression, a second try after a byte was written.
#[derive(Clone, Debug)]
pub struct Client {
    pool: legacy::Client<Connector, Full<Bytes>>,
    clock: Clock,
    has_tls: bool,
}

impl Client {
    /// Makes a client with an empty pool.
    pub fn new(net: Net, clock: Clock, options: Options) -> Self {
        let has_tls = options.tls.is_some();
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(options.pool_idle);
        if options.pool_idle.is_zero() {
            builder.pool_max_idle_per_host(0);
        }
        let connector =
            Connector { net, tls: options.tls.map(TlsConnector::from), connect_timeout: options.connect_timeout };
        Self { pool: builder.build(connector), clock, has_tls }
    }

    /// Sends one request and collects the reply.
    ///
    /// Shape: an absolute address → status, headers and the whole body.
    /// Units: `timeout` is for everything from connecting to the reply's last byte; `body_max_bytes` caps the reply's body.
    /// Errors: [`Error`]; its effect is `None` only when the connection was never made, or the pool hands the request back unsent.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        timeout: Duration,
        body_max_bytes: usize,
    ) -> Result<Response<Bytes>, Error> {
        self.check(request.uri())?;
        let mut request = request.map(Full::new);
        let connection = capture_connection(&mut request);
        let call = async {
            let reply = self.pool.request(request).await.map_err(|error| classify(error, &connection))?;
            collect(reply, body_max_bytes).await
        };
        match self.clock.timeout(timeout, call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::bare(effect_so_far(&connection), ErrorKind::Timeout)),
        }
    }

    fn check(&self, uri: &Uri) -> Result<(), Error> {
        let known = match uri.scheme_str() {
            Some("http") => true,
            Some("https") => self.has_tls,
            _ => false,
        };
        if known && uri.host().is_some() { Ok(()) } else { Err(Error::bare(Effect::None, ErrorKind::Request)) }
    }
}

/// A request is given to a connection only after the pool has one; before that nothing can have been sent.
fn effect_so_far(connection: &CaptureConnection) -> Effect {
    if connection.connection_metadata().is_none() { Effect::None } else { Effect::Possible }
}

fn classify(error: legacy::Error, connection: &CaptureConnection) -> Error {
    if error.is_connect() {
        let kind = if find::<TlsFailed>(&error).is_some() { ErrorKind::Tls } else { ErrorKind::Connect };
        return Error::new(Effect::None, kind, error);
    }
    // hyper calls a request cancelled only when it hands it back: the connection closed before taking it.
    let unsent = find::<hyper::Error>(&error).is_some_and(hyper::Error::is_canceled);
    let effect = if unsent { Effect::None } else { effect_so_far(connection) };
    Error::new(effect, ErrorKind::Broken, error)
}

fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut at = Some(error);
    while let Some(error) = at {
        // An io::Error leaves what it carries out of its chain.
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = error.downcast_ref().or_else(|| carried.and_then(|inner| inner.downcast_ref()));
        if found.is_some() {
            return found;
        }
        at = error.source();
    }
    None
}

async fn collect(reply: Response<hyper::body::Incoming>, body_max_bytes: usize) -> Result<Response<Bytes>, Error> {
    let (head, mut body) = reply.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::new(Effect::Possible, ErrorKind::Broken, error))?;
        let Ok(data) = frame.into_data() else { continue };
        let room = body_max_bytes.saturating_sub(bytes.len());
        bytes.extend_from_slice(data.get(..room).unwrap_or(&data));
        if data.len() > room {
            return Err(Error { read: bytes.freeze(), ..Error::bare(Effect::Possible, ErrorKind::TooLarge) });
        }
    }
    Ok(Response::from_parts(head, bytes.freeze()))
}

/// Connects through [`Net`], with TLS where the address says so.
#[derive(Clone)]
struct Connector {
    net: Net,
    tls: Option<TlsConnector>,
    connect_timeout: Duration,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

#[derive(Debug, thiserror::Error)]
#[error("TLS handshake failed")]
struct TlsFailed(#[source] io::Error);

impl Connector {
    async fn connect(self, uri: Uri) -> io::Result<Stream> {
        let deadline = tokio::time::Instant::now() + self.connect_timeout;
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let io = self.net.connect(&format!("{host}:{port}"), self.connect_timeout).await?;
        let Some(tls) = self.tls.filter(|_| is_tls) else { return Ok(Stream { io: TokioIo::new(io), is_h2: false }) };
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let session = tokio::time::timeout_at(deadline, tls.connect(name, io))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "TLS deadline passed"))
            .flatten()
            .map_err(|error| io::Error::other(TlsFailed(error)))?;
        let is_h2 = session.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Stream { io: TokioIo::new(Box::new(session)), is_h2 })
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Stream>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        self.clone().connect(uri).boxed()
    }
}

/// A connection as hyper wants it.
struct Stream {
    io: TokioIo<Io>,
    is_h2: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        if self.is_h2 { connected.negotiated_h2() } else { connected }
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
