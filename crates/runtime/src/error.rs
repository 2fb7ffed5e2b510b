//! What can go wrong with sandboxes and containers.

use crate::cgroup::CgroupError;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("sandbox {0} not found")]
    SandboxNotFound(String),
    #[error("container {0} not found")]
    ContainerNotFound(String),
    #[error("sandbox {0} is not ready")]
    SandboxNotReady(String),
    #[error("container {id} is {state}; {operation} needs it to be {wanted}")]
    WrongState { id: String, state: String, operation: &'static str, wanted: &'static str },
    #[error("{operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The configuration asks for what cannot be.
    #[error("container {name:?}: {message}")]
    Config { name: String, message: String },
    /// In the words of runc, which users know.
    #[error(
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: {message}"
    )]
    Start { id: String, message: String },
    #[error(
        "failed to exec in container: failed to start exec: OCI runtime exec failed: exec failed: unable to start container process: {message}"
    )]
    Exec { id: String, message: String },
    #[error("command {command:?} timed out after {seconds}s")]
    ExecTimeout { command: String, seconds: u64 },
    #[error("start the monitor of sandbox {sandbox}: {message}")]
    Monitor { sandbox: String, message: String },
    #[error("the monitor of sandbox {sandbox} refused: {message}")]
    Refused { sandbox: String, message: String },
    #[error("the monitor of sandbox {0} is gone")]
    MonitorGone(String),
    #[error("no signal is called {0:?}")]
    UnknownSignal(String),
}

impl RuntimeError {
    /// Whether the sandbox or container asked for does not exist, as gRPC's NotFound says in CRI.
    pub fn is_not_found(&self) -> bool {
        matches!(self, RuntimeError::SandboxNotFound(_) | RuntimeError::ContainerNotFound(_))
    }
}

/// Names what was done to which file when it fails.
pub(crate) fn at(
    operation: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.into();
    move |source| RuntimeError::Io { operation, path, source }
}
