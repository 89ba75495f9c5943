//! Sockets, behind a seam.
//!
//! Code asks [`Net`] for a connection or a listener and gets a boxed byte stream; whether that is TCP or a simulated network is not
//! its business. The system's network sets TCP_NODELAY on every connection and lets the kernel notice dead peers.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::crash;

const BACKLOG: i32 = 1_024;
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(10);
const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A two-way byte stream.
pub trait IoStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + ?Sized> IoStream for T {}

/// A connection of whatever network.
pub type Io = Box<dyn IoStream>;

/// A network: where connections and listeners come from. A simulator implements it.
pub trait Network: Send + Sync {
    /// Connects to `host:port`. The caller holds the deadline.
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Io>>;

    /// Listens on `ip:port` (port 0 takes a free one). With `reuse_port` several listeners may share the address, where the network
    /// knows such a thing; the kernel then spreads connections over them.
    fn bind<'a>(&'a self, address: &'a str, reuse_port: bool) -> BoxFuture<'a, io::Result<Box<dyn Accept>>>;
}

/// A bound address that connections arrive at.
pub trait Accept: Send + Sync {
    /// Waits for the next connection.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Io, SocketAddr)>>;

    /// Returns the address bound, with its real port.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// The network of one role.
#[derive(Clone)]
pub struct Net {
    network: Arc<dyn Network>,
    points: Option<crash::Points>,
}

impl Net {
    /// TCP over the operating system.
    pub fn system() -> Self {
        Self::custom(Arc::new(System))
    }

    /// Any other network.
    pub fn custom(network: Arc<dyn Network>) -> Self {
        Self { network, points: None }
    }

    /// The same network, silent from the moment the simulated host dies: nothing is read, written, accepted or connected any more.
    #[must_use]
    pub fn frozen_by(self, points: crash::Points) -> Self {
        Self { points: Some(points), ..self }
    }

    /// Connects to `host:port` within `deadline`, name resolution included.
    ///
    /// Errors: `TimedOut` at the deadline, else what the network said.
    pub async fn connect(&self, address: &str, deadline: Duration) -> io::Result<Io> {
        let connecting = self.network.connect(address);
        let io = tokio::time::timeout(deadline, connecting)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "connect deadline passed"))??;
        Ok(self.wrap(io))
    }

    /// Listens on `ip:port`; port 0 takes a free one.
    pub async fn bind(&self, address: &str) -> io::Result<Listener> {
        self.listen(address, false).await
    }

    /// Listens on `ip:port` together with other listeners of this process: one per core, the kernel spreads connections over them.
    pub async fn bind_reuse_port(&self, address: &str) -> io::Result<Listener> {
        self.listen(address, true).await
    }

    async fn listen(&self, address: &str, reuse_port: bool) -> io::Result<Listener> {
        let accept = self.network.bind(address, reuse_port).await?;
        Ok(Listener { local_addr: accept.local_addr()?, accept, net: self.clone() })
    }

    fn wrap(&self, io: Io) -> Io {
        match &self.points {
            None => io,
            Some(points) => Box::new(FrozenIo { io, points: points.clone() }),
        }
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

/// A bound address.
pub struct Listener {
    accept: Box<dyn Accept>,
    local_addr: SocketAddr,
    net: Net,
}

impl Listener {
    /// Waits for the next connection.
    ///
    /// A connection that broke before it was taken is skipped. When the process is out of file descriptors or memory it waits, longer
    /// each time up to a second, and tries again: a listener must not die of a flood.
    /// Errors: only those that no waiting mends, such as a listener that was closed.
    pub async fn accept(&self) -> io::Result<(Io, SocketAddr)> {
        let mut backoff = ACCEPT_BACKOFF_MIN;
        loop {
            match self.accept.accept().await {
                Ok((io, peer)) => return Ok((self.net.wrap(io), peer)),
                Err(error) if is_peers_doing(&error) => {}
                Err(error) if is_exhaustion(&error) => {
                    tracing::warn!(address = %self.local_addr, %error, backoff_ms = backoff.as_millis(), "accept waits");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(ACCEPT_BACKOFF_MAX);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the address bound, with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({})", self.local_addr)
    }
}

/// The connection is at fault, not the listener.
fn is_peers_doing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// ENFILE, EMFILE, ENOBUFS or ENOMEM: it passes when others let go of theirs.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [Errno::NFILE, Errno::MFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| passing.iter().any(|errno| errno.raw_os_error() == code))
}

/// TCP over the operating system.
struct System;

impl Network for System {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Io>> {
        async move { prepared(TcpStream::connect(address).await?) }.boxed()
    }

    fn bind<'a>(&'a self, address: &'a str, reuse_port: bool) -> BoxFuture<'a, io::Result<Box<dyn Accept>>> {
        async move {
            let address: SocketAddr = address
                .parse()
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a listener's address is ip:port"))?;
            Ok(Box::new(listening(address, reuse_port)?) as Box<dyn Accept>)
        }
        .boxed()
    }
}

impl Accept for TcpListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Io, SocketAddr)>> {
        async move {
            let (stream, peer) = TcpListener::accept(self).await?;
            Ok((prepared(stream)?, peer))
        }
        .boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        TcpListener::local_addr(self)
    }
}

fn prepared(stream: TcpStream) -> io::Result<Io> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(Box::new(stream))
}

