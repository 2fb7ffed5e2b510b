use std::io;
use std::path::{Path, PathBuf};

use files::FileError;

/// What went wrong with a site or one of its machines.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Network(#[from] netlink::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} is not what ekso wrote there: {source}", path = path.display())]
    Record { path: PathBuf, source: serde_json::Error },
    #[error("{what} {name:?} is not valid: {why}")]
    Name { what: &'static str, name: String, why: &'static str },
    #[error("VPC {id}: {what}")]
    Vpc { id: String, what: String },
    #[error("the site is not up")]
    Down,
    #[error("no free network is left in 198.18.0.0/15 for the site; `ip route` shows who has them")]
    NoFreePool,
    #[error("no free address is left in {0}")]
    NoFreeAddress(String),
    #[error("machine {name} did not start: {why}")]
    Start { name: String, why: String },
    #[error("machine {name} (process {pid}): {source}")]
    Process { name: String, pid: u32, source: io::Error },
    #[error("site {id} is deleted, but these are left: {}", left.join(", "))]
    Leftover { id: String, left: Vec<String> },
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn file(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| FileError { operation, path, source }.into()
    }
}
