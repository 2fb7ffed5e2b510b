//! Objects, keys, revisions, selectors, snapshots, writes. Knows no kind.
//!
//! Architecture invariant: nothing here names a Kubernetes kind. What an object *is* comes from the caller; this crate only keeps it,
//! finds it and says how it changed.

pub mod body;
mod event;
pub mod json;
mod key;
mod meta;
pub mod selector;
mod snapshot;
mod status;
mod time;

pub use event::{Change, Event};
pub use key::{Key, Resource, Revision, intern, intern_list};
pub use meta::{Meta, OwnerReference};
pub use selector::{FieldSelector, LabelSelector};
pub use snapshot::{Draft, Object, Snapshot, Table};
pub use status::{Cause, Reason, Status};
pub use time::Time;
