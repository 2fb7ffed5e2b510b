//! Speaks netlink: links, routes, nftables, conntrack, network namespaces. Knows no Kubernetes.
//!
//! Everything here blocks for microseconds (netlink answers inside the system call) and works on the network
//! namespace of the calling thread; [`netns::run_in`] carries a closure into another.

pub mod conntrack;
pub mod link;
pub mod netns;
pub mod nft;
mod socket;
pub mod sysctl;
mod wire;

pub use netns::NetNs;

use std::io;
use std::path::PathBuf;

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel answered a request with an error.
    #[error("{operation}: {errno}")]
    Refused { operation: String, errno: rustix::io::Errno },
    /// The kernel's answer does not have the form that its headers promise.
    #[error("{operation}: malformed answer from the kernel")]
    Malformed { operation: String },
    /// A namespace could not be made, entered or removed.
    #[error("{operation} network namespace {path}: {source}", path = path.display())]
    Namespace { operation: &'static str, path: PathBuf, source: io::Error },
    /// A setting under /proc/sys could not be read or written.
    #[error("{operation} {path}: {source}")]
    Sysctl { operation: &'static str, path: String, source: io::Error },
}

impl Error {
    fn refused(operation: impl Into<String>, errno: rustix::io::Errno) -> Self {
        Self::Refused { operation: operation.into(), errno }
    }

    /// Whether the kernel said that the thing is not there.
    pub fn is_absent(&self) -> bool {
        use rustix::io::Errno;
        matches!(
            self,
            Self::Refused { errno: Errno::NOENT | Errno::NODEV | Errno::SRCH | Errno::ADDRNOTAVAIL, .. }
        )
    }

    /// Whether the kernel has no such thing at all, or may not say so to us: nothing of it can be there of ours.
    pub fn is_unsupported(&self) -> bool {
        use rustix::io::Errno;
        matches!(
            self,
            Self::Refused { errno: Errno::PROTONOSUPPORT | Errno::OPNOTSUPP | Errno::AFNOSUPPORT, .. }
        )
    }

    /// Whether the kernel said that the thing exists already.
    pub fn is_present(&self) -> bool {
        matches!(self, Self::Refused { errno: rustix::io::Errno::EXIST, .. })
    }
}

pub type Result<T> = std::result::Result<T, Error>;
