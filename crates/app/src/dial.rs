//! How a control plane reaches its nodes, pods and services: from inside the cluster's VPC, never through the host's own network.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{Dial, Socket, is_proxyable};
use machines::{NetNs, netns};
use rustix::net::sockopt;
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent other side is asked whether it is still there. The third time is the last.
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Of a name, so many are tried.
const MOST_ADDRESSES: usize = 8;

/// The network namespace to dial from: one of the cluster's machines, where pods and cluster IPs are in reach; none for nodes that are
/// other hosts.
pub type Inside = Arc<dyn Fn() -> Option<PathBuf> + Send + Sync>;

/// What the API server dials with.
pub fn dialer(inside: Inside) -> Dial {
    Arc::new(move |host, port| {
        let namespace = inside();
        Box::pin(async move {
            let mut failed = None;
            for address in resolve(&host, port).await? {
                // What a name stands for is looked at, and then dialed, by the same address.
                let dialed = match refuse_local(address.ip()) {
                    Ok(()) => dial(namespace.clone(), address).await,
                    Err(refused) => Err(refused),
                };
                match dialed {
                    Ok(stream) => return Ok(Box::new(stream) as Box<dyn Socket>),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            Err(failed.unwrap_or_else(|| io::Error::other(format!("lookup {host}: no such host"))))
        })
    })
}

/// The addresses of a host: names are this host's own to resolve, as they are upstream's API server's.
async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((host, port))).await;
    match found {
        Ok(Ok(addresses)) => Ok(addresses.take(MOST_ADDRESSES).collect()),
        Ok(Err(error)) => Err(io::Error::other(format!("lookup {host}: {error}"))),
        Err(_) => Err(io::Error::other(format!("lookup {host}: i/o timeout"))),
    }
}

/// Loopback and link-local addresses are this host's own, or the cloud's under it.
fn refuse_local(address: IpAddr) -> io::Result<()> {
    if is_proxyable(address) {
        return Ok(());
    }
    let why = format!("{address} is not dialed: loopback and link-local addresses are out of reach");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// What a host's administrator names (issuers and webhooks of configuration files) is dialed from the host, by name or address, its own
/// loopback included.
pub fn from_host() -> Dial {
    Arc::new(move |host, port| {
        Box::pin(async move {
            let stream = tokio::time::timeout(TIMEOUT, TcpStream::connect((host.as_str(), port))).await??;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Socket>)
        })
    })
}

/// Connects, from inside a network namespace if there is one.
pub async fn dial(namespace: Option<PathBuf>, address: SocketAddr) -> io::Result<TcpStream> {
    let Some(path) = namespace else {
        return tokio::time::timeout(TIMEOUT, TcpStream::connect(address)).await?;
    };
    let connected = tokio::task::spawn_blocking(move || {
        let ns = NetNs::open(path).map_err(io::Error::other)?;
        netns::tcp_connect(&ns, address, TIMEOUT).map_err(io::Error::other)
    });
    let stream = connected.await.map_err(io::Error::other)??;
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    // The machine may end under it, and then nobody says so.
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, ALIVE_EVERY)?;
    sockopt::set_tcp_keepintvl(&stream, ALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(&stream, 3)?;
    sockopt::set_tcp_user_timeout(&stream, 3 * ALIVE_EVERY.as_millis() as u32)?;
    TcpStream::from_std(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_refused() {
        for (address, refused) in [
            ("172.31.0.10", false),
            ("10.244.0.5", false),
            ("fd00::1", false),
            ("127.0.0.1", true),
            ("127.8.8.8", true),
            ("0.0.0.0", true),
            ("169.254.169.254", true),
            ("255.255.255.255", true),
            ("224.0.0.1", true),
            ("::1", true),
            ("::", true),
            ("fe80::1", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:169.254.169.254", true),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(refuse_local(address).is_err(), refused, "{address}");
        }
    }
}
