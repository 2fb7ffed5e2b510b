//! How a control plane reaches its nodes, pods and services: from inside the cluster's VPC, never through the host's own network.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{Dial, Socket, is_proxyable};
use machines::{NetNs, netns};
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(10);

/// The network namespace to dial from: one of the cluster's machines, where pods and cluster IPs are in reach; none for nodes that are
/// other hosts.
pub type Inside = Arc<dyn Fn() -> Option<PathBuf> + Send + Sync>;

/// What the API server dials with.
pub fn dialer(inside: Inside) -> Dial {
    Arc::new(move |host, port| {
        let namespace = inside();
        Box::pin(async move {
            let address: IpAddr =
                host.parse().map_err(|_| io::Error::other(format!("{host} is not an IP address")))?;
            if !is_proxyable(address) {
                let why =
                    format!("{address} is not dialed: loopback and link-local addresses are out of reach");
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
            }
            let stream = dial(namespace, SocketAddr::new(address, port)).await?;
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
