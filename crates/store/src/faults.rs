//! A disk in memory that forgets, tears, fills up, refuses and stops, as told.
//!
//! What was written but not synced is a list of pending operations; a power cut keeps an arbitrary part of it, sector by sector.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// A small generator of its own: a run is its seed.
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// splitmix64
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone)]
enum Pending {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Pending {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) => {
                contents.resize(contents.len().max(at + bytes.len()), 0);
                contents[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Length(len) => contents.resize(*len, 0),
        }
    }
}

/// What is known of a change to a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Synced.
    Durable,
    /// Not synced yet: a power cut decides.
    Open,
    /// Its sync failed: a power cut decides, for the kernel takes it for written and no later sync writes it.
    Doubtful,
    /// The disk said that it was written, and lied.
    Lost,
}

#[derive(Clone, Default)]
struct Node {
    live: Vec<u8>,
    changes: Vec<(Pending, Fate)>,
}

#[derive(Clone)]
enum NameOp {
    Link(String, usize),
    Rename(String, String),
    Remove(String),
}

impl NameOp {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
            Self::Remove(name) => drop(names.remove(name)),
        }
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Self::Link(name, _) | Self::Remove(name) => vec![name],
            Self::Rename(from, to) => vec![from, to],
        }
    }
}

#[derive(Clone, Default)]
pub(crate) struct State {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameOp>,
    /// Changes so far.
    pub(crate) changes: usize,
    /// The power goes during this change.
    pub(crate) cut_at: Option<usize>,
    cut: bool,
    /// Bytes that all files together may have.
    pub(crate) capacity: Option<usize>,
    /// Which of the next syncs of files fail with EIO.
    pub(crate) failing_syncs: VecDeque<bool>,
    /// The next sync of a file says that all is well and does nothing.
    pub(crate) lying_sync: bool,
    /// The next write stops after so many bytes, for want of space.
    pub(crate) short_write: Option<usize>,
}

#[derive(Clone, Default)]
pub(crate) struct FaultDisk(Arc<Mutex<State>>);

/// How much of what was not synced a power cut keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keep {
    Nothing,
    Everything,
    Some,
}

impl FaultDisk {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as the next start finds it.
    pub(crate) fn after_power_cut(&self, keep: Keep, random: &mut Random) -> Self {
        let mut state = self.state().clone();
        let kept = |random: &mut Random| match keep {
            Keep::Nothing => false,
            Keep::Everything => true,
            Keep::Some => random.chance(50),
        };
        let mut names = state.durable_names.clone();
        let mut lost: Vec<&str> = Vec::new();
        for op in &state.pending_names {
            if op.names().iter().any(|name| lost.contains(name)) || !kept(random) {
                lost.extend(op.names());
            } else {
                op.apply(&mut names);
            }
        }
        for node in &mut state.nodes {
            let mut contents = Vec::new();
            for (change, fate) in &node.changes {
                match (fate, change) {
                    (Fate::Durable, _) => change.apply(&mut contents),
                    (Fate::Lost, _) => {}
                    (_, Pending::Length(_)) if !kept(random) => {}
                    (_, Pending::Length(_)) => change.apply(&mut contents),
                    (_, Pending::Write(at, bytes)) => {
                        for (at, part) in sectors(*at, bytes) {
                            let torn = matches!(keep, Keep::Some) && random.chance(5);
                            let part = if torn { &part[..random.below(part.len())] } else { part };
                            if kept(random) {
                                Pending::Write(at, part.to_vec()).apply(&mut contents);
                            }
                        }
                    }
                }
            }
            *node =
                Node { live: contents.clone(), changes: vec![(Pending::Write(0, contents), Fate::Durable)] };
        }
        let after =
            State { nodes: state.nodes, names: names.clone(), durable_names: names, ..State::default() };
        Self(Arc::new(Mutex::new(after)))
    }

