//! From files to state: the newest snapshot, then every batch behind it.

use std::sync::Arc;

use object::Snapshot;

use crate::disk::{Disk, DiskFile};
use crate::embedded::frame::{self, Kind, Read};
use crate::embedded::log::{LOG, Log, SNAPSHOT, UNFINISHED, id_of, log_name};
use crate::embedded::record::{Change, Reader, Trouble};
use crate::embedded::snapshot;
use crate::embedded::{OpenError, Options};
use crate::hub::Hub;

pub(crate) struct Recovered {
    pub(crate) hub: Arc<Hub>,
    pub(crate) state: Snapshot,
    pub(crate) log: Log,
    /// Something on disk is plain that should not be, or sealed with an older key.
    pub(crate) is_stale: bool,
}

/// Reads everything. Removes what a crash left half-made, and what was replaced; changes nothing else.
pub(crate) fn recover(disk: &Arc<dyn Disk>, options: &Options) -> Result<Recovered, OpenError> {
    let failed = |operation, path| move |source| OpenError::Io { operation, path, source };
    // The process before may have died with names unsynced. What is removed below must not be gone before they are there.
    disk.sync_names().map_err(failed("sync", disk.path("")))?;
    let mut logs = Vec::new();
    let mut snapshots = Vec::new();
    for (name, _) in disk.list().map_err(failed("list", disk.path("")))? {
        if name.ends_with(UNFINISHED) {
            disk.remove(&name).map_err(failed("remove", disk.path(&name)))?;
        }
        logs.extend(id_of(&name, LOG));
        snapshots.extend(id_of(&name, SNAPSHOT));
    }
    logs.sort_unstable();
    snapshots.sort_unstable();
    let next_id = logs.iter().chain(&snapshots).max().map_or(1, |newest| newest + 1);
    let mut reader = Reader::new(options.sealing.clone());
    let (base, state, sequence) = newest_snapshot(&**disk, &snapshots, &logs, &mut reader)?;
    let mut replay = Replay {
        disk: &**disk,
        hub: Hub::new(options.window, state.clone()),
        state,
        sequence,
        bytes: 0,
        reader,
        files: Vec::new(),
    };
    for id in logs.into_iter().filter(|id| *id >= base) {
        replay.file(id)?;
    }
    replay.tidy()?;
    snapshot::remove_before(&**disk, base).map_err(failed("remove", disk.path("")))?;
    let log = Log::new(disk.clone(), options.file_bytes, next_id, replay.sequence, replay.bytes);
    Ok(Recovered { hub: replay.hub, state: replay.state, log, is_stale: replay.reader.is_stale })
}

