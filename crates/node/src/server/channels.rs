//! A conversation over numbered channels, whatever carries it: one WebSocket with them all, or a SPDY stream for each.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;

use super::spdy_streams::Streams;
use super::websocket::{self, Protocol};

/// Messages that wait for a slow side.
pub const BACKLOG: usize = 8;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Data {
        channel: u8,
        data: Bytes,
    },
    /// There will be no more data on the channel.
    Closed {
        channel: u8,
    },
}

/// Where messages to the client go; waits while the client is slow.
#[derive(Clone)]
pub struct Outbox(mpsc::Sender<(u8, Bytes)>);

impl Outbox {
    pub fn new() -> (Self, mpsc::Receiver<(u8, Bytes)>) {
        let (messages, outbox) = mpsc::channel(BACKLOG);
        (Self(messages), outbox)
    }

    /// False: the client has left.
    pub async fn send(&self, channel: u8, data: &[u8]) -> bool {
        self.0.send((channel, Bytes::copy_from_slice(data))).await.is_ok()
    }
}

/// What a conversation goes over.
pub enum Carrier<S> {
    WebSocket(WebSocketStream<S>, Protocol),
    Spdy(Streams),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Carrier<S> {
    /// Whether the error channel carries a Status; without, only the text of a failure.
    pub fn has_status(&self) -> bool {
        match self {
            Self::WebSocket(_, protocol) => protocol.has_status,
            Self::Spdy(streams) => streams.has_status,
        }
    }

    /// Runs a conversation: the work gets what the client says, and what it gives to the outbox is sent. Says goodbye
    /// when the work is done.
    ///
    /// Returns the work's result, or None when the client left before; the work is dropped then.
    pub async fn converse<W: Future>(
        self,
        work: impl FnOnce(Outbox, mpsc::Receiver<Said>) -> W,
    ) -> Option<W::Output> {
        match self {
            Self::WebSocket(socket, protocol) => websocket::converse(socket, protocol, work).await,
            Self::Spdy(streams) => streams.converse(work).await,
        }
    }
}
