//! Containers: images, filesystems, namespaces, cgroups, exec, logs. Carries out the kubelet's ops.

mod cgroup;
mod connection;
mod container;
mod error;
mod etc;
mod facade;
pub mod image;
mod layout;
pub mod monitor;
mod protocol;
mod seccomp;
mod signal;
mod spec;
mod stream;
mod sys;

pub use cgroup::CgroupError;
pub use error::RuntimeError;
pub use facade::{Attached, Exec, ExecOutput, ExecRequest, Listing, Options, Runtime};
pub use stream::{Reader, Resizer, Streams, Writer};
