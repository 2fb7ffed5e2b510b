//! Clusters, node groups and Auto Scaling groups of the account, made so: control planes that run, and instances, which are `crate::ec2`'s.
//!
//! ```text
//! account store ──events──► Keeper: queue ──key──► clusters | aws::control (pure)
//!        ▲                                              │
//!        └────────── what became of it ─────────────────┘
//! ```

mod clusters;
mod fargate;
mod insights;
mod keeper;

pub use clusters::{enter, forget, is_any_created, is_going, standing, tell_running};
pub use fargate::OnFargate;
pub use keeper::Keeper;
