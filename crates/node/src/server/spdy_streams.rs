//! exec and attach as SPDY has them: the client opens a stream for each channel, and names it in a header.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use spdy::{Connection, Reader, Stream, Writer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tracing::debug;

use super::channels::{BACKLOG, Outbox, Said};

/// Names in the header of a stream, by their channels.
const STREAM_TYPES: [&str; 5] = ["stdin", "stdout", "stderr", "error", "resize"];
/// How long a client may take to open its streams, and how long to leave.
const OPENING: Duration = Duration::from_secs(30);
const GOODBYE: Duration = Duration::from_secs(5);

/// A dialect of remote commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: &'static str,
    pub has_status: bool,
    has_resize: bool,
}

/// <https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apimachinery/pkg/util/remotecommand/constants.go>
pub const REMOTE_COMMAND: [Protocol; 4] = [
    Protocol { name: "v4.channel.k8s.io", has_status: true, has_resize: true },
    Protocol { name: "v3.channel.k8s.io", has_status: false, has_resize: true },
    Protocol { name: "v2.channel.k8s.io", has_status: false, has_resize: false },
    Protocol { name: "channel.k8s.io", has_status: false, has_resize: false },
];

type Driving = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// The streams of one command.
pub struct Streams {
    pub has_status: bool,
    connection: Connection,
    driving: Driving,
    by_channel: [Option<Stream>; 5],
}

impl Streams {
    /// Waits for the streams of the channels that are `wanted`, in whatever order they come. None: they did not come.
    pub async fn gather(
        io: impl AsyncRead + AsyncWrite + Send + 'static,
        protocol: Protocol,
        mut wanted: [bool; 5],
    ) -> Option<Self> {
        wanted[4] &= protocol.has_resize;
        let (mut connection, driver) = spdy::connection(io, spdy::Role::Server);
        let mut driving: Driving = Box::pin(driver.run());
        let mut by_channel = [const { None }; 5];
        let opening = async {
            while (0..5).any(|channel| wanted[channel] && by_channel[channel].is_none()) {
                let incoming = connection.accept().await?;
                let name = incoming.headers.get("streamtype").unwrap_or_default();
                let channel = STREAM_TYPES.iter().position(|known| *known == name);
                match channel.filter(|channel| wanted[*channel] && by_channel[*channel].is_none()) {
                    Some(channel) => by_channel[channel] = Some(incoming.accept().await.ok()?),
                    None => debug!(name, "a stream that was not announced is refused"),
                }
            }
            Some(())
        };
        let opened = tokio::select! {
            opened = tokio::time::timeout(OPENING, opening) => opened.ok().flatten(),
            _ = &mut driving => None,
        };
        opened?;
        Some(Self { has_status: protocol.has_status, connection, driving, by_channel })
    }

    /// As [`Carrier::converse`](super::channels::Carrier::converse).
    pub async fn converse<W: Future>(
        self,
        work: impl FnOnce(Outbox, mpsc::Receiver<Said>) -> W,
    ) -> Option<W::Output> {
        let Self { connection, mut driving, by_channel, .. } = self;
        let (to, outbox) = Outbox::new();
        let (said, heard) = mpsc::channel(BACKLOG);
        let work = work(to, heard);
        let (mut readers, mut writers) = (Vec::new(), [const { None }; 5]);
        for (channel, stream) in (0_u8..).zip(by_channel) {
            if let Some(Stream { reader, writer }) = stream {
                readers.push(listen(channel, reader, said.clone()));
                writers[usize::from(channel)] = Some(writer);
            }
        }
        drop(said);
        let listening = async {
            join_all(readers).await;
            std::future::pending::<()>().await
        };
        let done = tokio::select! {
            _ = &mut driving => None,
            () = listening => None,
            ((), done) = async { tokio::join!(speak(&mut writers, outbox), work) } => Some(done),
        };
        if done.is_some() {
            // The client reads to the end of its streams, and closes the connection.
            drop((connection, writers));
            if tokio::time::timeout(GOODBYE, driving).await.is_err() {
                debug!("a client did not leave in time");
            }
        }
        done
    }
}

async fn listen(channel: u8, mut from: Reader, said: mpsc::Sender<Said>) {
    while let Some(data) = from.next().await {
        // Nobody may listen any more; what the client still says is of no interest then.
        let _ = said.send(Said::Data { channel, data }).await;
    }
    let _ = said.send(Said::Closed { channel }).await;
}

/// Sends what comes to the outbox, and ends all streams when it is closed.
async fn speak(writers: &mut [Option<Writer>; 5], mut outbox: mpsc::Receiver<(u8, Bytes)>) {
    while let Some((channel, data)) = outbox.recv().await {
        if let Some(writer) = writers.get_mut(usize::from(channel)).and_then(Option::as_mut) {
            // A client may close one stream, and read the others.
            let _ = writer.send(data).await;
        }
    }
    for writer in writers.iter_mut().flatten() {
        writer.finish().await;
    }
}
