//! As SPDY has it: for each connection the client opens two streams of one request id, one for data and one for an error.

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use spdy::{Headers, Reader, Stream, Writer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::debug;

use super::{CHUNK_BYTES, Goal};

/// How long the second stream of a pair may take.
const PAIRING: Duration = Duration::from_secs(30);

/// What the headers of a stream say it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Purpose {
    request: String,
    port: u16,
    is_data: bool,
}

impl Purpose {
    /// Upstream's errors.
    fn of(id: u32, headers: &Headers) -> Result<Self, String> {
        let port = headers.get("port").unwrap_or_default();
        let port = match port.parse::<u16>() {
            _ if port.is_empty() => return Err("\"port\" header is required".into()),
            Err(error) => return Err(format!("unable to parse \"{port}\" as a port: {error}")),
            Ok(0) => return Err(format!("port \"{port}\" must be > 0")),
            Ok(port) => port,
        };
        let is_data = match headers.get("streamtype").unwrap_or_default() {
            "" => return Err("\"streamType\" header is required".into()),
            "data" => true,
            "error" => false,
            other => return Err(format!("invalid stream type \"{other}\"")),
        };
        let request = headers.get("requestid").filter(|request| !request.is_empty());
        // Clients older than request ids open the error's stream first, and the data's at once after it.
        let first = if is_data { id.saturating_sub(2) } else { id };
        Ok(Self { request: request.map_or_else(|| first.to_string(), str::to_owned), port, is_data })
    }
}

/// A stream that waits for the other one of its pair.
struct Half {
    is_data: bool,
    stream: Stream,
    since: Instant,
}

