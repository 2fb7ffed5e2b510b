//! `exec` and `attach`: a process's streams on the channels of a conversation.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use plan::node::{ContainerState, RuntimeEvent};
use runtime::{ExecRequest, Resizer, Runtime, RuntimeError, Streams, Writer};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, watch};
use tracing::debug;

use super::Server;
use super::channels::{Carrier, Outbox, Said};
use super::query::Query;
use super::reply::{Refusal, Reply, refuse};
use super::target::Target;
use super::upgrade::{self, Agreed, Offer, Upgrading};
use super::{spdy_streams, websocket};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

const CHUNK_BYTES: usize = 32 << 10;
/// Input that waits for a process that does not read.
const INPUT_BACKLOG: usize = 8;
/// A command may leave others behind that hold its streams open: once it has ended, its streams have when nothing came
/// for so long.
const LINGER: Duration = Duration::from_millis(200);

/// Which streams the client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Options {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Options {
    /// By the kubelet's names, or the API's.
    fn of(query: &Query) -> Result<Self, Refusal> {
        let is_set = |kubelet: &str, api: &str| query.is_set(kubelet) || query.is_set(api);
        let tty = query.is_set("tty");
        let options = Self {
            stdin: is_set("input", "stdin"),
            stdout: is_set("output", "stdout"),
            // A terminal has one output.
            stderr: is_set("error", "stderr") && !tty,
            tty,
        };
        if !(options.stdin || options.stdout || options.stderr) {
            return Err(refuse(
                StatusCode::BAD_REQUEST,
                "you must specify at least 1 of stdin, stdout, stderr",
            ));
        }
        Ok(options)
    }
}

pub fn exec(
    server: &Arc<Server>,
    target: Target<'_>,
    query: &Query,
    mut request: Request<Incoming>,
    permit: Arc<OwnedSemaphorePermit>,
) -> Result<Response<Reply>, Refusal> {
    let options = Options::of(query)?;
    let container = server.running(target)?;
    let (response, upgrading, agreed) = accept(&mut request)?;
    let Options { stdin, stdout, stderr, tty } = options;
    let command = query.all("command").map(str::to_owned).collect();
    let wanted = ExecRequest { command, tty, stdin, stdout, stderr };
    let runtime = server.tools.runtime.clone();
    tokio::spawn(async move {
        let Some(carrier) = carrier(upgrading, agreed, options).await else { return };
        run_exec(carrier, options, &runtime, &container.id, wanted).await;
        drop(permit);
    });
    Ok(response)
}

pub fn attach(
    server: &Arc<Server>,
    target: Target<'_>,
    query: &Query,
    mut request: Request<Incoming>,
    permit: Arc<OwnedSemaphorePermit>,
) -> Result<Response<Reply>, Refusal> {
    let options = Options::of(query)?;
    let container = server.running(target)?;
    let (response, upgrading, agreed) = accept(&mut request)?;
    let runtime = server.tools.runtime.clone();
    tokio::spawn(async move {
        let Some(carrier) = carrier(upgrading, agreed, options).await else { return };
        run_attach(carrier, options, &runtime, &container.id).await;
        drop(permit);
    });
    Ok(response)
}

fn accept(request: &mut Request<Incoming>) -> Result<(Response<Reply>, Upgrading, Agreed), Refusal> {
    let offer = Offer {
        websocket: &websocket::REMOTE_COMMAND.map(|one| one.name),
        spdy: &spdy_streams::REMOTE_COMMAND.map(|one| one.name),
    };
    upgrade::accept(request, offer)
}

/// What the streams go over. None: the client has left, or did not open the streams that it asked for.
async fn carrier(
    upgrading: Upgrading,
    agreed: Agreed,
    options: Options,
) -> Option<Carrier<TokioIo<Upgraded>>> {
    match agreed {
        Agreed::WebSocket(name) => {
            let protocol = websocket::REMOTE_COMMAND.into_iter().find(|one| one.name == name)?;
            Some(Carrier::WebSocket(upgrading.socket().await?, protocol))
        }
        Agreed::Spdy(name) => {
            let protocol = spdy_streams::REMOTE_COMMAND.into_iter().find(|one| one.name == name)?;
            let Options { stdin, stdout, stderr, tty } = options;
            let wanted = [stdin, stdout, stderr, true, tty];
            let streams = spdy_streams::Streams::gather(upgrading.bytes().await?, protocol, wanted).await;
            if streams.is_none() {
                debug!("a client did not open the streams of its command");
            }
            Some(Carrier::Spdy(streams?))
        }
    }
}