    /// The disk as the next process finds it when only this one died: all that was written is seen, and still not durable.
    pub(crate) fn after_process_death(&self) -> Self {
        let state = State { changes: 0, cut: false, cut_at: None, ..self.state().clone() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The contents of a file, to look at and to damage behind the store's back.
    pub(crate) fn with_contents<T>(&self, name: &str, look: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut state = self.state();
        let node = state.names[name];
        let result = look(&mut state.nodes[node].live);
        let contents = state.nodes[node].live.clone();
        state.nodes[node].changes = vec![(Pending::Write(0, contents), Fate::Durable)];
        result
    }
}

/// A write in the pieces that reach the disk one by one.
fn sectors(at: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let head = (SECTOR - at % SECTOR).min(bytes.len());
    let (head, rest) = bytes.split_at(head);
    let rest_at = at + head.len();
    let rest = rest.chunks(SECTOR).enumerate().map(move |(nth, part)| (rest_at + nth * SECTOR, part));
    std::iter::once((at, head)).filter(|(_, head)| !head.is_empty()).chain(rest)
}

impl State {
    /// Counts a change; true if the power goes during it.
    fn step(&mut self) -> io::Result<bool> {
        if self.cut {
            return Err(no_power());
        }
        self.changes += 1;
        self.cut = self.cut_at == Some(self.changes);
        Ok(self.cut)
    }

    pub(crate) fn names_are_synced(&self) -> bool {
        self.pending_names.is_empty()
    }

    fn room(&self) -> usize {
        let used: usize = self.names.values().map(|node| self.nodes[*node].live.len()).sum();
        self.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(used))
    }

    fn change(&mut self, node: usize, op: Pending) {
        op.apply(&mut self.nodes[node].live);
        self.nodes[node].changes.push((op, Fate::Open));
    }

    fn rename(&mut self, op: NameOp) {
        op.apply(&mut self.names);
        self.pending_names.push(op);
    }
}

fn no_power() -> io::Error {
    io::Error::other("no power")
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

fn ends(cut: bool) -> io::Result<()> {
    if cut { Err(no_power()) } else { Ok(()) }
}

impl Disk for FaultDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.state();
        Ok(state
            .names
            .iter()
            .map(|(name, node)| (name.clone(), state.nodes[*node].live.len() as u64))
            .collect())
    }

    fn create(&self, name: &str, allocate: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let cut = state.step()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.room() < allocate as usize {
            return Err(full());
        }
        let node = state.nodes.len();
        state.nodes.push(Node::default());
        state.change(node, Pending::Length(allocate as usize));
        state.rename(NameOp::Link(name.to_owned(), node));
        ends(cut)?;
        Ok(Box::new(File { disk: self.clone(), node }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let node = *self.state().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(File { disk: self.clone(), node }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.step()?;
        state.rename(NameOp::Rename(from.to_owned(), to.to_owned()));
        ends(cut)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.step()?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.rename(NameOp::Remove(name.to_owned()));
        ends(cut)
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        ends(state.step()?)?;
        for op in std::mem::take(&mut state.pending_names) {
            op.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        format!("/faults/{name}")
    }
}

struct File {
    disk: FaultDisk,
    node: usize,
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().nodes[self.node].live.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let rest = state.nodes[self.node].live.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let cut = state.step()?;
        let offset = offset as usize;
        let beyond = (offset + bytes.len()).saturating_sub(state.nodes[self.node].live.len());
        let lacking = beyond.saturating_sub(state.room());
        let short = state.short_write.take().unwrap_or(usize::MAX);
        let written = bytes.len().saturating_sub(lacking).min(short);
        state.change(self.node, Pending::Write(offset, bytes[..written].to_vec()));
        ends(cut)?;
        if written < bytes.len() { Err(full()) } else { Ok(()) }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let cut = state.step()?;
        state.change(self.node, Pending::Length(len as usize));
        ends(cut)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        ends(state.step()?)?;
        let fails = state.failing_syncs.pop_front().unwrap_or(false);
        let lies = std::mem::take(&mut state.lying_sync);
        for (_, fate) in state.nodes[self.node].changes.iter_mut().filter(|(_, fate)| *fate == Fate::Open) {
            *fate = match (fails, lies) {
                (true, _) => Fate::Doubtful,
                (_, true) => Fate::Lost,
                _ => Fate::Durable,
            };
        }
        if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}
