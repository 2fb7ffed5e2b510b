//! Clusters, node groups and Auto Scaling groups of the account, made so: control planes that run, and instances, which are `crate::ec2`'s.
//!
//! ```text
//! account store ──events──► Keeper: queue ──key──► clusters | aws::control (pure)
//!        ▲                     ▲                        │
//!        │                     └─followed─ cluster ◄────┤ in_cluster
//!        └────────── what became of it ─────────────────┘
//! ```

mod clusters;
mod fargate;
mod followed;
mod in_cluster;
mod insights;
mod keeper;
mod node_groups;
mod record;

pub use keeper::Keeper;
pub use record::{EnterError, enter, forget, is_any_created, is_going, standing, tell_running};
