//! Files that must survive a crash: written aside, synced, renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What went wrong with which file.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}: {source}")]
pub struct FileError {
    pub operation: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl FileError {
    pub fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self { operation, path: path.to_owned(), source }
    }
}

/// Makes a folder and those above it, for the owner only.
pub fn make_dir(path: &Path) -> Result<(), FileError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| FileError::new("make the folder", path, error))
}

/// The whole file or nothing of it, readable by its owner only if `mode` is 0600. After return it outlives a crash.
pub fn write(path: &Path, mode: u32, content: &[u8]) -> Result<(), FileError> {
    let aside = path.with_extension(format!("new-{}", std::process::id()));
    let failed = |operation| move |error| FileError::new(operation, path, error);
    let _ = fs::remove_file(&aside);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
        .open(&aside)
        .map_err(failed("write"))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed("write"))?;
    fs::rename(&aside, path).map_err(failed("replace"))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed("sync the folder of"))
}

/// The content of a file, or None if there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::new("read", path, error)),
    }
}

pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, FileError> {
    let Some(content) = read(path)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&content);
    parsed
        .map(Some)
        .map_err(|error| FileError::new("read", path, io::Error::new(io::ErrorKind::InvalidData, error)))
}

pub fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|error| FileError::new("write", path, io::Error::new(io::ErrorKind::InvalidData, error)))?;
    write(path, 0o600, &text)
}
