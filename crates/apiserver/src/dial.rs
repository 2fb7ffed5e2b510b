//! How whatever is inside the cluster's network is reached, and what of it users may name.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

/// Anything that bytes go through both ways.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// Connects to an address and port inside the cluster's network.
pub type Dial = Arc<
    dyn Fn(String, u16) -> Pin<Box<dyn Future<Output = io::Result<Box<dyn Socket>>> + Send>> + Send + Sync,
>;

/// Whether what users name to be dialed (a pod's address, a node's) may be: loopback and link-local addresses are the host's own, or
/// the cloud's under it.
pub fn is_proxyable(address: IpAddr) -> bool {
    let is_local = match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    };
    !is_local && !address.to_canonical().is_multicast()
}
