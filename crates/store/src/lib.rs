//! The MVCC log behind one trait: read, commit, watch, compact. Engines: embedded (default) and etcd.
//!
//! ```text
//!  commit ──► engine: check, apply, make durable ──► hub: newest Snapshot + watch window ──► snapshot(), Watch
//! ```
//!
//! Every engine feeds one hub: readers and watchers never meet the disk or the network. What is sealed at rest is plain in the hub.
//! Architecture invariant: nothing here knows a kind; the etcd engine is told which resources to load and how to index them.

mod api;
mod apply;
pub mod disk;
mod embedded;
mod etcd;
#[cfg(test)]
mod faults;
mod hub;
mod measured;
mod memory;
mod over;
mod sealing;
mod watch;

pub use api::{
    Commit, CommitError, MAX_OPS, MAX_REQUEST_BYTES, Op, Pending, Precondition, Put, Store, StoreError,
    Transaction, Usage, WatchError,
};
pub use embedded::{Embedded, OpenError, Options};
pub use etcd::{Etcd, EtcdOpenError, EtcdOptions, EtcdTls, Import, Imported, import_json, storage_prefix};
pub use hub::Window;
pub use measured::{Measured, Measures};
pub use memory::Memory;
pub use over::Over;
pub use sealing::{ConfigError, Rules as SealingRules, SealError, Sealing};
pub use watch::Watch;
