//! A connection whose small writes go out together.
//!
//! HTTP/2 flushes after every frame, and a frame of 16 KiB with its head is nine bytes more than a TLS record: a long list would
//! be thousands of records and system calls, half of them for nine bytes. Here what one turn of the connection writes is gathered:
//!
//! ```text
//! the connection is polled ──► writes and flushes ──► buffer, passed on whenever it is full
//! the turn is over ──────────► the rest is passed on and flushed
//! ```
//!
//! Outside of such a turn (an upgraded connection belongs to others) nothing is held back.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As much as rustls takes at a time: four records.
const GATHER_BYTES: usize = 64 * 1024;

/// Both ends of it: what the connection writes to, and what ends its turns. The lock is never waited for.
pub(crate) struct Gathered<S>(Arc<Mutex<State<S>>>);

struct State<S> {
    stream: S,
    /// Written and not yet passed on, but for the first `passed` bytes.
    buffer: Vec<u8>,
    passed: usize,
    /// A turn of the connection: flushes wait for its end.
    is_turn: bool,
}

impl<S> Clone for Gathered<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gathered<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(State { stream, buffer: Vec::new(), passed: 0, is_turn: false })))
    }

    /// Runs the connection that writes to this, turn by turn, to its end.
    pub(crate) async fn run<E: From<io::Error>>(
        self,
        connection: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let mut connection = pin!(connection);
        poll_fn(|context| {
            self.lock().is_turn = true;
            let polled = connection.as_mut().poll(context);
            let mut state = self.lock();
            state.is_turn = false;
            // What cannot go out yet wakes the connection when it can; of one that has ended, whoever took it over passes it on.
            match (polled, state.flush(context)) {
                (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error.into())),
                (polled, _) => polled,
            }
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> State<S> {
    fn pass_on(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.passed < self.buffer.len() {
            let rest = &self.buffer[self.passed..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.passed += count,
            }
        }
        self.passed = 0;
        self.buffer.clear();
        // An idle connection holds no memory for what it may have to say: there are thousands.
        if self.buffer.capacity() > 0 && !self.is_turn {
            self.buffer = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    fn flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.pass_on(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if !state.is_turn && state.passed < state.buffer.len() {
            // Who waits for an answer must have asked: if it cannot go out now, its writability wakes the reader too.
            if let Poll::Ready(Err(error)) = state.flush(context) {
                return Poll::Ready(Err(error));
            }
        }
        Pin::new(&mut state.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if state.buffer.len() + total > GATHER_BYTES {
            ready!(state.pass_on(context))?;
        }
        if total > GATHER_BYTES || !state.is_turn {
            ready!(state.pass_on(context))?;
            return Pin::new(&mut state.stream).poll_write_vectored(context, slices);
        }
        slices.iter().for_each(|slice| state.buffer.extend_from_slice(slice));
        Poll::Ready(Ok(total))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        if state.is_turn { Poll::Ready(Ok(())) } else { state.flush(context) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        ready!(state.pass_on(context))?;
        Pin::new(&mut state.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Counts what reaches it.
    struct Counted {
        stream: tokio::io::DuplexStream,
        writes: Arc<Mutex<Vec<usize>>>,
    }

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
            self.writes.lock().expect("the list").push(count);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(context)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(context)
        }
    }

    /// What the far end gets of a connection that writes pieces of this size, flushing each, then asks and waits for an answer;
    /// and the sizes in which it went out.
    async fn check(piece: usize, count: usize, pipe: usize) -> Vec<usize> {
        let (near, mut far) = tokio::io::duplex(pipe);
        let writes = Arc::default();
        let gathered = Gathered::new(Counted { stream: near, writes: Arc::clone(&writes) });
        let mut stream = gathered.clone();
        let connection = async move {
            for number in 0..count {
                stream.write_all(&vec![number as u8; piece]).await?;
                stream.flush().await?;
            }
            // Nobody answers what was not sent.
            stream.read_exact(&mut [0]).await?;
            stream.write_all(b"end").await?;
            stream.shutdown().await
        };
        let reader = async move {
            let mut got = vec![0; piece * count];
            far.read_exact(&mut got).await?;
            far.write_all(b"!").await?;
            let mut rest = Vec::new();
            far.read_to_end(&mut rest).await?;
            Ok::<_, io::Error>((got, rest))
        };
        let (ran, read) = tokio::join!(gathered.run::<io::Error>(connection), reader);
        ran.expect("it ends in order");
        let (got, rest) = read.expect("it is read");
        let expected: Vec<u8> = (0..count).flat_map(|number| vec![number as u8; piece]).collect();
        assert!(got == expected, "in order and whole");
        assert_eq!(rest, b"end");
        writes.lock().expect("the list").clone()
    }

    #[tokio::test]
    async fn what_one_turn_writes_goes_out_together() {
        assert_eq!(check(10, 20, 1 << 20).await, [200, 3]);
        assert_eq!(check(16_393, 6, 1 << 20).await, [3 * 16_393, 3 * 16_393, 3]);
        assert_eq!(check(100_000, 2, 1 << 20).await, [100_000, 100_000, 3], "what is large is not copied");
    }

    #[tokio::test]
    async fn a_slow_reader_gets_all_of_it() {
        for piece in [1, 1_000, 16_393, 70_000] {
            check(piece, 30, 512).await;
        }
    }

    #[tokio::test]
    async fn nothing_is_held_back_outside_of_a_turn() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = Gathered::new(near);
        stream.write_all(b"now").await.expect("written");
        let mut got = [0; 3];
        far.read_exact(&mut got).await.expect("read");
        assert_eq!(&got, b"now");
    }
}
