//! Small files that must survive a crash: written aside, synced, renamed.
//!
//! The records, keys and certificates of a site, its machines and its nodes. What has its own ways with the disk (the store's log, the
//! images' blobs) does not come here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What went wrong with which file.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}: {source}", path = path.display())]
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

/// Two writes of one file must not meet in the place beside it: one at a time in a process.
static WRITING: Mutex<()> = Mutex::new(());

/// Replaces the whole file or nothing of it; it gets this mode, 0600 for what only its owner may read. After return it outlives a
/// crash. One process at a time writes a file; of two writes at once in it the one that ends last stays.
pub fn write(path: &Path, mode: u32, content: &[u8]) -> Result<(), FileError> {
    let _one_at_a_time = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let aside = path.with_extension(format!("new-{}", std::process::id()));
    let failed = |operation| move |error| FileError::new(operation, path, error);
    // Of a process that died while it wrote and had our number; mostly there is none. One that stays is told by what follows.
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

/// What a JSON file holds, or None if there is none.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, FileError> {
    let Some(content) = read(path)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&content);
    parsed
        .map(Some)
        .map_err(|error| FileError::new("read", path, io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// Writes a value as JSON, for the owner only.
pub fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let text = serde_json::to_vec_pretty(value)
        .map_err(|error| FileError::new("write", path, io::Error::new(io::ErrorKind::InvalidData, error)))?;
    write(path, 0o600, &text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("keys").join("admin.key");
        assert_eq!(read(&path).expect("read"), None);
        make_dir(path.parent().expect("a parent")).expect("made");
        write(&path, 0o644, b"old and long").expect("written");
        // Left by one that was killed, and not to be followed.
        let aside = path.with_extension(format!("new-{}", std::process::id()));
        std::os::unix::fs::symlink("/proc/self/comm", &aside).expect("linked");
        write(&path, 0o600, b"new").expect("written again");
        assert_eq!(read(&path).expect("read").as_deref(), Some(&b"new"[..]));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().expect("a parent")).expect("listed").count(), 1);
    }

    #[test]
    fn writes_at_once_do_not_meet() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("cluster.json");
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let path = &path;
                scope
                    .spawn(move || (0..20).for_each(|_| write(path, 0o600, &[writer; 64]).expect("written")));
            }
        });
        let kept = read(&path).expect("read").expect("there");
        assert!(kept.len() == 64 && kept.iter().all(|byte| *byte == kept[0]));
    }

    #[test]
    fn what_is_not_json_is_told_with_its_path() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("site.json");
        write_json(&path, &[1, 2]).expect("written");
        assert_eq!(read_json::<Vec<u8>>(&path).expect("read"), Some(vec![1, 2]));
        write(&path, 0o600, b"{").expect("written");
        let error = read_json::<Vec<u8>>(&path).expect_err("malformed").to_string();
        assert!(error.starts_with(&format!("read {}", path.display())), "{error}");
    }
}
