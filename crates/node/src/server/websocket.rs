//! Several streams in one WebSocket: the first byte of a message is its channel, the rest is data.
//! <https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/4006-transition-spdy-to-websockets>

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use super::channels::{BACKLOG, Outbox, Said};

/// Keeps what stands between client and node from taking a silent connection for a dead one.
const PING_PERIOD: Duration = Duration::from_secs(10);
/// How long a client may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// The channel by which v5 closes another: `[255, channel]`.
const CLOSE: u8 = 255;

/// A dialect of the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: &'static str,
    /// Text messages: the channel as a digit, the data in base64.
    is_base64: bool,
    /// The error channel carries a Status; without, only the text of a failure.
    pub has_status: bool,
    has_close: bool,
}

const fn protocol(name: &'static str, is_base64: bool, has_status: bool, has_close: bool) -> Protocol {
    Protocol { name, is_base64, has_status, has_close }
}

/// Those of exec and attach.
pub const REMOTE_COMMAND: [Protocol; 6] = [
    protocol("v5.channel.k8s.io", false, true, true),
    protocol("v4.channel.k8s.io", false, true, false),
    protocol("v4.base64.channel.k8s.io", true, true, false),
    protocol("channel.k8s.io", false, false, false),
    protocol("base64.channel.k8s.io", true, false, false),
    protocol("", false, false, false),
];

/// Those of port-forward.
pub const PORT_FORWARD: [Protocol; 3] = [
    protocol("v4.channel.k8s.io", false, true, false),
    protocol("v4.base64.channel.k8s.io", true, true, false),
    protocol("", false, true, false),
];

impl Protocol {
    pub fn encode(&self, channel: u8, data: &[u8]) -> Message {
        if self.is_base64 {
            return Message::text(format!("{}{}", char::from(b'0' + channel), STANDARD.encode(data)));
        }
        let mut bytes = BytesMut::with_capacity(data.len() + 1);
        bytes.extend_from_slice(&[channel]);
        bytes.extend_from_slice(data);
        Message::Binary(bytes.freeze())
    }

    /// None of what is no message of this protocol.
    pub fn decode(&self, message: Message) -> Option<Said> {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            _ => return None,
        };
        let first = *bytes.first()?;
        let data = bytes.slice(1..);
        if self.is_base64 {
            let channel = first.checked_sub(b'0').filter(|channel| *channel < 10)?;
            return Some(Said::Data { channel, data: STANDARD.decode(data).ok()?.into() });
        }
        if self.has_close && first == CLOSE {
            return match data[..] {
                [channel] => Some(Said::Closed { channel }),
                _ => None,
            };
        }
        Some(Said::Data { channel: first, data })
    }
}

/// As [`Carrier::converse`](super::channels::Carrier::converse).
pub async fn converse<S, W: Future>(
    socket: WebSocketStream<S>,
    protocol: Protocol,
    work: impl FnOnce(Outbox, mpsc::Receiver<Said>) -> W,
) -> Option<W::Output>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut source) = socket.split();
    let (to, outbox) = Outbox::new();
    let (said, heard) = mpsc::channel(BACKLOG);
    let work = work(to, heard);
    let done = tokio::select! {
        () = listen(&mut source, protocol, said) => None,
        // Sending ends when the work has ended and everything is sent, or fails and ends the work.
        spoken = async { tokio::try_join!(speak(&mut sink, protocol, outbox), async { Ok(work.await) }) } => {
            spoken.ok().map(|((), done)| done)
        }
    };
    if done.is_some() {
        // The client closes the connection; what it still says is of no interest.
        let goodbye = async { while let Some(Ok(_)) = source.next().await {} };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
    if let Ok(mut socket) = sink.reunite(source) {
        // An orderly end of TLS, if there is still somebody to tell.
        let _ = tokio::time::timeout(GOODBYE, socket.get_mut().shutdown()).await;
    }
    done
}

/// Until the client leaves.
async fn listen<S: AsyncRead + AsyncWrite + Unpin>(
    source: &mut SplitStream<WebSocketStream<S>>,
    protocol: Protocol,
    heard: mpsc::Sender<Said>,
) {
    while let Some(Ok(message)) = source.next().await {
        if matches!(message, Message::Close(_)) {
            return;
        }
        if let Some(said) = protocol.decode(message) {
            // Nobody may listen any more; the client's leaving is still to be seen.
            let _ = heard.send(said).await;
        }
    }
}

/// Sends what comes to the outbox, and a goodbye when it is closed.
async fn speak<S: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut SplitSink<WebSocketStream<S>, Message>,
    protocol: Protocol,
    mut outbox: mpsc::Receiver<(u8, Bytes)>,
) -> Result<(), tungstenite::Error> {
    let mut pings = tokio::time::interval(PING_PERIOD);
    loop {
        let message = tokio::select! {
            message = outbox.recv() => match message {
                Some((channel, data)) => protocol.encode(channel, &data),
                None => return sink.send(Message::Close(Some(goodbye()))).await,
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        sink.send(message).await?;
    }
}

/// With its code: clients take a goodbye without one for a failure.
fn goodbye() -> CloseFrame {
    CloseFrame { code: CloseCode::Normal, reason: "".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_of_their_protocol() {
        let [v5, v4, base64, ..] = REMOTE_COMMAND;
        let data = |channel, text: &'static str| {
            Some(Said::Data { channel, data: Bytes::from_static(text.as_bytes()) })
        };
        let check = |protocol: Protocol, message: Message, want: Option<Said>| {
            assert_eq!(protocol.decode(message.clone()), want, "{} {message:?}", protocol.name);
        };
        let binary = |bytes: &'static [u8]| Message::Binary(Bytes::from_static(bytes));
        check(v4, binary(b"\0ls\n"), data(0, "ls\n"));
        check(v4, Message::text("\u{1}out"), data(1, "out"));
        check(v4, binary(b"\0"), data(0, ""));
        check(v4, binary(b""), None);
        check(v4, Message::Ping(Bytes::new()), None);
        check(v4, binary(&[255, 0]), data(255, "\0"));
        check(v5, binary(&[255, 0]), Some(Said::Closed { channel: 0 }));
        check(v5, binary(&[255, 0, 1]), None);
        check(base64, Message::text("0bHMK"), data(0, "ls\n"));
        check(base64, Message::text("x"), None);
        check(base64, Message::text("0bH"), None);
        assert_eq!(v5.encode(1, b"hi"), binary(b"\x01hi"));
        assert_eq!(base64.encode(2, b"hi"), Message::text("2aGk="));
        for protocol in [v5, v4, base64] {
            assert_eq!(protocol.decode(protocol.encode(3, b"any")), data(3, "any"));
        }
    }
}
