//! The store's files, as a broken disk or another program may have left them.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use store::disk::{Disk, DiskFile};
use store::{Embedded, Options, Store, Window};

pub const EXAMPLES: &[&[u8]] = &[
    // Which file, and whether its frames are given their checksums: then a kind, a length and a payload each.
    b"\x01\x01\x08\x01\0\0\0\0\0\0\0",
    b"\x03\x03\x18\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x04\x00\x05\x08\0\0\0\0\0\0\0\0",
    b"\x01\x01\x08\x01\0\0\0\0\0\0\0\x02\x10abcdefghijklmnop",
];

type Bytes = Arc<Mutex<Vec<u8>>>;

/// Files in memory.
#[derive(Default)]
struct Files(Mutex<BTreeMap<String, Bytes>>);

struct File(Bytes);

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for Files {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(lock(&self.0).iter().map(|(name, bytes)| (name.clone(), lock(bytes).len() as u64)).collect())
    }

    fn create(&self, name: &str, allocate: u64) -> io::Result<Box<dyn DiskFile>> {
        let bytes: Bytes = Arc::new(Mutex::new(vec![0; usize::try_from(allocate).unwrap_or(0)]));
        lock(&self.0).insert(name.to_owned(), bytes.clone());
        Ok(Box::new(File(bytes)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let bytes = lock(&self.0).get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(File(bytes)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = lock(&self.0);
        let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.0).remove(name);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        name.to_owned()
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = lock(&self.0);
        let rest = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, written: &[u8], offset: u64) -> io::Result<()> {
        let (mut bytes, start) = (lock(&self.0), usize::try_from(offset).map_err(io::Error::other)?);
        let end = start + written.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(written);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        lock(&self.0).truncate(usize::try_from(len).map_err(io::Error::other)?);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A frame with a good checksum, so that what is in it is looked at.
fn frame(kind: u8, sequence: u64, payload: &[u8], to: &mut Vec<u8>) {
    let mut rest = u32::try_from(payload.len()).unwrap_or(0).to_le_bytes().to_vec();
    rest.extend_from_slice(&[1, 0, kind, 0]);
    rest.extend_from_slice(&sequence.to_le_bytes());
    rest.extend_from_slice(payload);
    to.extend_from_slice(&[0xE5, 0xFF, b'k', 0xC0]);
    to.extend_from_slice(&crc32c::crc32c(&rest).to_le_bytes());
    to.extend_from_slice(&rest);
    to.resize(to.len().next_multiple_of(8), 0);
}

fn frames(mut bytes: &[u8]) -> Vec<u8> {
    let (mut file, mut sequence) = (Vec::new(), 0);
    while let [kind, length, rest @ ..] = bytes {
        let (payload, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        frame(*kind, sequence.max(1), payload, &mut file);
        sequence += u64::from(*kind == 2 || sequence == 0);
        bytes = rest;
    }
    file
}

/// Opens a folder whose one file is made of the bytes: whatever it finds there, it says so or goes on.
pub fn recover(bytes: &[u8]) {
    let Some((&how, bytes)) = bytes.split_first() else { return };
    let content = if how & 1 == 1 { frames(bytes) } else { bytes.to_vec() };
    let name = if how & 2 == 2 { "snapshot-0000000000000001" } else { "log-0000000000000001" };
    let disk = Files::default();
    lock(&disk.0).insert(name.to_owned(), Arc::new(Mutex::new(content)));
    let options = Options { file_bytes: 1 << 16, window: Window::default(), ..Options::default() };
    if let Ok(store) = Embedded::open_on(Arc::new(disk), options)
        && let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build()
    {
        runtime.block_on(store.close());
    }
}
