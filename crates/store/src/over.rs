//! Stores above another one.

use object::{Resource, Revision, Snapshot};

use crate::{
    Commit, CommitError, Measures, Pending, Store, StoreError, Transaction, Usage, Watch, WatchError,
};

/// A store that has a part in each transaction of the one below it; everything else is answered there.
pub trait Over: Send + Sync + 'static {
    fn below(&self) -> &dyn Store;

    /// Makes a transaction: what [`Store::commit`] is of this store.
    fn pass(&self, transaction: Transaction) -> Pending<'_, Result<Commit, CommitError>>;

    /// What [`Store::measures`] is of it.
    fn counted(&self) -> Option<&Measures> {
        self.below().measures()
    }
}

impl<S: Over> Store for S {
    fn snapshot(&self) -> Snapshot {
        self.below().snapshot()
    }

    fn read(&self) -> Pending<'_, Result<Snapshot, StoreError>> {
        self.below().read()
    }

    fn read_at_least(&self, revision: Revision) -> Pending<'_, Result<Snapshot, StoreError>> {
        self.below().read_at_least(revision)
    }

    fn commit(&self, transaction: Transaction) -> Pending<'_, Result<Commit, CommitError>> {
        self.pass(transaction)
    }

    fn watch(&self, resource: Option<Resource>, from: Revision) -> Result<Watch, WatchError> {
        self.below().watch(resource, from)
    }

    fn compacted(&self) -> Revision {
        self.below().compacted()
    }

    fn usage(&self) -> Usage {
        self.below().usage()
    }

    fn reseal(&self) -> Pending<'_, Result<(), StoreError>> {
        self.below().reseal()
    }

    fn was_stale(&self) -> bool {
        self.below().was_stale()
    }

    fn received(&self) -> Vec<(Resource, u64)> {
        self.below().received()
    }

    fn measures(&self) -> Option<&Measures> {
        self.counted()
    }

    fn close(&self) -> Pending<'_, ()> {
        self.below().close()
    }
}
