//! The one thread that writes: group commit.
//!
//! ```text
//! drain the queue ─► check and apply each to the newest state, earlier ones of the batch included ─► one write, one sync
//!       ▲                                                                                                │
//!       └────────────────────── acknowledge ◄────────── publish snapshot and events ◄────────────────────┘
//! ```
//!
//! A transaction that fails its precondition is answered after the sync too: what it was compared with may be in the same batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use object::{Event, Snapshot};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::disk::Disk;
use crate::embedded::log::{AppendError, Log, store_error};
use crate::embedded::recover::Recovered;
use crate::embedded::{Options, frame, record, snapshot};
use crate::hub::Hub;
use crate::{Commit, CommitError, Sealing, StoreError, Transaction, apply};

/// A batch ends at so many bytes of keys and bodies, or so many transactions.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_COUNT: usize = 4096;

pub(crate) enum Job {
    Commit {
        transaction: Transaction,
        reply: oneshot::Sender<Result<Commit, CommitError>>,
        /// The transaction's share of the queue; given back when it is answered.
        room: OwnedSemaphorePermit,
    },
    /// A snapshot, sealed as new values are, that makes every file before it void.
    Reseal(oneshot::Sender<Result<(), StoreError>>),
    Close(oneshot::Sender<()>),
}

pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    hub: Arc<Hub>,
    log: Log,
    /// The newest acknowledged state.
    state: Snapshot,
    buffer: Vec<u8>,
    /// Since a sync failed, nobody knows what the newest file holds: it must be replaced before anything is acknowledged.
    broken: bool,
    snapshot_bytes: u64,
    /// The next snapshot is due when so much was appended.
    due: u64,
    /// The thread that writes a snapshot, or has written the last.
    aside: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    sealing: Option<Arc<Sealing>>,
    is_stale: bool,
}

impl Writer {
    pub(crate) fn new(disk: Arc<dyn Disk>, recovered: Recovered, options: &Options) -> Self {
        let Recovered { hub, state, log, is_stale } = recovered;
        Self {
            disk,
            hub,
            log,
            state,
            buffer: Vec::new(),
            broken: false,
            snapshot_bytes: options.snapshot_bytes,
            due: options.snapshot_bytes,
            aside: None,
            stop: Arc::default(),
            sealing: options.sealing.clone(),
            is_stale,
        }
    }

