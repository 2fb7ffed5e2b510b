//! The unit of every file of the store: a checksummed frame.
//!
//! ```text
//!  0  magic          4 bytes, two of them impossible in UTF-8, so that no JSON text holds one
//!  4  crc32c         of everything behind it, without padding
//!  8  payload bytes  u32
//! 12  version        1
//! 13  transformer    0: the payload is plain; 1: what it holds may be sealed, see `record`
//! 14  kind           see `Kind`
//! 15  zero
//! 16  sequence       u64: each batch of the log is the one before plus one, across files
//! 24  payload, then zeros up to a multiple of 8
//! ```
//!
//! All numbers are little endian. A batch of transactions is one frame, so one checksum decides over all of it. The next batch is written only
//! when this one is on disk; so a bad frame that a good later one follows is damage, and a bad frame at the end is a write that a crash cut off.

use std::io;

use bytes::Bytes;

use crate::disk::DiskFile;

pub(crate) const HEADER: usize = 24;
const MAGIC: [u8; 4] = [0xE5, 0xFF, b'k', 0xC0];
const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const SEALED: u8 = 1;
/// No frame is larger: a batch is some 6 MiB at most, a part of a snapshot 3 MiB.
const MAX_PAYLOAD: usize = 64 << 20;
const CHUNK: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// First of a log file. Payload: its id. Its sequence is that of the first batch to come.
    LogHead = 1,
    /// Transactions that became durable together.
    Batch = 2,
    /// First of a snapshot. Payload: id, revision, sequence of the next batch.
    SnapshotHead = 3,
    Objects = 4,
    /// Last of a snapshot. Payload: the number of objects.
    SnapshotEnd = 5,
    /// Last of a log file after an orderly stop: whatever is missing before it was there. Its sequence is that of the next batch.
    LogEnd = 6,
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) sequence: u64,
    pub(crate) payload: Bytes,
    /// Whether its records say of each value whether it is sealed.
    pub(crate) sealed: bool,
    /// Where the next frame begins.
    pub(crate) next: u64,
}

#[derive(Debug)]
pub(crate) enum Read {
    Frame(Frame),
    /// Zeros or the end of the file.
    Nothing,
    Bad(&'static str),
    /// Intact, but of a later version of the format or encrypted in a way that is not known.
    Newer {
        version: u8,
        transformer: u8,
    },
}

/// An empty frame to append the payload to; `finish` completes it.
pub(crate) fn start(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(HEADER, 0);
}

pub(crate) fn finish(buffer: &mut Vec<u8>, kind: Kind, sequence: u64, sealed: bool) {
    let payload = (buffer.len() - HEADER) as u32;
    buffer[..4].copy_from_slice(&MAGIC);
    buffer[8..12].copy_from_slice(&payload.to_le_bytes());
    buffer[12..16].copy_from_slice(&[VERSION, if sealed { SEALED } else { PLAIN }, kind as u8, 0]);
    buffer[16..24].copy_from_slice(&sequence.to_le_bytes());
    let crc = crc32c::crc32c(&buffer[8..]);
    buffer[4..8].copy_from_slice(&crc.to_le_bytes());
    buffer.resize(buffer.len().next_multiple_of(8), 0);
}

/// The frame at an offset of a file of `len` bytes.
pub(crate) fn read(file: &dyn DiskFile, offset: u64, len: u64) -> io::Result<Read> {
    let mut header = [0; HEADER];
    let got = file.read_at(&mut header, offset)?;
    if header.iter().all(|byte| *byte == 0) {
        return Ok(Read::Nothing);
    }
    if got < HEADER {
        return Ok(Read::Bad("the file ends within a header"));
    }
    let [magic, crc, payload] =
        [0, 4, 8].map(|at| [header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let size = u32::from_le_bytes(payload) as usize;
    if magic != MAGIC {
        return Ok(Read::Bad("no frame begins here"));
    }
    let next = offset + (HEADER + size).next_multiple_of(8) as u64;
    if size > MAX_PAYLOAD || next > len {
        return Ok(Read::Bad("the length is beyond the end of the file"));
    }
    let mut payload = vec![0; size];
    if file.read_at(&mut payload, offset + HEADER as u64)? < size {
        return Ok(Read::Bad("the file ends within a frame"));
    }
    if crc32c::crc32c_append(crc32c::crc32c(&header[8..]), &payload) != u32::from_le_bytes(crc) {
        return Ok(Read::Bad("the checksum does not match"));
    }
    let [version, transformer, kind, _] = [header[12], header[13], header[14], header[15]];
    if version != VERSION || transformer > SEALED {
        return Ok(Read::Newer { version, transformer });
    }
    let kind = match kind {
        1 => Kind::LogHead,
        2 => Kind::Batch,
        3 => Kind::SnapshotHead,
        4 => Kind::Objects,
        5 => Kind::SnapshotEnd,
        6 => Kind::LogEnd,
        _ => return Ok(Read::Bad("the kind of frame is unknown")),
    };
    let mut sequence = [0; 8];
    sequence.copy_from_slice(&header[16..24]);
    let sequence = u64::from_le_bytes(sequence);
    Ok(Read::Frame(Frame { kind, sequence, payload: payload.into(), sealed: transformer == SEALED, next }))
}

/// The offset of the first intact batch or end mark behind `offset` whose sequence is at least `sequence`.
pub(crate) fn find_batch(
    file: &dyn DiskFile,
    offset: u64,
    len: u64,
    sequence: u64,
) -> io::Result<Option<u64>> {
    let mut chunk = vec![0; CHUNK];
    let mut at = offset.next_multiple_of(8);
    while at < len {
        let got = file.read_at(&mut chunk, at)?;
        if got == 0 {
            break;
        }
        for word in (0..got.saturating_sub(3)).step_by(8) {
            if chunk[word..word + 4] != MAGIC {
                continue;
            }
            if let Read::Frame(frame) = read(file, at + word as u64, len)?
                && matches!(frame.kind, Kind::Batch | Kind::LogEnd)
                && frame.sequence >= sequence
            {
                return Ok(Some(at + word as u64));
            }
        }
        at += CHUNK as u64;
    }
    Ok(None)
}
