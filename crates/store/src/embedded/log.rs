//! The files of the log: which there are, and appending to the newest.
//!
//! ```text
//! snapshot-000000000000000b   the state before the first batch of log …0b
//! log-000000000000000b        head, batches, zeros
//! log-000000000000000c        continues where …0b ends; both are replayed on top of snapshot …0b
//! ```
//!
//! A file's bytes are reserved when it is made, so that a full disk is met before a batch is written and not in the middle of one.

use std::io;
use std::sync::Arc;

use crate::StoreError;
use crate::disk::{Disk, DiskFile};
use crate::embedded::frame::{self, Kind};
use crate::embedded::record;

pub(crate) const LOG: &str = "log-";
pub(crate) const SNAPSHOT: &str = "snapshot-";
pub(crate) const UNFINISHED: &str = ".new";

pub(crate) fn log_name(id: u64) -> String {
    format!("{LOG}{id:016x}")
}

pub(crate) fn snapshot_name(id: u64) -> String {
    format!("{SNAPSHOT}{id:016x}")
}

/// The id in a name, if it is one of these.
pub(crate) fn id_of(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    file_bytes: u64,
    current: Option<Current>,
    next_id: u64,
    /// Sequence of the next batch.
    sequence: u64,
    /// Bytes of batches since the last snapshot was begun.
    appended: u64,
}

struct Current {
    name: String,
    file: Box<dyn DiskFile>,
    end: u64,
    len: u64,
}

#[derive(Debug)]
pub(crate) enum AppendError {
    /// Nothing of the batch will ever be read; the next may succeed.
    Refused(StoreError),
    /// It cannot be known what is on disk. This file must not be written any more.
    Unknown(StoreError),
}

impl Log {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        file_bytes: u64,
        next_id: u64,
        sequence: u64,
        appended: u64,
    ) -> Self {
        Self { disk, file_bytes, current: None, next_id, sequence, appended }
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn appended(&self) -> u64 {
        self.appended
    }

    /// Writes the payload in `buffer` (begun with `frame::start`) as one batch and makes it durable.
    pub(crate) fn append(&mut self, buffer: &mut Vec<u8>, sealed: bool) -> Result<(), AppendError> {
        frame::finish(buffer, Kind::Batch, self.sequence, sealed);
        let size = buffer.len() as u64;
        if self.current.as_ref().is_none_or(|current| current.end + size > current.len) {
            self.roll(size).map_err(AppendError::Refused)?;
        }
        let Some(current) = &mut self.current else {
            return Err(AppendError::Refused(StoreError::Closed));
        };
        if let Err(error) = current.file.write_at(buffer, current.end) {
            let full = is_full(&error);
            let error = store_error("write", self.disk.path(&current.name), &error);
            // What was written of it lies behind the end, and the next batch is written over it.
            return Err(if full { AppendError::Refused(error) } else { AppendError::Unknown(error) });
        }
        if let Err(error) = current.file.sync() {
            return Err(AppendError::Unknown(store_error("sync", self.disk.path(&current.name), &error)));
        }
        current.end += size;
        self.sequence += 1;
        self.appended += size;
        Ok(())
    }

    /// Continues in a new file with room for a batch of `size`; returns the file's id.
    pub(crate) fn roll(&mut self, size: u64) -> Result<u64, StoreError> {
        let id = self.next_id;
        let name = log_name(id);
        let mut head = Vec::new();
        frame::start(&mut head);
        record::write_numbers(&mut head, &[id]);
        frame::finish(&mut head, Kind::LogHead, self.sequence, false);
        let end = head.len() as u64;
        let len = self.file_bytes.max(end + size);
        // Whatever happens now, the name is used: an unfinished file has no batch, and recovery removes it.
        self.next_id += 1;
        let made = self.disk.create(&name, len).and_then(|file| {
            file.write_at(&head, 0)?;
            file.sync()?;
            self.disk.sync_names()?;
            Ok(file)
        });
        let file = match made {
            Ok(file) => file,
            Err(error) => {
                // What stays holds no batch, and is removed by the next start.
                let _ = self.disk.remove(&name);
                return Err(store_error("create", self.disk.path(&name), &error));
            }
        };
        if let Some(full) = self.current.replace(Current { name, file, end, len }) {
            // Gives back the room that was not used. If it fails, only room is lost.
            let _ = full.file.truncate(full.end);
        }
        Ok(id)
    }

    /// An orderly stop: marks the end, so that the next start can vouch for the last batch too.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let mut mark = Vec::new();
        frame::start(&mut mark);
        frame::finish(&mut mark, Kind::LogEnd, self.sequence, false);
        current.file.write_at(&mark, current.end)?;
        current.file.truncate(current.end + mark.len() as u64)?;
        current.file.sync()
    }

    /// A snapshot now begins at the newest file: what was appended before does not count any more.
    pub(crate) fn restart_count(&mut self) {
        self.appended = 0;
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

pub(crate) fn store_error(operation: &'static str, path: String, error: &io::Error) -> StoreError {
    if is_full(error) {
        StoreError::Full { path }
    } else {
        StoreError::Io { operation, path, message: error.to_string() }
    }
}
