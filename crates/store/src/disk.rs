//! What the log needs of a folder: a trait, so that tests can let a disk lie, tear, fill up and stop at any point.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// One folder, flat. Names are plain file names.
///
/// Nothing is durable before it was synced: bytes by `DiskFile::sync`, names by `sync_names`.
pub trait Disk: Send + Sync + 'static {
    /// Every file's name and length, in no order.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// A new file, read and written; fails if there is one. The first `allocate` bytes are zero and have their room.
    fn create(&self, name: &str, allocate: u64) -> io::Result<Box<dyn DiskFile>>;
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_names(&self) -> io::Result<()>;
    /// A file as messages name it.
    fn path(&self, name: &str) -> String;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Send {
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills the buffer from an offset; fewer bytes only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes contents and length durable.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the host, 0700, its files 0600, and held by one process at a time.
pub struct Folder {
    path: PathBuf,
    lock: fs::File,
}

/// A process that is just being started may share the file until it runs its program; so closing it alone could leave the folder held.
impl Drop for Folder {
    fn drop(&mut self) {
        // If it fails, the lock ends with the file.
        let _ = self.lock.unlock();
    }
}

/// Why a folder could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{path} is in use by process {pid}: stop that server or give this one another folder")]
    Locked { path: String, pid: String },
    #[error("{operation} {path}: {source}")]
    Io { operation: &'static str, path: String, source: io::Error },
}

impl Folder {
    /// Makes the folder if it is not there, and takes its lock. The lock ends with the value, or with the process.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let failed = |operation, path: &Path| {
            let path = path.display().to_string();
            move |source| FolderError::Io { operation, path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create", path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed("protect", path))?;
        let lock_path = path.join("lock");
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(&lock_path).map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut pid = String::new();
                lock.read_to_string(&mut pid).map_err(failed("read", &lock_path))?;
                let pid = if pid.trim().is_empty() { "unknown" } else { pid.trim() }.to_owned();
                return Err(FolderError::Locked { path: path.display().to_string(), pid });
            }
            Err(fs::TryLockError::Error(source)) => return Err(failed("lock", &lock_path)(source)),
        }
        let written = lock
            .set_len(0)
            .and_then(|()| lock.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(lock, "{}", std::process::id()));
        written.map_err(failed("write", &lock_path))?;
        Ok(Self { path: path.to_owned(), lock })
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // A name that is not UTF-8 is none of ours. A file that goes meanwhile was a snapshot's, and is replaced.
            if let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) {
                files.push((name, meta.len()));
            }
        }
        Ok(files)
    }

    fn create(&self, name: &str, allocate: u64) -> io::Result<Box<dyn DiskFile>> {
        let path = self.path.join(name);
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        if allocate > 0
            && let Err(error) = reserve(&file, allocate)
        {
            // Best effort: an empty file is harmless and the next start removes it.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(fs::OpenOptions::new().read(true).write(true).open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }

    fn path(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

/// Room for the first bytes, as zeros. File systems that cannot reserve get zeros written.
fn reserve(file: &fs::File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let zeros = vec![0; 1 << 20];
            let mut at = 0;
            while at < bytes {
                let part = (bytes - at).min(zeros.len() as u64) as usize;
                file.write_all_at(&zeros[..part], at)?;
                at += part as u64;
            }
            Ok(())
        }
        Err(errno) => Err(errno.into()),
    }
}

impl DiskFile for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn a_folder_is_private_and_held_once() {
        let above = tempfile::tempdir().expect("a folder");
        let path = above.path().join("state");
        let folder = Folder::open(&path).expect("it is made");
        drop(folder.create("a", 4096).expect("a file"));
        assert_eq!([mode(&path), mode(&path.join("a")), mode(&path.join("lock"))], [0o700, 0o600, 0o600]);
        let error = Folder::open(&path).err().expect("it is held").to_string();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(folder);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("opened up");
        drop(Folder::open(&path).expect("it is free again"));
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_file_does_what_is_asked_of_it() {
        let above = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(above.path()).expect("open");
        let file = folder.create("a", 100).expect("a file");
        assert!(folder.create("a", 0).is_err(), "no file is made twice");
        file.write_at(b"text", 98).expect("written");
        let mut all = [1; 200];
        assert_eq!(file.read_at(&mut all, 0).expect("read"), 102);
        assert_eq!((&all[..98], &all[98..102]), (&[0; 98][..], &b"text"[..]));
        file.truncate(99).and_then(|()| file.sync()).expect("cut");
        folder.rename("a", "b").and_then(|()| folder.sync_names()).expect("renamed");
        let mut files = folder.list().expect("files");
        files.sort();
        assert_eq!(files.iter().map(|(name, len)| (&**name, *len)).next(), Some(("b", 99)));
        folder.remove("b").expect("removed");
        assert!(folder.open("b").is_err());
    }
}
