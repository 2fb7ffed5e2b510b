//! Clusters, node groups and Auto Scaling groups of the account, made so: control planes and machines that run.
//!
//! ```text
//! account store ──events──► Keeper: queue ──key──► clusters | aws::control (pure) | members
//!        ▲                                              │
//!        └────────── what became of it ─────────────────┘
//! ```

mod clusters;
mod keeper;
mod members;

pub use clusters::{enter, forget, tell_running};
pub use keeper::Keeper;
