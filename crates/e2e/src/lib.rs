//! Real clients against the real binary.
//!
//! A [`Chapter`] is a cluster and the [`Story`]s told on it, side by side, each in a [`Room`] of its own: a namespace.
//! A [`Tale`] makes its own clusters, or means to make none.
//! Every cluster is deleted at the end, and what it left on the host is a failure of its own.
//!
//! Waiting is by `kubectl wait`, `kubectl rollout status`, or [`until`]: a look again and again, up to a deadline.

mod certificates;
mod clients;
mod cluster;
mod elsewhere;
mod etcd;
mod harness;
mod hosts;
mod http;
mod kms;
mod leftovers;
mod seccomp;

pub use self::http::{fetch, get};
pub use certificates::{Issued, Wanted, issue};
pub use clients::{
    Answer, Running, aws_binary, brought_folder, ekso_binary, kernel_folder, kubectl_binary, python_binary,
    run, start, tool,
};
pub use cluster::{Cluster, PATIENCE, Room, Site, free_port, until};
pub use elsewhere::Elsewhere;
pub use etcd::Etcd;
pub use harness::{Chapter, Ignored, Story, Tale, main};
pub use hosts::{Host, Lan};
pub use kms::Kms;
pub use leftovers::leftovers;
pub use seccomp::{Refused, refuse};