/// The newest snapshot that is whole: its id, state and next sequence. An older one serves if what follows it is still there, which the
/// sequence of the batches then shows.
fn newest_snapshot(
    disk: &dyn Disk,
    snapshots: &[u64],
    logs: &[u64],
    reader: &mut Reader,
) -> Result<(u64, Snapshot, u64), OpenError> {
    let mut damage = None;
    for &id in snapshots.iter().rev() {
        match snapshot::load(disk, id, reader) {
            Ok((state, sequence)) => return Ok((id, state, sequence)),
            Err(error @ OpenError::Corrupt { .. }) => {
                tracing::warn!(%error, "a snapshot is damaged; an older one is tried");
                damage.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    // Without a snapshot the log must begin at the beginning.
    if let Some(damage) = damage
        && logs.first() != Some(&1)
    {
        return Err(damage);
    }
    let mut fresh = Snapshot::default();
    fresh.advance(1);
    Ok((0, fresh, 1))
}

struct Replay<'a> {
    disk: &'a dyn Disk,
    hub: Arc<Hub>,
    state: Snapshot,
    /// Sequence of the batch that must come next.
    sequence: u64,
    bytes: u64,
    reader: Reader,
    /// The files that were read.
    files: Vec<End>,
}

/// Where the batches of a file end.
struct End {
    name: String,
    file: Box<dyn DiskFile>,
    at: u64,
    /// It never held a batch: a crash while it was made, or before its first was written.
    empty: bool,
}

impl Replay<'_> {
    fn file(&mut self, id: u64) -> Result<(), OpenError> {
        let disk = self.disk;
        let name = log_name(id);
        let failed = |operation| {
            let path = disk.path(&name);
            move |source| OpenError::Io { operation, path, source }
        };
        let file = disk.open(&name).map_err(failed("open"))?;
        let len = file.len().map_err(failed("read"))?;
        let corrupt = |offset, message| OpenError::Corrupt { path: disk.path(&name), offset, message };
        let (mut at, first) = match frame::read(&*file, 0, len).map_err(failed("read"))? {
            Read::Frame(head) if head.kind == Kind::LogHead => {
                let [held] = snapshot::numbers(head.payload).map_err(|message| corrupt(0, message))?;
                if held != id {
                    return Err(corrupt(0, format!("this is log {held:016x} under another name")));
                }
                (head.next, head.sequence)
            }
            Read::Newer { version, transformer } => {
                return Err(OpenError::Newer { path: disk.path(&name), version, transformer });
            }
            _ if frame::find_batch(&*file, 0, len, 0).map_err(failed("read"))?.is_some() => {
                return Err(corrupt(0, "the head is damaged, what follows is not".to_owned()));
            }
            _ => {
                self.files.push(End { name, file, at: 0, empty: true });
                return Ok(());
            }
        };
        let begins = matches!(
            frame::read(&*file, at, len).map_err(failed("read"))?,
            Read::Frame(_) | Read::Newer { .. }
        );
        if !begins && frame::find_batch(&*file, at, len, 0).map_err(failed("read"))?.is_none() {
            self.files.push(End { name, file, at, empty: true });
            return Ok(());
        }
        if first != self.sequence {
            return Err(self.gap(first, &name));
        }
        loop {
            let message = match frame::read(&*file, at, len).map_err(failed("read"))? {
                Read::Frame(frame) if frame.kind == Kind::Batch && frame.sequence == self.sequence => {
                    self.bytes += frame.next - at;
                    let next = frame.next;
                    self.batch(&frame).map_err(|trouble| trouble.at(disk.path(&name), at))?;
                    at = next;
                    continue;
                }
                Read::Frame(frame) if frame.kind == Kind::LogEnd && frame.sequence == self.sequence => {
                    at = frame.next;
                    break;
                }
                Read::Frame(_) => return Err(corrupt(at, "a batch out of order".to_owned())),
                Read::Newer { version, transformer } => {
                    return Err(OpenError::Newer { path: disk.path(&name), version, transformer });
                }
                Read::Nothing => "zeros where a batch was",
                Read::Bad(message) => message,
            };
            // Every batch is on disk before the next is written: one behind this place says that there was one here.
            match frame::find_batch(&*file, at, len, self.sequence).map_err(failed("read"))? {
                Some(later) => {
                    return Err(corrupt(
                        at,
                        format!("{message}, yet an intact batch follows at offset {later}"),
                    ));
                }
                None => break,
            }
        }
        self.files.push(End { name, file, at, empty: false });
        Ok(())
    }

    /// Batches are missing between the last file and this one.
    fn gap(&self, first: u64, name: &str) -> OpenError {
        let (path, offset) = match self.files.last() {
            Some(end) => (self.disk.path(&end.name), end.at),
            None => (self.disk.path(name), 0),
        };
        let message = format!("batch {} should be here; {name} begins with batch {first}", self.sequence);
        OpenError::Corrupt { path, offset, message }
    }

    fn batch(&mut self, frame: &frame::Frame) -> Result<(), Trouble> {
        let mut events = Vec::new();
        for (revision, changes) in self.reader.batch(frame)? {
            if revision <= self.state.revision() {
                return Err(format!("revision {revision} after {}", self.state.revision()).into());
            }
            for change in changes {
                match change {
                    Change::Put(draft) => events.push(Arc::new(self.state.put(draft.at(revision)))),
                    Change::Delete(key) => events.extend(self.state.remove(&key, revision).map(Arc::new)),
                }
            }
            self.state.advance(revision);
        }
        self.sequence += 1;
        self.hub.publish(self.state.clone(), &events);
        Ok(())
    }

    /// Cuts off what a crash left behind the last batch, and removes files that never held one, so that nothing of them is ever read.
    /// Only when everything could be read: what is damaged stays as it is.
    fn tidy(&self) -> Result<(), OpenError> {
        let failed = |operation, end: &End| {
            let path = self.disk.path(&end.name);
            move |source| OpenError::Io { operation, path, source }
        };
        for end in self.files.iter().filter(|end| end.empty) {
            self.disk.remove(&end.name).map_err(failed("remove", end))?;
        }
        let Some(last) = self.files.iter().rfind(|end| !end.empty) else { return Ok(()) };
        // The last batch may have been written but not synced. It is about to be served, so it must last.
        last.file.truncate(last.at).and_then(|()| last.file.sync()).map_err(failed("truncate", last))
    }
}
