//! Streams over one connection: whoever holds a [`Connection`] takes and opens them, a [`Driver`] moves their bytes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};

use crate::frame::{Decoder, Encoder, Frame, FrameError};
use crate::headers::Headers;

/// Streams at one time; one more is refused.
const STREAM_LIMIT: usize = 1_024;
/// Streams that the other side has opened and nobody has taken yet.
const ACCEPT_BACKLOG: usize = 16;
/// Parts of data that wait for a stream's reader.
const INBOX_PARTS: usize = 8;
/// Frames that wait to be written, those of all streams.
const OUTBOX_FRAMES: usize = 16;
/// How long the other side may take to hear why a connection ends.
const GOODBYE: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 32 << 10;
/// Of one data frame.
const DATA_BYTES: usize = 32 << 10;

const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 3;
const CANCEL: u32 = 5;

/// The side of a connection: a client's streams and pings have odd numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// The stream or its connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is closed")]
pub struct Closed;

/// Begins one side of a connection over `io`. Nothing moves before the driver runs; it ends by itself once the connection
/// and everything that came of it are dropped.
pub fn connection<S: AsyncRead + AsyncWrite + Send>(io: S, role: Role) -> (Connection, Driver<S>) {
    let (opened, incoming) = mpsc::channel(ACCEPT_BACKLOG);
    let (outbox, to_write) = mpsc::channel(OUTBOX_FRAMES);
    let (replies, own) = mpsc::channel(OUTBOX_FRAMES);
    let (resets, resetting) = mpsc::unbounded_channel();
    let table = Arc::new(Table::default());
    let (from, to) = tokio::io::split(io);
    let reading = Reading { from, role, opened, replies, last_opened: 0 };
    let writing = Writing { to, to_write, own, resetting, unwritten: BytesMut::new() };
    let handle = Handle { table: table.clone(), outbox, resets };
    let next_id = if role == Role::Client { 1 } else { 2 };
    let driver = Driver { reading, writing, handle: handle.weak(), ending: Ending(table) };
    (Connection { incoming, handle, next_id }, driver)
}

/// The streams of a connection, as the application sees them.
pub struct Connection {
    incoming: mpsc::Receiver<Incoming>,
    handle: Handle,
    next_id: u32,
}

impl Connection {
    /// The next stream that the other side opens. None: the connection has ended.
    pub async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Opens a stream, without waiting for an answer to it.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn open(&mut self, headers: Headers) -> Result<Stream, Closed> {
        let id = self.next_id;
        self.next_id += 2;
        let (reader, closed) = self.handle.table.add(id).ok_or(Closed)?;
        let frame = Frame::SynStream { stream: id, fin: false, unidirectional: false, headers };
        self.handle.outbox.send(frame).await.map_err(|_| Closed)?;
        Ok(Stream { reader, writer: Writer { id, handle: self.handle.clone(), closed, is_finished: false } })
    }
}

/// A stream that the other side has opened. Refused when dropped.
pub struct Incoming {
    pub id: u32,
    pub headers: Headers,
    stream: Option<Stream>,
}

impl Incoming {
    /// Answers that the stream is there.
    ///
    /// # Errors
    /// When the stream or its connection is gone.
    pub async fn accept(mut self) -> Result<Stream, Closed> {
        let stream = self.stream.take().ok_or(Closed)?;
        let reply = Frame::SynReply { stream: self.id, fin: false, headers: Headers::default() };
        stream.writer.handle.outbox.send(reply).await.map_err(|_| Closed)?;
        Ok(stream)
    }
}

/// Both directions of a stream.
pub struct Stream {
    pub reader: Reader,
    pub writer: Writer,
}

/// What the other side sends.
pub struct Reader(mpsc::Receiver<Bytes>);

impl Reader {
    /// The next bytes, never empty. None: there will be no more, be it that the other side has finished, or is gone.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

/// What is sent to the other side. Dropped before [`finish`](Self::finish), it resets the stream.
pub struct Writer {
    id: u32,
    handle: Handle,
    /// Never changes; its sender goes with the stream.
    closed: watch::Receiver<()>,
    is_finished: bool,
}

impl Writer {
    /// Waits while the other side is slow.
    ///
    /// # Errors
    /// When the other side has reset the stream, or is gone.
    pub async fn send(&mut self, mut data: Bytes) -> Result<(), Closed> {
        while !data.is_empty() {
            let data = data.split_to(data.len().min(DATA_BYTES));
            self.put(Frame::Data { stream: self.id, fin: false, data }).await?;
        }
        Ok(())
    }

