//! The AWS front doors: wire protocols once, then a folder a service, a file a noun. Handlers are pure.
//!
//! ```text
//! HTTP request ─► wire (by the service's model) ─► Operation ─► IAM decides ─► handler ─► Answer { output, changes }
//!                                                                 Context { state, caller, now, ids } ─┘
//! ```
//!
//! The account's truth is a store of its own: every AWS object (a role, a VPC, a cluster) is an [`object::Object`] in it, and a call's
//! changes are one transaction on it. What a change asks of the world (a control plane, a machine) is done by whoever follows that store
//! and writes back what became of it.
//!
//! Architecture invariant: no clock, no randomness, no keys of the host: `now`, ids and secrets come with the [`Context`].

pub mod authorize;
pub mod autoscaling;
mod call;
pub mod control;
pub mod cost;
pub mod credentials;
mod dispatch;
pub mod ec2;
pub mod eks;
pub mod eks_auth;
pub mod genesis;
pub mod iam;
mod ids;
pub mod login;
pub mod model;
pub mod policy;
mod repeated;
mod service;
pub mod sigv4;
pub mod ssm;
pub mod state;
#[cfg(test)]
mod stories;
pub mod sts;
pub mod wire;

pub use call::{Answer, Caller, Context, Fault, Origin};
pub use dispatch::{Line, Reply, World, answer, call, refusal};
pub use ids::Ids;
pub use service::{Further, Operation, Service, Subject};

/// Every service there is, by signing name.
pub const SERVICES: &[&Service] = &[
    &autoscaling::SERVICE,
    &ec2::SERVICE,
    &eks::SERVICE,
    &eks_auth::SERVICE,
    &iam::SERVICE,
    &ssm::SERVICE,
    &sts::SERVICE,
];