/// Until the client leaves.
pub async fn forward(io: impl AsyncRead + AsyncWrite + Send, goal: Goal) {
    let (mut connection, driver) = spdy::connection(io, spdy::Role::Server);
    let (mut waiting, mut forwards) = (BTreeMap::<String, Half>::new(), FuturesUnordered::new());
    let mut driving = pin!(driver.run());
    loop {
        let incoming = tokio::select! {
            ended = &mut driving => {
                if let Err(error) = ended {
                    debug!(%error, "a port-forward ended");
                }
                return;
            }
            Some(()) = forwards.next() => continue,
            incoming = connection.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        let Purpose { request, port, is_data } = match Purpose::of(incoming.id, &incoming.headers) {
            Ok(purpose) => purpose,
            Err(error) => {
                debug!(error, "a stream is refused");
                continue;
            }
        };
        waiting.retain(|_, half| half.since.elapsed() < PAIRING);
        // The driver must go on for the answer to go out; the stream's task begins with it.
        let other = waiting.remove(&request).filter(|half| half.is_data != is_data);
        let accepted = tokio::select! {
            accepted = incoming.accept() => accepted,
            _ = &mut driving => return,
        };
        let Ok(stream) = accepted else { continue };
        match other {
            Some(Half { stream: other, .. }) if is_data => {
                forwards.push(forward_one(&goal, port, stream, other));
            }
            Some(Half { stream: other, .. }) => forwards.push(forward_one(&goal, port, other, stream)),
            None => {
                waiting.insert(request, Half { is_data, stream, since: Instant::now() });
            }
        }
    }
}

/// One connection, to its end. What went wrong is said on the error's stream, whose end the client waits for.
async fn forward_one(goal: &Goal, port: u16, data: Stream, error: Stream) {
    let (Stream { reader, writer: mut to_client }, Stream { writer: mut failure, .. }) = (data, error);
    let result = match goal.connect(port).await {
        Ok(stream) => splice(stream, reader, &mut to_client).await.map_err(|error| error.to_string()),
        Err(message) => Err(message),
    };
    if let Err(message) = result {
        // A client that has left needs no reason.
        let _ = failure.send(Bytes::from(goal.failure(port, &message))).await;
    }
    failure.finish().await;
    to_client.finish().await;
}

/// Both ways, until the pod closes or the client resets its stream.
async fn splice(mut stream: TcpStream, mut data: Reader, to_client: &mut Writer) -> io::Result<()> {
    let client_left = to_client.closed();
    let (mut from, mut to) = stream.split();
    let write = async {
        while let Some(data) = data.next().await {
            to.write_all(&data).await?;
        }
        to.shutdown().await
    };
    let read = async {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let length = from.read(&mut chunk).await?;
            if length == 0 || to_client.send(Bytes::copy_from_slice(&chunk[..length])).await.is_err() {
                return Ok(());
            }
        }
    };
    let result = tokio::select! {
        result = read => result,
        Err(error) = write => Err(error),
        () = client_left => Ok(()),
    };
    // kubectl ends the whole session on an error, and a server that hangs up is none.
    result.or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected => Ok(()),
        _ => Err(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn streams_say_what_they_are_for() {
        let check = |id, pairs: &[(&str, &str)], want: Result<(&str, u16, bool), &str>| {
            let got = Purpose::of(id, &Headers::new(pairs));
            let want =
                want.map(|(request, port, is_data)| Purpose { request: request.into(), port, is_data });
            assert_eq!(got, want.map_err(str::to_owned));
        };
        let (port, data, error) = (("port", "80"), ("streamType", "data"), ("streamType", "error"));
        check(5, &[port, data, ("requestID", "7")], Ok(("7", 80, true)));
        check(3, &[port, error], Ok(("3", 80, false)));
        check(5, &[port, data], Ok(("3", 80, true)));
        check(1, &[data], Err("\"port\" header is required"));
        check(1, &[("port", "0"), data], Err("port \"0\" must be > 0"));
        check(
            1,
            &[("port", "x"), data],
            Err("unable to parse \"x\" as a port: invalid digit found in string"),
        );
        check(1, &[port], Err("\"streamType\" header is required"));
        check(1, &[port, ("streamType", "x")], Err("invalid stream type \"x\""));
    }

    async fn text(reader: &mut Reader) -> String {
        let mut all = Vec::new();
        while let Some(part) = reader.next().await {
            all.extend_from_slice(&part);
        }
        String::from_utf8_lossy(&all).into_owned()
    }

    #[tokio::test]
    async fn an_open_port_answers_and_a_closed_one_says_why() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let open = listener.local_addr().expect("an address").port();
        let unused = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let closed = unused.local_addr().expect("an address").port();
        drop(unused);
        let goal =
            Goal { pod_name: "p".into(), pod_uid: "u".into(), netns: Some("/proc/self/ns/net".into()) };
        let (near, far) = tokio::io::duplex(1 << 10);
        let (mut client, driver) = spdy::connection(near, spdy::Role::Client);
        tokio::spawn(driver.run());
        let echo = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await.expect("read");
            stream.write_all(&[&said[..], b" pong"].concat()).await.expect("written");
        };
        let talk = async {
            let mut heard = Vec::new();
            for (port, request) in [(open, "0"), (closed, "1")] {
                let port = port.to_string();
                let headers =
                    |kind| Headers::new(&[("port", &port), ("streamType", kind), ("requestID", request)]);
                let mut error = client.open(headers("error")).await.expect("opened");
                error.writer.finish().await;
                let mut data = client.open(headers("data")).await.expect("opened");
                // The closed port may have answered already.
                let _ = data.writer.send(Bytes::from_static(b"ping")).await;
                data.writer.finish().await;
                heard.push((text(&mut data.reader).await, text(&mut error.reader).await));
            }
            drop(client);
            heard
        };
        let ((), (), heard) = tokio::join!(forward(far, goal), echo, talk);
        assert_eq!(heard[0], ("ping pong".into(), String::new()));
        let (data, error) = &heard[1];
        assert!(data.is_empty());
        assert!(error.starts_with(&format!("error forwarding port {closed} to pod p, uid u: ")), "{error}");
        assert!(error.contains("refused"), "{error}");
    }
}