async fn run_exec<S: AsyncRead + AsyncWrite + Unpin>(
    carrier: Carrier<S>,
    options: Options,
    runtime: &Runtime,
    container_id: &str,
    request: ExecRequest,
) {
    let mut exec = match runtime.exec_stream(container_id, request).await {
        Ok(exec) => exec,
        Err(error) => {
            return fail(carrier, &format!("error executing command in container: {error}")).await;
        }
    };
    let streams = Streams {
        stdin: exec.streams.stdin.take(),
        stdout: exec.streams.stdout.take(),
        stderr: exec.streams.stderr.take(),
        resizer: exec.streams.resizer.take(),
    };
    if relay(carrier, options, streams, async { exit_status(exec.wait().await) }).await {
        return;
    }
    // Nobody is there for whom it could go on.
    if let Err(error) = exec.kill().await {
        debug!(container = container_id, %error, "a command without a client could not be ended");
    }
}

async fn run_attach<S: AsyncRead + AsyncWrite + Unpin>(
    carrier: Carrier<S>,
    options: Options,
    runtime: &Runtime,
    container_id: &str,
) {
    let events = runtime.events();
    let Options { stdin, stdout, stderr, .. } = options;
    let attached = match runtime.attach_stream(container_id, stdin, stdout, stderr).await {
        Ok(attached) => attached,
        Err(error) => return fail(carrier, &format!("error attaching to container: {error}")).await,
    };
    let end = async {
        exited(runtime, events, container_id).await;
        success()
    };
    relay(carrier, options, attached.streams, end).await;
}

