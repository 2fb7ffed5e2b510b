//! A file in a user's home: locked, read, replaced whole.
//!
//! To be used with that user's rights ([`Owner::with_rights`](crate::owner::Owner::with_rights)): then no link in the home can lead root
//! astray, and one that the user made there is followed.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use files::FileError;

#[derive(Debug, thiserror::Error)]
pub enum UserFileError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} is locked by another program; if none runs, remove {path}.lock")]
    Locked { path: PathBuf },
}

/// A file that nobody else changes meanwhile. The lock is a file beside it that only one can create, as kubectl's own.
pub struct UserFile {
    path: PathBuf,
    lock: PathBuf,
}

impl UserFile {
    /// Locks a file, which need not be there yet; its folder is made.
    pub fn lock(path: &Path) -> Result<Self, UserFileError> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            files::make_dir(parent)?;
        }
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut name = path.clone().into_os_string();
        name.push(".lock");
        let lock = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock) {
            Ok(_) => Ok(Self { path, lock }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(UserFileError::Locked { path }),
            Err(error) => Err(FileError::new("lock", &lock, error).into()),
        }
    }

    /// Where it really is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn read(&self) -> Result<Option<Vec<u8>>, FileError> {
        files::read(&self.path)
    }

    /// The mode of the file; of one that is not there, its owner's alone.
    pub fn mode(&self) -> u32 {
        self.path.metadata().map_or(0o600, |known| known.permissions().mode() & 0o777)
    }

    pub fn write(&self, mode: u32, content: &[u8]) -> Result<(), FileError> {
        files::write(&self.path, mode, content)
    }

    pub fn remove(&self) -> Result<(), FileError> {
        std::fs::remove_file(&self.path).map_err(|error| FileError::new("remove", &self.path, error))
    }
}

impl Drop for UserFile {
    fn drop(&mut self) {
        // The next who wants the file is told of a lock that stays, and its mend.
        let _ = std::fs::remove_file(&self.lock);
    }
}
