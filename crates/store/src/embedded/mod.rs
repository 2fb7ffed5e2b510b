//! The engine with a log of its own, for one process.

mod frame;
mod log;
mod record;
mod recover;
mod snapshot;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;

use object::{Resource, Revision, Snapshot};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::{Semaphore, oneshot};

use crate::disk::{Disk, Folder, FolderError};
use crate::embedded::writer::{Job, Writer};
use crate::hub::{Hub, Window};
use crate::{
    Commit, CommitError, Pending, SealError, Sealing, Store, StoreError, Transaction, Usage, Watch,
    WatchError, apply,
};

/// How the embedded engine keeps its files.
#[derive(Clone)]
pub struct Options {
    /// Bytes that a log file reserves.
    pub file_bytes: u64,
    /// A snapshot is written when the log has grown by this or by twice the live bytes, whichever is more.
    pub snapshot_bytes: u64,
    /// Bytes of transactions that may wait; further committers wait for room.
    pub queue_bytes: usize,
    pub window: Window,
    /// Operations that one transaction may carry.
    pub most_ops: usize,
    /// None: everything is written plain.
    pub sealing: Option<Arc<Sealing>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            file_bytes: 16 << 20,
            snapshot_bytes: 8 << 20,
            queue_bytes: 32 << 20,
            window: Window::default(),
            most_ops: crate::MAX_OPS,
            sealing: None,
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// What was on disk is not what was written. Nothing was changed.
    #[error("{path} is damaged at offset {offset}: {message}; restore the folder from a backup")]
    Corrupt { path: String, offset: u64, message: String },
    #[error(
        "{path} was written by a later version (format {version}, transformer {transformer}): start that version"
    )]
    Newer { path: String, version: u8, transformer: u8 },
    #[error("{path}: {error}")]
    Sealed { path: String, error: SealError },
    #[error("{operation} {path}: {source}")]
    Io { operation: &'static str, path: String, source: io::Error },
}

/// One cluster's state in one folder, written by one thread.
pub struct Embedded {
    disk: Arc<dyn Disk>,
    hub: Arc<Hub>,
    jobs: UnboundedSender<Job>,
    /// Room in the queue, in KiB.
    room: Arc<Semaphore>,
    most_ops: usize,
}

impl Embedded {
    /// Opens a folder, making it if it is not there. Reads everything: call it where blocking is fine.
    pub fn open(folder: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(Folder::open(folder)?), options)
    }

    /// Opens whatever acts as a folder.
    pub fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<Self, OpenError> {
        let recovered = recover::recover(&disk, &options)?;
        let hub = recovered.hub.clone();
        let writer = Writer::new(disk.clone(), recovered, &options);
        let (jobs, queue) = mpsc::unbounded_channel();
        let spawned =
            std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || writer.run(queue));
        spawned.map_err(|source| OpenError::Io {
            operation: "start the writer of",
            path: disk.path(""),
            source,
        })?;
        let room = Arc::new(Semaphore::new(kib(options.queue_bytes.max(crate::MAX_REQUEST_BYTES)) as usize));
        Ok(Self { disk, hub, jobs, room, most_ops: options.most_ops })
    }

    async fn enqueue(&self, transaction: Transaction) -> Result<Commit, CommitError> {
        apply::validate(&transaction, self.most_ops)?;
        let share = kib(apply::bytes(&transaction));
        let room = self.room.clone().acquire_many_owned(share).await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Commit { transaction, reply, room }).map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or_else(|_| Err(StoreError::Unavailable("its writer stopped".to_owned()).into()))
    }
}

/// Bytes as whole KiB, at least one.
fn kib(bytes: usize) -> u32 {
    (bytes / 1024 + 1) as u32
}

impl Store for Embedded {
    fn snapshot(&self) -> Snapshot {
        self.hub.snapshot()
    }

    fn read(&self) -> Pending<'_, Result<Snapshot, StoreError>> {
        Box::pin(std::future::ready(Ok(self.hub.snapshot())))
    }

    fn read_at_least(&self, revision: Revision) -> Pending<'_, Result<Snapshot, StoreError>> {
        Box::pin(async move { self.hub.reached(revision).await.ok_or(StoreError::Closed) })
    }

    fn commit(&self, transaction: Transaction) -> Pending<'_, Result<Commit, CommitError>> {
        Box::pin(self.enqueue(transaction))
    }

    fn watch(&self, resource: Option<Resource>, from: Revision) -> Result<Watch, WatchError> {
        self.hub.watch(resource, from)
    }

    fn compacted(&self) -> Revision {
        self.hub.compacted()
    }

    fn usage(&self) -> Usage {
        let files = self.disk.list().unwrap_or_default();
        self.hub.usage(files.iter().map(|(_, len)| len).sum())
    }

    fn reseal(&self) -> Pending<'_, Result<(), StoreError>> {
        Box::pin(async {
            let (done, resealed) = oneshot::channel();
            self.jobs.send(Job::Reseal(done)).map_err(|_| StoreError::Closed)?;
            resealed.await.unwrap_or(Err(StoreError::Closed))
        })
    }

    fn received(&self) -> Vec<(Resource, u64)> {
        self.hub.received()
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async {
            let (done, closed) = oneshot::channel();
            if self.jobs.send(Job::Close(done)).is_ok() {
                let _ = closed.await;
            }
        })
    }
}
