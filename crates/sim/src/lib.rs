//! A whole cluster in one thread: real deciders, memory store, virtual clock, fake doers, seeded faults.
//!
//! [`World`] is the real gate over the memory store, with every controller and the scheduler; the kubelets are hollow. One number, the
//! seed, decides everything that chance decides: which key runs next, how plans that run at the same time interleave, how long a pod
//! takes to start, which writes conflict or get lost. The same seed gives the same history, so a failure is found again by its seed.
//!
//! ```text
//!            ┌── one step ──────────────────────────────────────────────┐
//! seed ────► │ plan a ready key │ do one write of a plan │ kubelet acts │ ──► events ──► keys, scheduler, hollow kubelets
//!            └──────────────────────────────────────────────────────────┘        └──► invariants
//! nothing to do ──► the clock jumps to the next timer
//! ```
//!
//! Architecture invariant: no thread, no real clock, no sleep.

mod hollow;
mod invariants;
mod random;
mod scenario;
mod waits;
mod work;
mod world;

pub use invariants::{Bounds, Violation};
pub use scenario::{Action, Promise, SCENARIOS, Scenario};
pub use waits::WAITS;
pub use world::{Faults, World};
