//! As WebSockets have it: each port has a pair of channels, one for data and one for an error. The first message on each
//! is the port, two bytes, the low one first.

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;

use super::{CHUNK_BYTES, Goal};
use crate::server::channels::{BACKLOG, Carrier, Outbox, Said};
use crate::server::websocket::Protocol;

/// Until all connections have ended, or the client leaves.
pub async fn forward<S: AsyncRead + AsyncWrite + Unpin>(
    socket: WebSocketStream<S>,
    protocol: Protocol,
    ports: &[u16],
    goal: &Goal,
) {
    let work = |outbox: Outbox, mut heard: mpsc::Receiver<Said>| async move {
        let (inputs, data): (Vec<_>, Vec<_>) = ports.iter().map(|_| mpsc::channel::<Bytes>(BACKLOG)).unzip();
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
    Carrier::WebSocket(socket, protocol).converse(work).await;
}

async fn forward_one(goal: &Goal, port: u16, channel: u8, data: mpsc::Receiver<Bytes>, outbox: &Outbox) {
    let error_channel = channel + 1;
    let first = port.to_le_bytes();
    if !(outbox.send(channel, &first).await && outbox.send(error_channel, &first).await) {
        return;
    }
    let result = match goal.connect(port).await {
        Ok(stream) => splice(stream, channel, data, outbox).await.map_err(|error| error.to_string()),
        Err(message) => Err(message),
    };
    if let Err(message) = result {
        outbox.send(error_channel, goal.failure(port, &message).as_bytes()).await;
    }
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
    use crate::server::websocket;
    use futures_util::{SinkExt, StreamExt};
    use tokio::net::TcpListener;
    use tokio_tungstenite::tungstenite::protocol::Role;

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
