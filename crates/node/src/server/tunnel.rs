//! A stream of bytes in the binary messages of a WebSocket: what kubectl's port-forward speaks SPDY through (KEP-4006).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

/// What is written at once goes into messages no longer than this.
const MESSAGE_BYTES: usize = 32 << 10;

pub struct Tunnel<S> {
    socket: WebSocketStream<S>,
    /// Of the message that is being read.
    rest: Bytes,
}

impl<S> Tunnel<S> {
    pub fn new(socket: WebSocketStream<S>) -> Self {
        Self { socket, rest: Bytes::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Text(_))) => {
                    let message = "a text message in a tunnel of bytes";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, message)));
                }
                None | Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(failed(error))),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(context)).map_err(failed)?;
        let bytes = &bytes[..bytes.len().min(MESSAGE_BYTES)];
        socket.start_send(Message::Binary(Bytes::copy_from_slice(bytes))).map_err(failed)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context).map_err(failed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(context).map_err(failed)
    }
}

fn failed(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            io::ErrorKind::ConnectionAborted.into()
        }
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{SinkExt, StreamExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_tungstenite::tungstenite::protocol::Role;

    #[tokio::test]
    async fn bytes_go_through_in_pieces_and_end() {
        let (near, far) = tokio::io::duplex(1 << 10);
        let (mut client, server) = tokio::join!(
            WebSocketStream::from_raw_socket(near, Role::Client, None),
            WebSocketStream::from_raw_socket(far, Role::Server, None)
        );
        let mut tunnel = Tunnel::new(server);
        let long: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let talk = async {
            client.send(Message::Binary(Bytes::from_static(b"one"))).await.expect("sent");
            client.send(Message::Binary(Bytes::new())).await.expect("sent");
            client.send(Message::Ping(Bytes::new())).await.expect("sent");
            client.send(Message::Binary(Bytes::from_static(b"two"))).await.expect("sent");
            let mut heard = Vec::new();
            while heard.len() < long.len() {
                if let Message::Binary(bytes) = client.next().await.expect("open").expect("a message") {
                    heard.extend_from_slice(&bytes);
                }
            }
            client.close(None).await.expect("closed");
            while client.next().await.is_some() {}
            heard
        };
        let serve = async {
            let mut six = [0; 6];
            tunnel.read_exact(&mut six).await.expect("read");
            tunnel.write_all(&long).await.expect("written");
            tunnel.flush().await.expect("flushed");
            assert_eq!(tunnel.read(&mut six).await.expect("an end"), 0);
            // The client's goodbye is answered, and it waits for the end of the connection.
            tunnel.shutdown().await.expect("an orderly end");
            drop(tunnel);
            six
        };
        let (heard, six) = tokio::join!(talk, serve);
        assert_eq!(&six, b"onetwo");
        assert!(heard == long);
    }
}
