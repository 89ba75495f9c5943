//! The simulated network, and the outside world of a host on it.
//!
//! A simulation is one thread, virtual time and one seed; the hosts run the same code as a process. Use [`context`] inside of a host's
//! own future, once per start of the host, so that its clock and its randomness belong to that life of the host.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use runtime::net::{Accept, Io, Network};
use runtime::{Context, Listener, Net, Timestamp, crash};

/// When every simulation begins: 2027-01-15T08:00:00Z.
pub const EPOCH: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// The simulator's TCP.
struct Simulated;

impl Network for Simulated {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Io>> {
        async move {
            let (host, port) = address.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
            let port: u16 = port.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
            let stream = turmoil::net::TcpStream::connect((host, port)).await?;
            Ok(Box::new(stream) as Io)
        }
        .boxed()
    }

    fn bind<'a>(&'a self, address: &'a str, _: bool) -> BoxFuture<'a, io::Result<Box<dyn Accept>>> {
        async move {
            let address: SocketAddr = address.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
            Ok(Box::new(Bound(turmoil::net::TcpListener::bind(address).await?)) as Box<dyn Accept>)
        }
        .boxed()
    }
}

struct Bound(turmoil::net::TcpListener);

impl Accept for Bound {
    fn accept(&self) -> BoxFuture<'_, io::Result<(Io, SocketAddr)>> {
        async move {
            let (stream, peer) = self.0.accept().await?;
            Ok((Box::new(stream) as Io, peer))
        }
        .boxed()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// The outside world of a simulated host: simulated time from [`EPOCH`], randomness from `seed`, the simulator's network.
pub fn context(seed: u64, points: &crash::Points) -> Context {
    let now = EPOCH.plus(turmoil::sim_elapsed().unwrap_or_default());
    Context::simulated(now, seed, Net::custom(Arc::new(Simulated)), points.clone())
}

/// Listens on all addresses of the simulated host.
pub async fn listen(context: &Context, port: u16) -> io::Result<Listener> {
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    context.net.bind(&any.to_string()).await
}
