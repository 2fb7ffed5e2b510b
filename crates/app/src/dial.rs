//! How a control plane reaches its nodes, pods and services: from inside the cluster's VPC, never through the host's own network.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{Dial, Socket};
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
            let stream = dial(namespace, SocketAddr::new(address, port)).await?;
            Ok(Box::new(stream) as Box<dyn Socket>)
        })
    })
}

async fn dial(namespace: Option<PathBuf>, address: SocketAddr) -> io::Result<TcpStream> {
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
