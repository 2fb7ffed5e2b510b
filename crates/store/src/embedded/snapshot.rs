//! Snapshot files: the whole state at one point, so that the log before it can go.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use object::Snapshot;

use crate::Sealing;
use crate::disk::{Disk, DiskFile};
use crate::embedded::OpenError;
use crate::embedded::frame::{self, Kind, Read};
use crate::embedded::log::{LOG, SNAPSHOT, UNFINISHED, id_of, snapshot_name};
use crate::embedded::record::{self, Reader, Trouble};

/// Objects are written in parts of about this size.
const PART: usize = 1 << 20;

/// A snapshot to be written: `state` is what all batches before `sequence` led to, and log `id` begins with that one.
pub(crate) struct Job {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) state: Snapshot,
    pub(crate) id: u64,
    pub(crate) sequence: u64,
    /// Set when the store closes: a half-written snapshot is given up.
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) sealing: Option<Arc<Sealing>>,
}

impl Job {
    /// Writes the snapshot aside, makes it durable, gives it its name, and removes what it replaces.
    pub(crate) fn run(&self) -> io::Result<()> {
        let name = snapshot_name(self.id);
        let aside = format!("{name}{UNFINISHED}");
        let written = self.write(&aside).and_then(|()| {
            self.disk.rename(&aside, &name)?;
            self.disk.sync_names()
        });
        if let Err(error) = written {
            // What stays is unfinished by its name, and removed by the next start.
            let _ = self.disk.remove(&aside);
            return Err(error);
        }
        remove_before(&*self.disk, self.id)
    }

    fn write(&self, aside: &str) -> io::Result<()> {
        let file = self.disk.create(aside, 0)?;
        let sealing = self.sealing.as_deref();
        let buffer = Vec::with_capacity(PART + PART / 4);
        let mut out = Parts { file: &*file, at: 0, sequence: 0, buffer, sealed: sealing.is_some() };
        frame::start(&mut out.buffer);
        record::write_numbers(&mut out.buffer, &[self.id, self.state.revision(), self.sequence]);
        out.flush(Kind::SnapshotHead)?;
        let mut count = 0;
        for (_, table) in self.state.tables() {
            for object in table.iter() {
                record::write_object(&mut out.buffer, object, sealing).map_err(io::Error::other)?;
                count += 1;
                if out.buffer.len() >= PART {
                    out.flush(Kind::Objects)?;
                    if self.stop.load(Ordering::Relaxed) {
                        return Err(io::Error::new(io::ErrorKind::Interrupted, "the store is closing"));
                    }
                }
            }
        }
        out.flush(Kind::Objects)?;
        record::write_numbers(&mut out.buffer, &[count]);
        out.flush(Kind::SnapshotEnd)?;
        file.sync()
    }
}

struct Parts<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    sequence: u64,
    buffer: Vec<u8>,
    sealed: bool,
}

impl Parts<'_> {
    fn flush(&mut self, kind: Kind) -> io::Result<()> {
        frame::finish(&mut self.buffer, kind, self.sequence, self.sealed && kind == Kind::Objects);
        self.file.write_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.sequence += 1;
        frame::start(&mut self.buffer);
        Ok(())
    }
}

/// Removes logs and snapshots that snapshot `id` makes superfluous.
pub(crate) fn remove_before(disk: &dyn Disk, id: u64) -> io::Result<()> {
    let mut removed = false;
    for (name, _) in disk.list()? {
        let held = id_of(&name, LOG).or_else(|| id_of(&name, SNAPSHOT));
        if held.is_some_and(|held| held < id) {
            disk.remove(&name)?;
            removed = true;
        }
    }
    if removed { disk.sync_names() } else { Ok(()) }
}

/// The state of a snapshot file, and the sequence of the batch that follows it.
pub(crate) fn load(disk: &dyn Disk, id: u64, reader: &mut Reader) -> Result<(Snapshot, u64), OpenError> {
    let name = snapshot_name(id);
    let failed = |source| OpenError::Io { operation: "read", path: disk.path(&name), source };
    let file = disk.open(&name).map_err(failed)?;
    let len = file.len().map_err(failed)?;
    let mut state = Snapshot::default();
    let (mut at, mut expected, mut count, mut head) = (0, 0, 0, None);
    loop {
        let corrupt = |message: String| OpenError::Corrupt { path: disk.path(&name), offset: at, message };
        let frame = match frame::read(&*file, at, len).map_err(failed)? {
            Read::Frame(frame) if frame.sequence == expected => frame,
            Read::Frame(_) => return Err(corrupt("a part is missing before this one".to_owned())),
            Read::Nothing => return Err(corrupt("the snapshot ends too early".to_owned())),
            Read::Bad(message) => return Err(corrupt(message.to_owned())),
            Read::Newer { version, transformer } => {
                return Err(OpenError::Newer { path: disk.path(&name), version, transformer });
            }
        };
        match (frame.kind, head) {
            (Kind::SnapshotHead, None) => {
                let [held, revision, sequence] = numbers(frame.payload).map_err(corrupt)?;
                if held != id {
                    return Err(corrupt(format!("this is snapshot {held:016x} under another name")));
                }
                state.advance(revision);
                head = Some((revision, sequence));
            }
            (Kind::Objects, Some((revision, _))) => {
                for object in reader.objects(&frame).map_err(|trouble| trouble.at(disk.path(&name), at))? {
                    if object.revision > revision {
                        return Err(corrupt(format!("{} is newer than the snapshot", object.key)));
                    }
                    state.put(object);
                    count += 1;
                }
            }
            (Kind::SnapshotEnd, Some((_, sequence))) => {
                let [held] = numbers(frame.payload).map_err(corrupt)?;
                if held != count {
                    return Err(corrupt(format!("{held} objects were written, {count} are there")));
                }
                return Ok((state, sequence));
            }
            _ => return Err(corrupt("a part out of place".to_owned())),
        }
        at = frame.next;
        expected += 1;
    }
}

impl Trouble {
    /// Met at an offset of a file.
    pub(crate) fn at(self, path: String, offset: u64) -> OpenError {
        match self {
            Self::Nonsense(message) => OpenError::Corrupt { path, offset, message },
            Self::Sealed(error) => OpenError::Sealed { path, error },
        }
    }
}

/// The numbers that make up a head or an end.
pub(crate) fn numbers<const N: usize>(mut payload: Bytes) -> Result<[u64; N], record::Nonsense> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = record::take_number(&mut payload)?;
    }
    Ok(numbers)
}
