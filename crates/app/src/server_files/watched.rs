//! A file that is looked at again and again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a file is looked at. What changes in between is seen at the next look: a second is upstream's word for "at once".
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one content of a file from another: which file it is, its size, and when it was changed.
type Stamp = (u64, u64, i64, i64);

pub(super) struct Watched {
    path: PathBuf,
    seen: Option<Stamp>,
}

impl Watched {
    /// As it is now. To be called before the file is read, so that no change is missed.
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: stamp(path) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is another content than at the last look. A file that is gone has not changed.
    pub(super) fn has_changed(&mut self) -> bool {
        let now = stamp(&self.path);
        if now.is_none() || now == self.seen {
            return false;
        }
        self.seen = now;
        true
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let told = fs::metadata(path).ok()?;
    Some((told.ino(), told.len(), told.mtime(), told.mtime_nsec()))
}
