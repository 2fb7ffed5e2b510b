use std::sync::{Arc, Mutex, PoisonError};

use object::{Resource, Revision, Snapshot};

use crate::hub::{Hub, Window};
use crate::{Commit, CommitError, Pending, Store, StoreError, Transaction, Usage, Watch, WatchError, apply};

/// The engine without a disk: for the simulator and for tests. Every future is ready at once, nothing reads a clock.
pub struct Memory {
    hub: Arc<Hub>,
    /// One commit at a time.
    turn: Mutex<()>,
    most_ops: usize,
}

impl Memory {
    pub fn new() -> Self {
        Self::with_window(Window { age: None, ..Window::default() })
    }

    pub fn with_window(window: Window) -> Self {
        let mut fresh = Snapshot::default();
        fresh.advance(1);
        Self { hub: Hub::new(window, fresh), turn: Mutex::new(()), most_ops: crate::MAX_OPS }
    }

    /// The same that takes so many operations in a transaction.
    pub fn with_most_ops(self, most_ops: usize) -> Self {
        Self { most_ops, ..self }
    }

    fn commit_now(&self, transaction: Transaction) -> Result<Commit, CommitError> {
        apply::validate(&transaction, self.most_ops)?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if self.hub.is_closed() {
            return Err(StoreError::Closed.into());
        }
        let mut now = self.hub.snapshot();
        apply::check(&now, &transaction)?;
        let commit = apply::perform(&mut now, transaction);
        if !commit.events.is_empty() {
            self.hub.publish(now, &commit.events);
        }
        Ok(commit)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for Memory {
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
        Box::pin(async move { self.commit_now(transaction) })
    }

    fn watch(&self, resource: Option<Resource>, from: Revision) -> Result<Watch, WatchError> {
        self.hub.watch(resource, from)
    }

    fn compacted(&self) -> Revision {
        self.hub.compacted()
    }

    fn usage(&self) -> Usage {
        self.hub.usage(0)
    }

    fn received(&self) -> Vec<(Resource, u64)> {
        self.hub.received()
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async { self.hub.close() })
    }
}
