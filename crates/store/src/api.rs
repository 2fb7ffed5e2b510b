use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::{Measures, SealError, Watch};
use object::{Draft, Event, Key, Resource, Revision, Snapshot};

/// A boxed future: the trait is used as an object, so that a cluster chooses its engine when it starts.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One cluster's state. Everything else in the process sees it through this.
pub trait Store: Send + Sync + 'static {
    /// The newest state that this process has seen. Never blocks.
    fn snapshot(&self) -> Snapshot;

    /// A state at least as new as everything acknowledged before the call (resourceVersion "" of a read).
    /// The embedded engine answers at once; etcd by a linearizable read of its revision.
    fn read(&self) -> Pending<'_, Result<Snapshot, StoreError>>;

    /// A state at least as new as `revision`. Waits for it; the caller bounds the wait.
    fn read_at_least(&self, revision: Revision) -> Pending<'_, Result<Snapshot, StoreError>>;

    /// All operations or none. When it returns, the change is durable and in `snapshot()`. Dropped while it waits, it may still happen.
    fn commit(&self, transaction: Transaction) -> Pending<'_, Result<Commit, CommitError>>;

    /// The changes to one resource (or to all) after `from`, in order. `from` = a snapshot's revision continues exactly there.
    fn watch(&self, resource: Option<Resource>, from: Revision) -> Result<Watch, WatchError>;

    /// Any watch may start from here or later; a watch of a quiet resource maybe from earlier.
    fn compacted(&self) -> Revision;

    /// Bytes on disk and in memory, for `status` and metrics.
    fn usage(&self) -> Usage;

    /// Writes anew what is kept otherwise than new values are: plain, or sealed with a key that is no longer the first. When it returns,
    /// older keys are of no use any more.
    fn reseal(&self) -> Pending<'_, Result<(), StoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Whether something was read at the start that [`Self::reseal`] has to write anew, and nobody else does.
    fn was_stale(&self) -> bool {
        false
    }

    /// How many changes of each resource came in since the process began, in the order of the resources' names. Starts anew where what came
    /// in between was not seen.
    fn received(&self) -> Vec<(Resource, u64)> {
        Vec::new()
    }

    /// What was asked of it, if that is counted.
    fn measures(&self) -> Option<&Measures> {
        None
    }

    /// Ends background work; everything acknowledged is on disk already.
    fn close(&self) -> Pending<'_, ()>;
}

/// Bytes of keys and bodies that one transaction may carry: etcd's `--max-request-bytes`, whichever engine runs.
pub const MAX_REQUEST_BYTES: usize = 1_572_864;

/// Operations that one transaction may carry, of a store that could be etcd: its `--max-txn-ops`.
pub const MAX_OPS: usize = 128;

/// What a store takes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub disk_bytes: u64,
    /// Bodies of live objects.
    pub live_bytes: u64,
    /// Bodies and keys that the watch window holds.
    pub history_bytes: u64,
    pub revision: Revision,
}

/// Changes that happen together. Each key stands in it at most once.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    pub ops: Vec<Op>,
}

/// One key's part of a transaction. The key of a `Put::Object` is the draft's own.
#[derive(Clone, Debug)]
pub struct Op {
    pub key: Key,
    pub precondition: Precondition,
    pub put: Put,
}

impl Op {
    /// Writes an object where nothing is yet.
    pub fn create(draft: Draft) -> Self {
        Self { key: draft.key.clone(), precondition: Precondition::Absent, put: Put::Object(draft) }
    }

    /// Replaces the object that was last changed at `revision`.
    pub fn update(draft: Draft, revision: Revision) -> Self {
        Self { key: draft.key.clone(), precondition: Precondition::At(revision), put: Put::Object(draft) }
    }

    /// Removes the object that was last changed at `revision`.
    pub fn delete(key: Key, revision: Revision) -> Self {
        Self { key, precondition: Precondition::At(revision), put: Put::Delete }
    }
}

impl From<Op> for Transaction {
    fn from(op: Op) -> Self {
        Self { ops: vec![op] }
    }
}

/// What must be true of a key when the transaction happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing is there.
    Absent,
    /// The object there was last changed at this revision.
    At(Revision),
    /// Whatever is there.
    Unchecked,
}

/// What an operation does to its key.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every operation carries a draft")]
pub enum Put {
    Object(Draft),
    Delete,
    /// Only the precondition is checked; nothing is written.
    Nothing,
}

/// An acknowledged transaction.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The revision it happened at; of a transaction that changed nothing, the store's revision then.
    pub revision: Revision,
    /// One for each operation that changed something, in their order.
    pub events: Vec<Arc<Event>>,
}

/// Why a transaction was not made. It is made whole or not at all.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold; nothing was written. `op` counts from zero; `revision` is what the key is at now (zero: absent).
    #[error("precondition of {key} failed: it is at revision {revision}")]
    Precondition { op: usize, key: Key, revision: Revision },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the store itself failed at, whatever it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store is closed")]
    Closed,
    /// Another server leads by now: whoever led before it writes no more. Nothing was written.
    #[error("{lease} is held by another server")]
    Deposed { lease: Key },
    /// Nothing was written and nothing will be until there is room again.
    #[error("no space left for the store at {path}: free some and try again")]
    Full { path: String },
    /// The object is over the store's limit.
    #[error("etcdserver: request is too large")]
    TooLarge,
    #[error("{operation} {path}: {message}")]
    Io { operation: &'static str, path: String, message: String },
    /// The transaction breaks a rule of the API: a key twice, too many operations, a draft under another key.
    #[error("transaction refused: {0}")]
    Malformed(String),
    /// It cannot be encrypted, so it is not written.
    #[error(transparent)]
    Sealing(#[from] SealError),
    /// The store did not say whether the write happened; a read settles it.
    #[error("the store did not answer: {0}")]
    Unavailable(String),
}

/// Why a watch did not start, or ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The log no longer reaches back that far: list again and watch from there.
    #[error("too old resource version: {from} ({oldest})")]
    Compacted { from: Revision, oldest: Revision },
    #[error("the store is closed")]
    Closed,
}