/// Until a container runs no more. `events` are from before it was seen running.
async fn exited(runtime: &Runtime, mut events: broadcast::Receiver<RuntimeEvent>, id: &str) {
    while runtime.container(id).is_ok_and(|container| container.status.state == ContainerState::Running) {
        loop {
            match events.recv().await {
                Ok(RuntimeEvent::ContainerChanged { container_id, .. }) if container_id == id => break,
                Ok(RuntimeEvent::SandboxLost { .. }) | Err(broadcast::error::RecvError::Lagged(_)) => break,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}

/// Passes everything on between client and process, and at the `end` its status. Whether the client saw the end.
async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
    carrier: Carrier<S>,
    options: Options,
    streams: Streams,
    end: impl Future<Output = Value>,
) -> bool {
    let Streams { stdin, stdout, stderr, resizer } = streams;
    let has_status = carrier.has_status();
    let work = |outbox: Outbox, heard: mpsc::Receiver<Said>| async move {
        // Upstream's sign that all is set up, on the first stream that the client reads.
        let first = if options.stdout {
            STDOUT
        } else if options.stderr {
            STDERR
        } else {
            ERROR
        };
        outbox.send(first, &[]).await;
        let (ended, has_ended) = watch::channel(false);
        let outputs = async {
            tokio::join!(
                pump(stdout, STDOUT, &outbox, has_ended.clone()),
                pump(stderr, STDERR, &outbox, has_ended.clone())
            )
        };
        let (keys, typed) = mpsc::channel(INPUT_BACKLOG);
        let inputs = async { tokio::join!(hear(heard, keys, resizer), type_in(stdin, typed)) };
        let (mut end, mut outputs, mut inputs) = (pin!(end), pin!(outputs), pin!(inputs));
        let (mut is_drained, mut is_typed) = (false, false);
        let status = loop {
            tokio::select! {
                status = &mut end => break status,
                _ = &mut outputs, if !is_drained => is_drained = true,
                _ = &mut inputs, if !is_typed => is_typed = true,
            }
        };
        ended.send_replace(true);
        if !is_drained {
            outputs.await;
        }
        tell_status(&outbox, has_status, &status).await;
    };
    carrier.converse(work).await.is_some()
}

/// Hands on what the client types, and sizes the terminal as its window is.
async fn hear(mut heard: mpsc::Receiver<Said>, keys: mpsc::Sender<Bytes>, resizer: Option<Resizer>) {
    let mut keys = Some(keys);
    while let Some(said) = heard.recv().await {
        match said {
            Said::Data { channel: STDIN, data } => {
                if let Some(to) = &keys
                    && to.send(data).await.is_err()
                {
                    keys = None;
                }
            }
            Said::Data { channel: RESIZE, data } => resize(resizer.as_ref(), &data).await,
            Said::Closed { channel: STDIN } => keys = None,
            Said::Data { .. } | Said::Closed { .. } => {}
        }
    }
}

/// What a process writes, to the client. Until it ends or the client leaves.
async fn pump(
    from: Option<impl AsyncRead + Unpin>,
    channel: u8,
    to: &Outbox,
    mut ended: watch::Receiver<bool>,
) {
    let Some(mut from) = from else { return };
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let lingered = async {
            // The sender is there until the streams have ended.
            let _ = ended.wait_for(|ended| *ended).await;
            tokio::time::sleep(LINGER).await;
        };
        let read = tokio::select! {
            biased;
            read = from.read(&mut chunk) => read,
            () = lingered => return,
        };
        match read {
            Ok(length) if length > 0 => {
                if !to.send(channel, &chunk[..length]).await {
                    return;
                }
            }
            _ => return,
        }
    }
}

/// What the client types, to the process. A process that reads no more loses it.
async fn type_in(stdin: Option<Writer>, mut keys: mpsc::Receiver<Bytes>) {
    let Some(mut stdin) = stdin else {
        while keys.recv().await.is_some() {}
        return;
    };
    while let Some(data) = keys.recv().await {
        if stdin.write_all(&data).await.is_err() {
            return;
        }
    }
    // Dropped then, which closes it.
    let _ = stdin.shutdown().await;
}

async fn resize(resizer: Option<&Resizer>, data: &[u8]) {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Size {
        width: u16,
        height: u16,
    }
    let (Some(resizer), Ok(Size { width, height })) = (resizer, serde_json::from_slice(data)) else { return };
    if let Err(error) = resizer.resize(width, height).await {
        debug!(%error, "a terminal could not be resized");
    }
}

/// Tells a failure that came after the upgrade.
async fn fail<S: AsyncRead + AsyncWrite + Unpin>(carrier: Carrier<S>, message: &str) {
    let (status, has_status) = (internal_error(message), carrier.has_status());
    let work = |outbox: Outbox, _| async move { tell_status(&outbox, has_status, &status).await };
    carrier.converse(work).await;
}

async fn tell_status(outbox: &Outbox, has_status: bool, status: &Value) {
    if has_status {
        outbox.send(ERROR, status.to_string().as_bytes()).await;
    } else if let Some(message) = status["message"].as_str() {
        outbox.send(ERROR, message.as_bytes()).await;
    }
}

fn success() -> Value {
    json!({"metadata": {}, "status": "Success"})
}

fn exit_status(result: Result<i32, RuntimeError>) -> Value {
    match result {
        Ok(0) => success(),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure",
            "message": format!("command terminated with exit code {code}"), "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => internal_error(&format!("error executing command in container: {error}")),
    }
}

fn internal_error(message: &str) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "message": format!("Internal error occurred: {message}"),
        "reason": "InternalError", "details": {"causes": [{"message": message}]}, "code": 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{SinkExt, StreamExt};
    use tokio::io::DuplexStream;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

    const ALL: Options = Options { stdin: true, stdout: true, stderr: true, tty: false };

    async fn sockets() -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (client, server) = tokio::io::duplex(1 << 10);
        tokio::join!(
            WebSocketStream::from_raw_socket(client, Role::Client, None),
            WebSocketStream::from_raw_socket(server, Role::Server, None)
        )
    }

    /// A process that prints what it is given, and something else to stderr.
    fn cat() -> (Streams, tokio::task::JoinHandle<()>) {
        let (stdin, mut given) = tokio::io::duplex(64);
        let (mut out, stdout) = tokio::io::duplex(64);
        let (mut err, stderr) = tokio::io::duplex(64);
        let process = tokio::spawn(async move {
            // Readers may have left.
            let _ = err.write_all(b"cat runs").await;
            let _ = tokio::io::copy(&mut given, &mut out).await;
        });
        let streams = Streams {
            stdin: Some(Box::new(stdin)),
            stdout: Some(Box::new(stdout)),
            stderr: Some(Box::new(stderr)),
            resizer: None,
        };
        (streams, process)
    }

    /// What came on each channel until the server closed, and whether there was a goodbye.
    async fn hear_all(
        client: &mut WebSocketStream<DuplexStream>,
        protocol: websocket::Protocol,
    ) -> ([Vec<u8>; 4], bool) {
        let mut heard: [Vec<u8>; 4] = Default::default();
        let mut goodbye = false;
        while let Some(Ok(message)) = client.next().await {
            goodbye |= matches!(&message, Message::Close(Some(frame)) if frame.code == CloseCode::Normal);
            if let Some(Said::Data { channel, data }) = protocol.decode(message) {
                heard[usize::from(channel)].extend_from_slice(&data);
            }
        }
        (heard, goodbye)
    }

    #[tokio::test]
    async fn a_process_is_fed_and_heard_to_its_end() {
        let v5 = websocket::REMOTE_COMMAND[0];
        let (mut client, server) = sockets().await;
        let (streams, process) = cat();
        let end = async {
            process.await.expect("it ends");
            exit_status(Ok(2))
        };
        let input = "a line that is longer than the pipe of the process, twice\n".repeat(2);
        let talk = async {
            client.send(v5.encode(STDIN, input.as_bytes())).await.expect("sent");
            client.send(Message::Binary(Bytes::from_static(&[255, STDIN]))).await.expect("sent");
            hear_all(&mut client, v5).await
        };
        let (saw_end, (heard, goodbye)) =
            tokio::join!(relay(Carrier::WebSocket(server, v5), ALL, streams, end), talk);
        assert!(saw_end && goodbye);
        assert_eq!(String::from_utf8_lossy(&heard[usize::from(STDOUT)]), input);
        assert_eq!(heard[usize::from(STDERR)], b"cat runs");
        let status: Value = serde_json::from_slice(&heard[usize::from(ERROR)]).expect("a status");
        let want = json!({
            "metadata": {}, "status": "Failure", "message": "command terminated with exit code 2",
            "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": "2"}]},
        });
        assert_eq!(status, want);
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_it() {
        let v4 = websocket::REMOTE_COMMAND[1];
        let (client, server) = sockets().await;
        let (streams, process) = cat();
        drop(client);
        assert!(!relay(Carrier::WebSocket(server, v4), ALL, streams, std::future::pending()).await);
        process.await.expect("its input was closed");
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_does_not_keep_the_client() {
        let v4 = websocket::REMOTE_COMMAND[1];
        let (mut client, server) = sockets().await;
        let (stdout, _held_by_a_daemon) = tokio::io::duplex(64);
        let streams = Streams { stdin: None, stdout: Some(Box::new(stdout)), stderr: None, resizer: None };
        let relayed = relay(Carrier::WebSocket(server, v4), ALL, streams, async { success() });
        let (saw_end, (heard, goodbye)) = tokio::join!(relayed, hear_all(&mut client, v4));
        assert!(saw_end && goodbye);
        assert_eq!(heard[usize::from(ERROR)], br#"{"metadata":{},"status":"Success"}"#);
    }

    /// A client as kubectl up to 1.30 is one.
    #[tokio::test]
    async fn a_process_is_fed_and_heard_over_spdy() {
        let (near, far) = tokio::io::duplex(1 << 10);
        let (mut client, driver) = spdy::connection(near, spdy::Role::Client);
        tokio::spawn(driver.run());
        let (streams, process) = cat();
        let end = async {
            process.await.expect("it ends");
            exit_status(Ok(0))
        };
        let [v4, ..] = spdy_streams::REMOTE_COMMAND;
        let serve = async {
            let wanted = [true, true, true, true, false];
            let streams_of_client = spdy_streams::Streams::gather(far, v4, wanted).await.expect("streams");
            relay(Carrier::<DuplexStream>::Spdy(streams_of_client), ALL, streams, end).await
        };
        let talk = async {
            let mut opened = Vec::new();
            for name in ["error", "stdin", "stdout", "stderr"] {
                let headers = spdy::Headers::new(&[("streamType", name)]);
                opened.push(client.open(headers).await.expect("opened"));
            }
            opened[1].writer.send(Bytes::from_static(b"typed")).await.expect("sent");
            opened[1].writer.finish().await;
            let mut heard = Vec::new();
            for stream in &mut opened {
                let mut all = Vec::new();
                while let Some(part) = stream.reader.next().await {
                    all.extend_from_slice(&part);
                }
                heard.push(String::from_utf8_lossy(&all).into_owned());
            }
            drop((client, opened));
            heard
        };
        let (saw_end, heard) = tokio::join!(serve, talk);
        assert!(saw_end);
        assert_eq!(heard, [r#"{"metadata":{},"status":"Success"}"#, "", "typed", "cat runs"]);
    }

    #[test]
    fn options_go_by_both_names() {
        let check = |query: &str, want: Option<[bool; 4]>| {
            let got = Options::of(&Query::parse(query)).ok();
            assert_eq!(got.map(|one| [one.stdin, one.stdout, one.stderr, one.tty]), want, "{query}");
        };
        check("input=1&output=1&error=1", Some([true, true, true, false]));
        check("stdin=true&stdout=true&tty=true&stderr=true", Some([true, true, false, true]));
        check("output=1&input=0", Some([false, true, false, false]));
        check("command=ls", None);
        check("stdin=false", None);
    }
}
