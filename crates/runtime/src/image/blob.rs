//! Content by its digest: a file in `blobs/sha256` has the digest that is its name, and is on disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::digest::{Digest, Hasher};
use super::lock::Operation;
use super::store::{At, Store, StoreError};

impl Store {
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir().join("blobs/sha256").join(digest.hex())
    }

    pub(super) fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    pub(super) fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.blob_path(digest);
        File::open(&path).at("opening", &path)
    }

    /// A small blob (manifest, configuration), at most `limit` bytes, checked again.
    pub(super) fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.blob_path(digest);
        let mut bytes = Vec::new();
        File::open(&path)
            .at("opening", &path)?
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .at("reading", &path)?;
        if Digest::of(&bytes) != *digest {
            return Err(StoreError::Corrupt {
                path,
                why: "its content does not have the digest of its name, or is too long".into(),
            });
        }
        Ok(bytes)
    }

    pub(super) fn put_bytes(&self, operation: &Operation, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        self.put(operation, &digest, &mut &*bytes)?;
        Ok(digest)
    }

    /// Stores what `content` yields if it has the digest, else fails.
    pub(super) fn put(
        &self,
        operation: &Operation,
        digest: &Digest,
        content: &mut dyn Read,
    ) -> Result<(), StoreError> {
        operation.uses(digest)?;
        if self.has_blob(digest) {
            return Ok(());
        }
        let mut blob = self.new_blob(operation)?;
        io::copy(content, &mut blob).at("writing", &blob.path)?;
        blob.keep(self, digest)
    }

    pub(super) fn new_blob(&self, operation: &Operation) -> Result<NewBlob, StoreError> {
        let path = operation.temporary(&self.dir().join("tmp"));
        let file = File::create_new(&path).at("creating", &path)?;
        Ok(NewBlob { path, file, hasher: Hasher::default(), bytes: 0, kept: false })
    }
}

/// A blob that is being written.
pub(super) struct NewBlob {
    pub(super) path: PathBuf,
    file: File,
    hasher: Hasher,
    pub(super) bytes: u64,
    kept: bool,
}

impl NewBlob {
    /// Forgets what was written.
    pub(super) fn restart(&mut self) -> Result<(), StoreError> {
        self.file.set_len(0).at("truncating", &self.path)?;
        io::Seek::rewind(&mut self.file).at("rewinding", &self.path)?;
        self.hasher = Hasher::default();
        self.bytes = 0;
        Ok(())
    }

    pub(super) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Gives the content its name. The content is on disk before the name is, and the name before this returns.
    pub(super) fn keep(mut self, store: &Store, wanted: &Digest) -> Result<(), StoreError> {
        let found = self.digest();
        if found != *wanted {
            return Err(StoreError::Digest { wanted: *wanted, found });
        }
        self.file.sync_all().at("flushing", &self.path)?;
        let path = store.blob_path(wanted);
        fs::rename(&self.path, &path).at("renaming to", &path)?;
        self.kept = true;
        sync_parent(&path)
    }
}

impl Write for NewBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for NewBlob {
    fn drop(&mut self) {
        if !self.kept {
            // The collector takes what could not be removed.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes a rename, creation or removal of `path` last.
pub(super) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|dir| dir.sync_all()).at("flushing", parent)
}

/// Replaces a small file so that readers, and a machine that loses power, see the old content or the new.
pub(super) fn write_whole(path: &Path, temporary: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = File::create_new(temporary).at("creating", temporary)?;
    file.write_all(bytes).at("writing", temporary)?;
    file.sync_all().at("flushing", temporary)?;
    fs::rename(temporary, path).at("renaming to", path)?;
    sync_parent(path)
}