    /// Nothing more comes; the other direction stays open.
    pub async fn finish(&mut self) {
        if self.is_finished {
            return;
        }
        // A stream that is gone is finished, too.
        let _ = self.put(Frame::Data { stream: self.id, fin: true, data: Bytes::new() }).await;
        self.is_finished = true;
        self.handle.table.close_own_side(self.id);
    }

    /// Returns when the stream is gone: reset by the other side, finished by both, or with its connection.
    pub fn closed(&self) -> impl Future<Output = ()> + use<> {
        let mut closed = self.closed.clone();
        async move { while closed.changed().await.is_ok() {} }
    }

    async fn put(&mut self, frame: Frame) -> Result<(), Closed> {
        if self.is_finished || self.closed.has_changed().is_err() {
            return Err(Closed);
        }
        self.handle.outbox.send(frame).await.map_err(|_| Closed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_finished && self.handle.table.remove(self.id) {
            // The driver may be gone, and the stream with it.
            let _ = self.handle.resets.send(Frame::RstStream { stream: self.id, status: CANCEL });
        }
    }
}

/// What streams reach the driver by.
#[derive(Clone)]
struct Handle {
    table: Arc<Table>,
    outbox: mpsc::Sender<Frame>,
    /// One a stream at most, and a stream's answer has passed the outbox before.
    resets: mpsc::UnboundedSender<Frame>,
}

impl Handle {
    fn weak(&self) -> WeakHandle {
        WeakHandle {
            table: self.table.clone(),
            outbox: self.outbox.downgrade(),
            resets: self.resets.downgrade(),
        }
    }
}

/// The driver's: it does not keep itself alive.
struct WeakHandle {
    table: Arc<Table>,
    outbox: mpsc::WeakSender<Frame>,
    resets: mpsc::WeakUnboundedSender<Frame>,
}

impl WeakHandle {
    fn upgrade(&self) -> Option<Handle> {
        Some(Handle {
            table: self.table.clone(),
            outbox: self.outbox.upgrade()?,
            resets: self.resets.upgrade()?,
        })
    }
}

/// The open streams by their numbers; none once the connection has ended.
struct Table(Mutex<Option<BTreeMap<u32, Entry>>>);

struct Entry {
    /// None: the other side has finished.
    inbox: Option<mpsc::Sender<Bytes>>,
    own_side_is_open: bool,
    /// Only held: its end tells the writer that the stream is gone.
    _closed: watch::Sender<()>,
}

impl Default for Table {
    fn default() -> Self {
        Self(Mutex::new(Some(BTreeMap::new())))
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<u32, Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None if there are too many, or the connection has ended.
    fn add(&self, id: u32) -> Option<(Reader, watch::Receiver<()>)> {
        let mut table = self.lock();
        let streams = table.as_mut().filter(|streams| streams.len() < STREAM_LIMIT)?;
        let (inbox, parts) = mpsc::channel(INBOX_PARTS);
        let (closing, closed) = watch::channel(());
        streams.insert(id, Entry { inbox: Some(inbox), own_side_is_open: true, _closed: closing });
        Some((Reader(parts), closed))
    }

    /// Whether it was there.
    fn remove(&self, id: u32) -> bool {
        self.lock().as_mut().is_some_and(|streams| streams.remove(&id).is_some())
    }

    fn inbox(&self, id: u32) -> Option<mpsc::Sender<Bytes>> {
        self.lock().as_ref()?.get(&id)?.inbox.clone()
    }

    fn close_own_side(&self, id: u32) {
        self.close(id, |entry| entry.own_side_is_open = false);
    }

    fn close_other_side(&self, id: u32) {
        self.close(id, |entry| entry.inbox = None);
    }

    fn close(&self, id: u32, side: impl FnOnce(&mut Entry)) {
        let mut table = self.lock();
        let Some(streams) = table.as_mut() else { return };
        let Some(entry) = streams.get_mut(&id) else { return };
        side(entry);
        if entry.inbox.is_none() && !entry.own_side_is_open {
            streams.remove(&id);
        }
    }
}

/// Ends all streams when it is dropped.
struct Ending(Arc<Table>);

impl Drop for Ending {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

/// Reads and writes frames until the other side leaves, or nobody here needs the connection any more.
pub struct Driver<S> {
    reading: Reading<S>,
    writing: Writing<S>,
    handle: WeakHandle,
    ending: Ending,
}

struct Reading<S> {
    from: ReadHalf<S>,
    role: Role,
    opened: mpsc::Sender<Incoming>,
    /// What reading itself has to say: bounded, so that who sends much and reads nothing is not read any more.
    replies: mpsc::Sender<Frame>,
    last_opened: u32,
}

struct Writing<S> {
    to: WriteHalf<S>,
    to_write: mpsc::Receiver<Frame>,
    own: mpsc::Receiver<Frame>,
    resetting: mpsc::UnboundedReceiver<Frame>,
    /// Of the frame that is being written.
    unwritten: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Send> Driver<S> {
    /// # Errors
    /// When the connection fails, or the other side does not speak SPDY/3 (`InvalidData`).
    pub async fn run(self) -> io::Result<()> {
        let Self { mut reading, mut writing, handle, ending } = self;
        let mut encoder = Encoder::new().map_err(invalid)?;
        let result = tokio::select! {
            result = reading.run(&handle) => result,
            result = writing.run(&mut encoder) => result,
        };
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidData) {
            // It is told why, if it listens.
            let _ = tokio::time::timeout(GOODBYE, writing.last_words(&mut encoder)).await;
        }
        // After this line nobody finds a stream open.
        drop(ending);
        // What stands in the other side's way of seeing the end is its own affair.
        let _ = writing.to.shutdown().await;
        result
    }
}

impl<S: AsyncRead> Reading<S> {
    async fn run(&mut self, handle: &WeakHandle) -> io::Result<()> {
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        loop {
            while let Some(frame) = decoder.next(&mut buffer).map_err(invalid)? {
                self.take(frame, handle).await?;
            }
            buffer.reserve(READ_BYTES);
            if self.from.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn take(&mut self, frame: Frame, handle: &WeakHandle) -> io::Result<()> {
        let table = &handle.table;
        match frame {
            Frame::SynStream { stream, fin, unidirectional, headers } => {
                self.open(stream, fin, unidirectional, headers, handle).await?;
            }
            Frame::Data { stream, fin, data } => {
                // Of a stream that is gone here the rest is still on its way.
                if !data.is_empty()
                    && let Some(inbox) = table.inbox(stream)
                {
                    // A reader that was dropped wants no more.
                    let _ = inbox.send(data).await;
                }
                if fin {
                    table.close_other_side(stream);
                }
            }
            Frame::SynReply { stream, fin: true, .. } | Frame::Headers { stream, fin: true, .. } => {
                table.close_other_side(stream);
            }
            Frame::RstStream { stream, .. } => {
                table.remove(stream);
            }
            // Those of our own are answers, and we ask nothing.
            Frame::Ping { id } if (id % 2 == 1) == (self.role == Role::Server) => {
                self.reply(Frame::Ping { id }).await;
            }
            // It opens no more streams; those that are open go on until it closes the connection.
            Frame::GoAway { .. } => {}
            Frame::Ping { .. } | Frame::SynReply { .. } | Frame::Headers { .. } => {}
        }
        Ok(())
    }

    async fn open(
        &mut self,
        id: u32,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
        handle: &WeakHandle,
    ) -> io::Result<()> {
        let is_of_a_client = id % 2 == 1;
        if id <= self.last_opened || is_of_a_client != (self.role == Role::Server) {
            self.reply(Frame::GoAway { last_stream: self.last_opened, status: PROTOCOL_ERROR }).await;
            return Err(invalid(FrameError::Malformed("a stream's number that is not the next")));
        }
        self.last_opened = id;
        // Without a handle nobody is left who would take it.
        let added = handle.upgrade().and_then(|handle| Some((handle.table.add(id)?, handle)));
        let Some(((reader, closed), handle)) = added else {
            self.reply(Frame::RstStream { stream: id, status: REFUSED_STREAM }).await;
            return Ok(());
        };
        let table = handle.table.clone();
        if fin {
            table.close_other_side(id);
        }
        let writer = Writer { id, handle, closed, is_finished: unidirectional };
        if unidirectional {
            table.close_own_side(id);
        }
        let stream = Some(Stream { reader, writer });
        // Refused as it is dropped, if nobody accepts any more.
        let _ = self.opened.send(Incoming { id, headers, stream }).await;
        Ok(())
    }

    async fn reply(&mut self, frame: Frame) {
        // Writing has ended: so will this.
        let _ = self.replies.send(frame).await;
    }
}

impl<S: AsyncWrite> Writing<S> {
    /// Until nobody has anything to say any more.
    async fn run(&mut self, encoder: &mut Encoder) -> io::Result<()> {
        loop {
            let frame = tokio::select! {
                biased;
                Some(frame) = self.own.recv() => frame,
                Some(frame) = self.resetting.recv() => frame,
                frame = self.to_write.recv() => match frame {
                    Some(frame) => frame,
                    None => break,
                },
            };
            self.write(encoder, &frame).await?;
        }
        while let Ok(frame) = self.resetting.try_recv() {
            self.write(encoder, &frame).await?;
        }
        self.write(encoder, &Frame::GoAway { last_stream: 0, status: 0 }).await
    }

    async fn last_words(&mut self, encoder: &mut Encoder) -> io::Result<()> {
        while let Ok(frame) = self.own.try_recv() {
            self.write(encoder, &frame).await?;
        }
        Ok(())
    }

    async fn write(&mut self, encoder: &mut Encoder, frame: &Frame) -> io::Result<()> {
        encoder.encode(frame, &mut self.unwritten).map_err(invalid)?;
        self.to.write_all_buf(&mut self.unwritten).await?;
        self.to.flush().await
    }
}

fn invalid(error: FrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;

    type Side = (Connection, tokio::task::JoinHandle<io::Result<()>>);

    fn pair() -> (Side, Side) {
        let (client, server) = tokio::io::duplex(1 << 10);
        let begin = |io: DuplexStream, role| {
            let (connection, driver) = connection(io, role);
            (connection, tokio::spawn(driver.run()))
        };
        (begin(client, Role::Client), begin(server, Role::Server))
    }

    async fn read_all(reader: &mut Reader) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(part) = reader.next().await {
            all.extend_from_slice(&part);
        }
        all
    }

    #[tokio::test]
    async fn streams_carry_both_ways_and_end() {
        let ((mut client, client_runs), (mut server, server_runs)) = pair();
        let big: Bytes = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let serve = async {
            let incoming = server.accept().await.expect("a stream");
            assert_eq!(incoming.headers.get("streamtype"), Some("data"));
            let Stream { mut reader, mut writer } = incoming.accept().await.expect("accepted");
            while let Some(part) = reader.next().await {
                writer.send(part).await.expect("sent");
            }
            writer.finish().await;
            drop(server);
        };
        let ask = async {
            let Stream { mut reader, mut writer } =
                client.open(Headers::new(&[("streamType", "data")])).await.expect("opened");
            let (echoed, ()) = tokio::join!(read_all(&mut reader), async {
                writer.send(big.clone()).await.expect("sent");
                writer.finish().await;
            });
            writer.closed().await;
            assert_eq!(writer.send(Bytes::from_static(b"x")).await, Err(Closed));
            drop((writer, client));
            echoed
        };
        let ((), echoed) = tokio::join!(serve, ask);
        assert!(echoed == big);
        client_runs.await.expect("it runs").expect("it ends well");
        server_runs.await.expect("it runs").expect("it ends well");
    }

    #[tokio::test]
    async fn a_reset_and_a_lost_connection_are_seen() {
        let ((mut client, client_runs), (mut server, _)) = pair();
        let mut one = client.open(Headers::default()).await.expect("opened");
        let two = client.open(Headers::default()).await.expect("opened");
        let taken = server.accept().await.expect("a stream").accept().await.expect("accepted");
        drop(taken);
        one.writer.closed().await;
        assert_eq!(one.reader.next().await, None);
        assert_eq!(one.writer.send(Bytes::from_static(b"x")).await, Err(Closed));
        // Refused, not taken.
        drop(server.accept().await.expect("a stream"));
        two.writer.closed().await;
        let three = client.open(Headers::default()).await.expect("opened");
        let mut taken = server.accept().await.expect("a stream").accept().await.expect("accepted");
        client_runs.abort();
        assert_eq!(taken.reader.next().await, None);
        taken.writer.closed().await;
        drop(three);
        assert!(client.open(Headers::default()).await.is_err());
    }

    #[tokio::test]
    async fn pings_are_answered_and_bad_numbers_end_it() {
        let (mut client, server) = tokio::io::duplex(1 << 10);
        let (_server, driver) = connection(server, Role::Server);
        let (mut encoder, mut bytes) = (Encoder::new().expect("an encoder"), BytesMut::new());
        let open = |stream| Frame::SynStream {
            stream,
            fin: false,
            unidirectional: false,
            headers: Headers::default(),
        };
        let said =
            [Frame::Ping { id: 7 }, Frame::Ping { id: 8 }, Frame::Ping { id: 9 }, open(5), open(5), open(7)];
        for frame in &said {
            encoder.encode(frame, &mut bytes).expect("encoded");
        }
        client.write_all_buf(&mut bytes).await.expect("written");
        let error = driver.run().await.expect_err("a number twice");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut heard = BytesMut::new();
        while client.read_buf(&mut heard).await.expect("read") > 0 {}
        let mut decoder = Decoder::default();
        let mut next = || decoder.next(&mut heard).expect("frames");
        assert_eq!((next(), next()), (Some(Frame::Ping { id: 7 }), Some(Frame::Ping { id: 9 })));
    }
}
