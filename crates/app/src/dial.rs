//! How a control plane reaches its nodes and pods: from inside the cluster's VPC, never through the host's own network.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use machines::{NetNs, netns};
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Connects from inside a network namespace; from the host's own if there is none (nodes on other hosts).
pub async fn dial(namespace: Option<std::path::PathBuf>, address: SocketAddr) -> io::Result<TcpStream> {
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
