//! Runs deciders: snapshots, queues, retries, wake-ups, leases. Owns the clock.
//!
//! ```text
//! store ──events──► dispatch ──keys──► queue ──key──► reconcile(snapshot, key, now) ──plan──► gate ──► store
//!                                        ▲                                             │
//!                                        └────────── wake_at, failure, dirty ──────────┘
//! ```
//!
//! A key of a controller never runs twice at once; an event that arrives while it runs makes it run once more.
//! A key sees its own writes: a commit is in the store's snapshot before it is acknowledged, and the next run takes its snapshot after that.
//! Where several servers share a store, `election` says which of them runs a component.

mod election;
mod events;
mod measures;
mod queue;
mod run;
mod scheduling;
mod server_lease;

pub use election::Election;
pub use events::Recorder;
pub use measures::Measures;
pub use queue::{Outcome, Queue};
pub use run::{Clock, Engine};
pub use server_lease::ServerLease;
