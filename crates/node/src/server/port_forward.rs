//! `portForward`: each port has a pair of channels on the WebSocket, one for data and one for an error. The first message
//! on each is the port, two bytes, the low one first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use netlink::netns::{self, NetNs};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_tungstenite::WebSocketStream;

use super::Server;
use super::query::Query;
use super::reply::{Refusal, Reply, refuse};
use super::upgrade;
use super::websocket::{self, Outbox, Protocol, Said};
use crate::ops::blocking;

/// A pair of channels each; in base64 a channel is one digit.
const PORT_LIMIT: usize = 64;
const CHUNK_BYTES: usize = 32 << 10;
const INPUT_BACKLOG: usize = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

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
    let (response, upgrading, name) =
        upgrade::accept(&mut request, &websocket::PORT_FORWARD.map(|one| one.name))?;
    let protocol = websocket::PORT_FORWARD.into_iter().find(|one| one.name == name);
    let protocol = protocol.ok_or_else(|| refuse(StatusCode::FORBIDDEN, "unable to negotiate protocol"))?;
    let ports = ports(query).map_err(|message| refuse(StatusCode::BAD_REQUEST, message))?;
    let goal = Goal { pod_name: pod_name.to_owned(), pod_uid, netns };
    tokio::spawn(async move {
        let Some(socket) = upgrading.socket().await else { return };
        forward(socket, protocol, &ports, &goal).await;
        drop(permit);
    });
    Ok(response)
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

/// Until all connections have ended, or the client leaves.
async fn forward<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    protocol: Protocol,
    ports: &[u16],
    goal: &Goal,
) {
    let work = |outbox: Outbox, mut heard: mpsc::Receiver<Said>| async move {
        let (inputs, data): (Vec<_>, Vec<_>) =
            ports.iter().map(|_| mpsc::channel::<Bytes>(INPUT_BACKLOG)).unzip();
        let hear = async {
            while let Some(said) = heard.recv().await {
                if let Said::Data { channel, data } = said
                    && channel % 2 == 0
                    && let Some(input) = inputs.get(usize::from(channel / 2))
                {
                    // A connection that has ended takes no more.
                    let _ = input.send(data).await;
                }
            }
            std::future::pending().await
        };
        let forwards = (0_u8..).step_by(2).zip(ports).zip(data);
        let forwards =
            forwards.map(|((channel, port), data)| forward_one(goal, *port, channel, data, &outbox));
        tokio::select! {
            _ = join_all(forwards) => {}
            () = hear => {}
        }
    };
    websocket::converse(socket, protocol, work).await;
}

async fn forward_one(goal: &Goal, port: u16, channel: u8, data: mpsc::Receiver<Bytes>, outbox: &Outbox) {
    let error_channel = channel + 1;
    let first = port.to_le_bytes();
    if !(outbox.send(channel, &first).await && outbox.send(error_channel, &first).await) {
        return;
    }
    let result = match connect(goal.netns.as_deref(), port).await {
        Ok(stream) => splice(stream, channel, data, outbox).await.map_err(|error| error.to_string()),
        Err(message) => Err(message),
    };
    if let Err(message) = result {
        let Goal { pod_name, pod_uid, .. } = goal;
        let text = format!("error forwarding port {port} to pod {pod_name}, uid {pod_uid}: {message}");
        outbox.send(error_channel, text.as_bytes()).await;
    }
}

/// To the pod's localhost, from inside: IPv4, then IPv6.
async fn connect(netns: Option<&Path>, port: u16) -> Result<TcpStream, String> {
    let hosts: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let Some(path) = netns.map(Path::to_owned) else {
        let addresses = hosts.map(|host| SocketAddr::new(host, port));
        return TcpStream::connect(&addresses[..]).await.map_err(|error| error.to_string());
    };
    let stream = blocking(move || {
        let namespace = NetNs::open(path)?;
        let [first, second] = hosts.map(|host| SocketAddr::new(host, port));
        netns::tcp_connect(&namespace, first, CONNECT_TIMEOUT)
            .or_else(|error| netns::tcp_connect(&namespace, second, CONNECT_TIMEOUT).map_err(|_| error))
    });
    let stream = stream.await?;
    stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)).map_err(|error| error.to_string())
}

/// Both ways, until the pod closes: a client cannot close one channel of this protocol.
async fn splice(
    mut stream: TcpStream,
    channel: u8,
    mut data: mpsc::Receiver<Bytes>,
    outbox: &Outbox,
) -> std::io::Result<()> {
    let (mut from, mut to) = stream.split();
    let write = async {
        while let Some(data) = data.recv().await {
            to.write_all(&data).await?;
        }
        to.shutdown().await
    };
    let read = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let length = from.read(&mut chunk).await?;
            if length == 0 || !outbox.send(channel, &chunk[..length]).await {
                return Ok(());
            }
        }
    };
    tokio::select! {
        result = read => result,
        Err(error) = write => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{SinkExt, StreamExt};
    use tokio::net::TcpListener;
    use tokio_tungstenite::tungstenite::protocol::Role;

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

    #[tokio::test]
    async fn an_open_port_answers_and_a_closed_one_says_why() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let open = listener.local_addr().expect("an address").port();
        let unused = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let closed = unused.local_addr().expect("an address").port();
        drop(unused);
        let protocol = websocket::PORT_FORWARD[0];
        let (client, server) = tokio::io::duplex(1 << 10);
        let (mut client, server) = tokio::join!(
            WebSocketStream::from_raw_socket(client, Role::Client, None),
            WebSocketStream::from_raw_socket(server, Role::Server, None)
        );
        let goal =
            Goal { pod_name: "p".into(), pod_uid: "u".into(), netns: Some("/proc/self/ns/net".into()) };
        let echo = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut four = [0; 4];
            stream.read_exact(&mut four).await.expect("ping");
            stream.write_all(&[&four[..], b" pong"].concat()).await.expect("written");
        };
        let talk = async {
            client.send(protocol.encode(0, b"ping")).await.expect("sent");
            let mut heard = [const { Vec::new() }; 4];
            while let Some(Ok(message)) = client.next().await {
                if let Some(Said::Data { channel, data }) = protocol.decode(message) {
                    heard[usize::from(channel)].extend_from_slice(&data);
                }
            }
            heard
        };
        let ports = [open, closed];
        let ((), (), heard) = tokio::join!(forward(server, protocol, &ports, &goal), echo, talk);
        assert_eq!(heard[0], [&open.to_le_bytes()[..], b"ping pong"].concat());
        assert_eq!(heard[1], open.to_le_bytes());
        assert_eq!(heard[2], closed.to_le_bytes());
        let error = String::from_utf8_lossy(&heard[3][2..]).into_owned();
        assert!(error.starts_with(&format!("error forwarding port {closed} to pod p, uid u: ")), "{error}");
        assert!(error.contains("refused"), "{error}");
    }
}
