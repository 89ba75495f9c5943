//! `lastmile health`: asks a running process, for a container's health check.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use runtime::Context;
use runtime::http::{Client, Options};

const DEADLINE: Duration = Duration::from_secs(3);
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What a running process answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether the status was a success.
    pub is_success: bool,
    /// The body.
    pub text: String,
}

/// Asks the operations listener at `address` for `path`.
///
/// Errors: nothing answers there within three seconds.
pub async fn ask(context: &Context, address: &str, path: &str) -> anyhow::Result<Answer> {
    let address = reachable(address.parse().context("the operations address is not ip:port")?);
    let client = Client::new(context.net.clone(), context.clock.clone(), Options::default());
    let request = http::Request::get(format!("http://{address}{path}")).body(Bytes::new())?;
    let reply = client.send(request, DEADLINE, BODY_BYTES_MAX).await;
    let reply = reply.with_context(|| format!("nothing answers at {address}"))?;
    let text = String::from_utf8_lossy(reply.body()).into_owned();
    Ok(Answer { is_success: reply.status().is_success(), text })
}

/// The same of an address as it is configured; what is no address stays as it is.
pub(crate) fn reachable_text(address: &str) -> String {
    address.parse().map_or_else(|_| address.to_owned(), |address| reachable(address).to_string())
}

/// An address that listens everywhere is asked at home.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everywhere_is_asked_at_home() {
        for (listens, asked) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")] {
            assert_eq!(reachable(listens.parse().expect("an address")).to_string(), asked);
        }
    }
}
