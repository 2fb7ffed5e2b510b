//! `portForward`: connections to the localhost of a pod, from inside its network namespace.
//!
//! Clients ask for it in three ways: kubectl by SPDY inside a WebSocket, older ones by SPDY itself ([`streams`]), some
//! libraries by channels of a WebSocket ([`channels`]).

mod channels;
mod streams;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use netlink::netns::{self, NetNs};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::Server;
use super::query::Query;
use super::reply::{Refusal, Reply, refuse};
use super::tunnel::Tunnel;
use super::upgrade::{self, Agreed, Offer, Upgrading};
use super::websocket;
use crate::ops::blocking;

/// A pair of channels each; in base64 a channel is one digit.
const PORT_LIMIT: usize = 64;
const CHUNK_BYTES: usize = 32 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

const STREAMS: &str = "portforward.k8s.io";
const TUNNELED_STREAMS: &str = "SPDY/3.1+portforward.k8s.io";

/// Whose ports are forwarded.
struct Goal {
    pod_name: String,
    pod_uid: String,
    /// Without: the node's own.
    netns: Option<PathBuf>,
}

pub fn answer(
    server: &Arc<Server>,
    namespace: &str,
    pod_name: &str,
    query: &Query,
    mut request: Request<Incoming>,
    permit: Arc<OwnedSemaphorePermit>,
) -> Result<Response<Reply>, Refusal> {
    let pod =
        server.pod(namespace, pod_name).ok_or_else(|| refuse(StatusCode::NOT_FOUND, "pod does not exist"))?;
    let internal = |message: String| refuse(StatusCode::INTERNAL_SERVER_ERROR, message);
    let pod_uid = pod.metadata.uid;
    let sandbox = server.sandbox(&pod_uid);
    let sandbox = sandbox.ok_or_else(|| internal(format!("sandbox of pod \"{pod_name}\" is not running")))?;
    let netns = server.tools.runtime.netns_path(&sandbox).map_err(|error| internal(error.to_string()))?;
    let goal = Goal { pod_name: pod_name.to_owned(), pod_uid, netns };
    let mut subprotocols = vec![TUNNELED_STREAMS];
    subprotocols.extend(websocket::PORT_FORWARD.map(|one| one.name));
    let offer = Offer { websocket: &subprotocols, spdy: &[STREAMS] };
    let (response, upgrading, agreed) = upgrade::accept(&mut request, offer)?;
    // Streams say their ports themselves, when they come.
    let has_streams = matches!(agreed, Agreed::Spdy(_) | Agreed::WebSocket(TUNNELED_STREAMS));
    let ports = if has_streams { Ok(Vec::new()) } else { ports(query) };
    let ports = ports.map_err(|message| refuse(StatusCode::BAD_REQUEST, message))?;
    tokio::spawn(async move {
        forward(upgrading, agreed, ports, goal).await;
        drop(permit);
    });
    Ok(response)
}

/// Until the client leaves.
async fn forward(upgrading: Upgrading, agreed: Agreed, ports: Vec<u16>, goal: Goal) {
    match agreed {
        Agreed::Spdy(_) => {
            let Some(bytes) = upgrading.bytes().await else { return };
            streams::forward(bytes, goal).await;
        }
        Agreed::WebSocket(TUNNELED_STREAMS) => {
            let Some(socket) = upgrading.socket().await else { return };
            streams::forward(Tunnel::new(socket), goal).await;
        }
        Agreed::WebSocket(name) => {
            let protocol = websocket::PORT_FORWARD.into_iter().find(|one| one.name == name);
            let (Some(protocol), Some(socket)) = (protocol, upgrading.socket().await) else { return };
            channels::forward(socket, protocol, &ports, &goal).await;
        }
    }
}

/// Of `port`, the kubelet's name, and `ports`, the API's; several of each, or several in one by commas.
fn ports(query: &Query) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for text in query.all("port").chain(query.all("ports")) {
        if text.is_empty() {
            return Err("query parameter \"port\" cannot be empty".into());
        }
        for one in text.split(',') {
            match one.parse::<u16>() {
                Ok(0) => return Err(format!("port \"{text}\" must be > 0")),
                Ok(port) => ports.push(port),
                Err(error) => return Err(format!("unable to parse \"{text}\" as a port: {error}")),
            }
        }
    }
    match ports.len() {
        0 => Err("query parameter \"port\" is required".into()),
        count if count > PORT_LIMIT => {
            Err(format!("{count} ports are asked for, and at most {PORT_LIMIT} are forwarded"))
        }
        _ => Ok(ports),
    }
}

impl Goal {
    /// To the pod's localhost, from inside: IPv4, then IPv6.
    async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let hosts: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let [first, second] = hosts.map(|host| SocketAddr::new(host, port));
        let Some(path) = self.netns.clone() else {
            let connected = TcpStream::connect(&[first, second][..]).await;
            return connected.map_err(|error| format!("failed to connect to localhost:{port}: {error}"));
        };
        let stream = blocking(move || {
            let namespace = NetNs::open(path.clone()).map_err(|error| error.to_string())?;
            netns::tcp_connect(&namespace, first, CONNECT_TIMEOUT).or_else(|v4| {
                netns::tcp_connect(&namespace, second, CONNECT_TIMEOUT).map_err(|v6| {
                    let inside = path.display();
                    format!(
                        "failed to execute portforward in network namespace \"{inside}\": failed to connect to localhost:{port} inside namespace \"{inside}\", IPv4: dial tcp4 {first}: {} IPv6 dial tcp6 {second}: {}",
                        in_gos_words(&v4), in_gos_words(&v6)
                    )
                })
            })
        });
        let stream = stream.await?;
        stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream))
            .map_err(|error| error.to_string())
    }

    /// As upstream tells it; kubectl prints it.
    fn failure(&self, port: u16, message: &str) -> String {
        let Self { pod_name, pod_uid, .. } = self;
        format!("error forwarding port {port} to pod {pod_name}, uid {pod_uid}: {message}")
    }
}

/// An errno's text as Go has it, which is in lower case.
fn in_gos_words(error: &netlink::Error) -> String {
    let netlink::Error::Namespace { source, .. } = error else { return error.to_string() };
    match source.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::TimedOut => "i/o timeout".into(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        _ => format!("connect: {source}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_refused() {
        let check = |query: &str, want: Result<&[u16], &str>| {
            assert_eq!(ports(&Query::parse(query)), want.map(<[u16]>::to_vec).map_err(str::to_owned));
        };
        check("ports=80&ports=8080", Ok(&[80, 8080]));
        check("port=80,443", Ok(&[80, 443]));
        check("", Err("query parameter \"port\" is required"));
        check("port=", Err("query parameter \"port\" cannot be empty"));
        check("port=0", Err("port \"0\" must be > 0"));
        check("port=x", Err("unable to parse \"x\" as a port: invalid digit found in string"));
        check(&"ports=1&".repeat(65), Err("65 ports are asked for, and at most 64 are forwarded"));
    }
}
