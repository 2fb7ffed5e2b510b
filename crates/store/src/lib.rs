//! The MVCC log behind one trait: read, commit, watch, compact. Engines: embedded (default) and etcd.

mod api;

mod watch;

pub use api::{
    Commit, CommitError, Op, Pending, Precondition, Put, Store, StoreError, Transaction, Usage, WatchError,
};
pub use watch::Watch;
