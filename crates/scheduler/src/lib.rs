//! Which node a pod goes to: a table of filters, a table of scores. Pure.
//!
//! [`Scheduler`] is what an engine drives. It folds the log of the store into a [`Cluster`] (what runs where, and what
//! is left) and a [`Queue`] (who waits, and for what), and hands out one [`Step`] at a time:
//!
//! ```text
//!             apply(event) ──► Cluster, Queue
//!                                  │
//! next(snapshot, now) ─► pop ─► filters ─► scores ─► Step: bind      (and the pod counts as placed at once)
//!                                  └─ nothing fits ─► preemption ─► Step: condition, event, victims
//! failed(pod, now): the step's plan did not go through; the pod is taken back and tried again
//! ```
//!
//! How to drive it:
//!
//! 1. `Scheduler::new(&snapshot, seed, now)` folds everything there is.
//! 2. Every event of the log goes through `apply`, in order, before the snapshot it belongs to is given to `next`.
//! 3. Call `next` until it answers `None`; carry out each step's plan (in any order, many at a time), and call `failed`
//!    for one that does not go through. Nothing is to be said about one that does: its event says it.
//! 4. When `next` answers `None`, sleep until the next event, or `wake_at`.
//!
//! The same events, times and seed give the same steps: the simulator replays them.
//!
//! Architecture invariant: no clock, no randomness. Ties between nodes are broken by a hash of the seed and the number
//! of pods that were tried.

mod affinity;
mod amounts;
mod cluster;
mod explain;
mod node;
mod pick;
mod plugins;
mod pod;
mod preemption;
mod queue;
mod scheduler;
mod tell;
mod volumes;

pub use amounts::Amounts;
pub use cluster::Cluster;
pub use explain::{Reason, Rejection, Unschedulable};
pub use node::Node;
pub use pick::{Fit, schedule};
pub use plugins::{FILTERS, Filter, Plugin, SCORES, Score};
pub use pod::Pod;
pub use queue::{Pending, Queue};
pub use scheduler::{Attempt, Scheduler, Step};