fn listening(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A simulated host's connection: once the host is dead it neither reads nor writes nor closes.
struct FrozenIo {
    io: Io,
    points: crash::Points,
}

impl FrozenIo {
    fn live(&mut self) -> Poll<Pin<&mut Io>> {
        if self.points.dead() { Poll::Pending } else { Poll::Ready(Pin::new(&mut self.io)) }
    }
}

impl AsyncRead for FrozenIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.live()).poll_read(cx, buf)
    }
}

impl AsyncWrite for FrozenIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.live()).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.live()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.live()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn bytes_cross_a_real_socket() {
        let net = Net::system();
        let listener = net.bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().to_string();
        let (mut client, server) = tokio::join!(net.connect(&address, Duration::from_secs(5)), listener.accept());
        let client = client.as_mut().expect("connects");
        let (mut server, peer) = server.expect("accepts");
        assert!(peer.ip().is_loopback());
        client.write_all(b"ping").await.expect("writes");
        let mut heard = [0; 4];
        server.read_exact(&mut heard).await.expect("reads");
        assert_eq!(&heard, b"ping");
    }

    #[tokio::test]
    async fn several_listeners_share_a_port_only_when_asked() {
        let net = Net::system();
        let first = net.bind_reuse_port("127.0.0.1:0").await.expect("binds");
        let address = first.local_addr().to_string();
        net.bind_reuse_port(&address).await.expect("shares the port");
        assert!(net.bind(&address).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn connecting_ends_at_the_deadline() {
        struct Nowhere;
        impl Network for Nowhere {
            fn connect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Io>> {
                std::future::pending().boxed()
            }
            fn bind<'a>(&'a self, _: &'a str, _: bool) -> BoxFuture<'a, io::Result<Box<dyn Accept>>> {
                std::future::pending().boxed()
            }
        }
        let net = Net::custom(Arc::new(Nowhere));
        let error = net.connect("x:1", Duration::from_secs(2)).await.err().expect("no answer");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    struct Scripted(Mutex<VecDeque<io::Result<Io>>>);

    impl Accept for Scripted {
        fn accept(&self) -> BoxFuture<'_, io::Result<(Io, SocketAddr)>> {
            let next = self.0.lock().expect("not poisoned").pop_front().expect("not asked again");
            std::future::ready(next.map(|io| (io, ([127, 0, 0, 1], 1).into()))).boxed()
        }
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(([127, 0, 0, 1], 2).into())
        }
    }

    fn scripted(script: Vec<io::Result<Io>>) -> Listener {
        let accept = Box::new(Scripted(Mutex::new(script.into())));
        Listener { accept, local_addr: ([127, 0, 0, 1], 2).into(), net: Net::system() }
    }

    #[tokio::test(start_paused = true)]
    async fn accept_outlives_exhaustion_and_broken_peers() {
        let emfile = || Err(io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error()));
        let listener = scripted(vec![
            emfile(),
            Err(io::ErrorKind::ConnectionAborted.into()),
            emfile(),
            Ok(Box::new(tokio::io::empty())),
            Err(io::ErrorKind::InvalidInput.into()),
        ]);
        let start = tokio::time::Instant::now();
        listener.accept().await.map(drop).expect("the fourth try succeeds");
        assert_eq!(start.elapsed(), ACCEPT_BACKOFF_MIN * 3, "it waited, and longer the second time");
        assert!(listener.accept().await.is_err(), "what no waiting mends is told");
    }
}