    /// Serves the queue until it is closed.
    pub(crate) fn run(mut self, mut jobs: UnboundedReceiver<Job>) {
        // Also if this thread panics, nobody waits for what will not come.
        let _ends_watches = CloseAtEnd(self.hub.clone());
        let mut closing = None;
        if self.is_stale
            && let Err(error) = self.reseal()
        {
            tracing::warn!(%error, "what is not sealed with the current key stays so until the next snapshot");
        }
        while closing.is_none()
            && let Some(first) = jobs.blocking_recv()
        {
            let mut batch = Vec::new();
            let mut replies = Vec::new();
            let mut bytes = 0;
            let mut resealing = None;
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Commit { transaction, reply, room } => {
                        bytes += apply::bytes(&transaction);
                        batch.push(transaction);
                        replies.push((reply, room));
                    }
                    Job::Reseal(done) => {
                        resealing = Some(done);
                        break;
                    }
                    Job::Close(done) => {
                        closing = Some(done);
                        break;
                    }
                }
                let more = bytes < BATCH_BYTES && batch.len() < BATCH_COUNT;
                next = if more { jobs.try_recv().ok() } else { None };
            }
            let answers = self.commit(batch);
            for ((reply, _room), answer) in replies.into_iter().zip(answers) {
                // Whoever asked may have gone; the commit stands.
                let _ = reply.send(answer);
            }
            if let Some(done) = resealing {
                // Whoever asked may have gone; what was written anew stays so.
                let _ = done.send(self.reseal());
            }
            if let Some(job) = self.due_snapshot() {
                self.write_aside(job);
            }
        }
        self.stop.store(true, Ordering::Relaxed);
        if let Some(aside) = self.aside.take() {
            // It reports its own failure; a panic of it was printed.
            let _ = aside.join();
        }
        self.end();
        self.hub.close();
        jobs.close();
        if let Some(done) = closing {
            // The folder's lock goes with the last holder of the disk: this one goes before the answer.
            drop(self);
            // Who asked may have stopped waiting.
            let _ = done.send(());
        }
        while let Some(job) = jobs.blocking_recv() {
            match job {
                Job::Commit { reply, .. } => drop(reply.send(Err(StoreError::Closed.into()))),
                Job::Reseal(done) => drop(done.send(Err(StoreError::Closed))),
                Job::Close(done) => drop(done.send(())),
            }
        }
    }

    /// Commits wait meanwhile: it is as rare as keys change, and what is acknowledged after it is nowhere under an old key.
    fn reseal(&mut self) -> Result<(), StoreError> {
        if let Some(aside) = self.aside.take() {
            // One that began before would bring back values under the old key. It reports its own failure.
            let _ = aside.join();
        }
        let id = self.log.roll(0)?;
        let job = self.snapshot_job(id);
        job.run().map_err(|error| store_error("write", self.disk.path("a new snapshot"), &error))?;
        self.log.restart_count();
        tracing::info!("everything is kept under the current key");
        Ok(())
    }

    /// One batch: an answer for each transaction, in order. When it returns, what was acknowledged is durable and published.
    pub(crate) fn commit(&mut self, batch: Vec<Transaction>) -> Vec<Result<Commit, CommitError>> {
        if batch.is_empty() {
            return Vec::new();
        }
        if self.broken
            && let Err(error) = self.mend()
        {
            return batch.iter().map(|_| Err(error.clone().into())).collect();
        }
        let mut now = self.state.clone();
        frame::start(&mut self.buffer);
        let answers: Vec<_> = {
            let sealing = self.sealing.as_deref();
            batch.into_iter().map(|one| stage(&mut now, &mut self.buffer, one, sealing)).collect()
        };
        if now.revision() == self.state.revision() {
            return answers;
        }
        match self.log.append(&mut self.buffer, self.sealing.is_some()) {
            Ok(()) => {}
            Err(AppendError::Refused(error)) => return refuse(answers, &error),
            Err(AppendError::Unknown(error)) => {
                tracing::error!(%error, "the log cannot be written");
                self.broken = true;
                // Usually the state can be written anew at once, and then this batch has certainly not happened.
                let error = match self.mend() {
                    Ok(()) => error,
                    Err(_) => StoreError::Unavailable(error.to_string()),
                };
                return refuse(answers, &error);
            }
        }
        let events: Vec<Arc<Event>> =
            answers.iter().flatten().flat_map(|commit| commit.events.iter().cloned()).collect();
        self.state = now.clone();
        self.hub.publish(now, &events);
        // One large batch must not hold its memory for ever.
        if self.buffer.capacity() > BATCH_BYTES {
            self.buffer = Vec::new();
        }
        answers
    }

    /// An orderly stop. Nothing depends on it: a file without its end mark is read as after a crash.
    pub(crate) fn end(&mut self) {
        if !self.broken
            && let Err(error) = self.log.end()
        {
            tracing::warn!(%error, "the log has no end mark");
        }
    }

    /// After a failed sync: a new log file, and a snapshot of what was acknowledged that makes the files before it void.
    fn mend(&mut self) -> Result<(), StoreError> {
        let id = self.log.roll(0)?;
        let job = self.snapshot_job(id);
        job.run().map_err(|error| store_error("write", self.disk.path("a new snapshot"), &error))?;
        self.log.restart_count();
        self.broken = false;
        tracing::info!("the log goes on in a new file");
        Ok(())
    }

    /// The snapshot to write now, if the log has grown enough and none is being written.
    pub(crate) fn due_snapshot(&mut self) -> Option<snapshot::Job> {
        let busy = self.aside.as_ref().is_some_and(|aside| !aside.is_finished());
        if self.broken || busy || self.log.appended() < self.due {
            return None;
        }
        let live: usize = self.state.tables().map(|(_, table)| table.bytes()).sum();
        self.due = self.snapshot_bytes.max(2 * live as u64);
        if self.log.appended() < self.due {
            return None;
        }
        match self.log.roll(0) {
            Ok(id) => {
                self.log.restart_count();
                Some(self.snapshot_job(id))
            }
            Err(error) => {
                // Tried again when the log has grown by as much once more.
                tracing::warn!(%error, "no snapshot could be begun");
                self.due = self.log.appended() + self.snapshot_bytes;
                None
            }
        }
    }

    fn snapshot_job(&self, id: u64) -> snapshot::Job {
        let (disk, state) = (self.disk.clone(), self.state.clone());
        let (stop, sealing) = (self.stop.clone(), self.sealing.clone());
        snapshot::Job { disk, state, id, sequence: self.log.sequence(), stop, sealing }
    }

    fn write_aside(&mut self, job: snapshot::Job) {
        let spawned = std::thread::Builder::new().name("store-snapshot".to_owned()).spawn(move || {
            if let Err(error) = job.run()
                && !job.stop.load(Ordering::Relaxed)
            {
                tracing::warn!(%error, "a snapshot was not written; the log grows until the next one is");
            }
        });
        match spawned {
            Ok(aside) => self.aside = Some(aside),
            Err(error) => tracing::warn!(%error, "no thread for a snapshot"),
        }
    }
}

struct CloseAtEnd(Arc<Hub>);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Checks a transaction, adds it to the batch's record and carries it out on the state to come.
fn stage(
    now: &mut Snapshot,
    record: &mut Vec<u8>,
    transaction: Transaction,
    sealing: Option<&Sealing>,
) -> Result<Commit, CommitError> {
    apply::check(now, &transaction)?;
    if transaction.ops.iter().any(|op| apply::changes(now, op)) {
        let before = record.len();
        let written = record::write_transaction(record, now.revision() + 1, now, &transaction, sealing);
        if let Err(error) = written {
            record.truncate(before);
            return Err(StoreError::from(error).into());
        }
    }
    Ok(apply::perform(now, transaction))
}

/// Nothing of the batch happened; not even a failed precondition is certain.
fn refuse(answers: Vec<Result<Commit, CommitError>>, error: &StoreError) -> Vec<Result<Commit, CommitError>> {
    answers.iter().map(|_| Err(error.clone().into())).collect()
}
