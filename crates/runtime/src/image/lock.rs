//! How processes that share a store keep out of each other's way: `flock`, which the kernel releases when a process dies.
//!
//! - The store's lock is held shared, briefly, by whoever declares what it is about to use, and exclusively by the collector.
//! - An operation is a locked file that lists what it uses; one whose lock is free belongs to the dead.
//! - Striped locks keep two processes from fetching or unpacking the same thing at once.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher as _, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::digest::Digest;
use super::store::{At, StoreError};

/// A lock on a file, held while this lives.
pub(super) struct Lock(#[allow(dead_code, reason = "held for its lock")] File);

#[derive(Clone, Copy)]
pub(super) enum Hold {
    Shared,
    Exclusive,
}

impl Lock {
    /// Waits for the lock.
    pub(super) fn take(path: &Path, hold: Hold) -> Result<Lock, StoreError> {
        let file = open(path)?;
        let operation = match hold {
            Hold::Shared => FlockOperation::LockShared,
            Hold::Exclusive => FlockOperation::LockExclusive,
        };
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(Lock(file)),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).at("locking", path),
            }
        }
    }

    /// The stripe of a digest: two digests may share one, which costs time and nothing else.
    /// A task holds one stripe at most, so there is no order to keep.
    pub(super) fn stripe(dir: &Path, what: &str, digest: &Digest) -> Result<Lock, StoreError> {
        Lock::take(&dir.join(format!("{what}-{:02x}", digest.first_byte())), Hold::Exclusive)
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new().read(true).append(true).create(true).open(path).at("opening", path)
}

/// True when another open file holds a lock on `path`; false also when the file is gone.
pub(super) fn is_held(path: &Path) -> Result<bool, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).at("opening", path),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno).at("locking", path),
    }
}

/// Work in progress: what it names is safe from the collector until this is dropped or the process dies.
pub(super) struct Operation {
    id: String,
    path: PathBuf,
    store_lock: PathBuf,
    file: Mutex<(File, u32)>,
}

impl Operation {
    pub(super) fn begin(operations: &Path, store_lock: &Path) -> Result<Operation, StoreError> {
        let _guard = Lock::take(store_lock, Hold::Shared)?;
        loop {
            let id = format!("{:016x}", RandomState::new().build_hasher().finish());
            let path = operations.join(&id);
            let file = match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error).at("creating", &path),
            };
            flock(&file, FlockOperation::NonBlockingLockExclusive).at("locking", &path)?;
            return Ok(Operation {
                id,
                path,
                store_lock: store_lock.to_path_buf(),
                file: Mutex::new((file, 0)),
            });
        }
    }

    /// Declares use of a digest. Whether it is in the store must be looked at after this, not before.
    pub(super) fn uses(&self, digest: &Digest) -> Result<(), StoreError> {
        let _guard = Lock::take(&self.store_lock, Hold::Shared)?;
        let mut file = self.file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        writeln!(file.0, "{digest}").at("writing", &self.path)
    }

    /// A path for work in progress, unique in the store; it is collected when this operation is over.
    pub(super) fn temporary(&self, dir: &Path) -> PathBuf {
        let mut file = self.file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        file.1 += 1;
        dir.join(format!("{}.{}", self.id, file.1))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        // If this fails, the collector finds the file unlocked.
        let _ = std::fs::remove_file(&self.path);
    }
}
