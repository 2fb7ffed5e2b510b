use std::io;
use std::path::{Path, PathBuf};

/// What went wrong with a site or one of its machines.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Network(#[from] netlink::Error),
    #[error("{operation} {path}: {source}", path = path.display())]
    File { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is not what ekso wrote there: {source}", path = path.display())]
    Record { path: PathBuf, source: serde_json::Error },
    #[error("{what} {name:?} is not valid: {why}")]
    Name { what: &'static str, name: String, why: &'static str },
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
        move |source| Self::File { operation, path, source }
    }
}

/// Writes a file so that readers see the old or the new content, also after a crash.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let aside = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .map_err(Error::file("write", &aside))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(Error::file("write", &aside))?;
    std::fs::rename(&aside, path).map_err(Error::file("replace", path))
}
