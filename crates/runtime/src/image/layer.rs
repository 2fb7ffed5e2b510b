//! Unpacks one layer (OCI image-spec, "Image Layer Filesystem Changeset") into an overlayfs lower directory.
//! Deletions become character devices 0/0, and "all of this directory" the attribute `trusted.overlay.opaque`.
//!
//! A layer is unpacked over those below it: a directory that an archive only implies takes its mode and owner from
//! below, a symbolic link below is followed, and a hard link may name a file from below.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Uid};

use super::decode::Decoder;
use super::digest::{Digest, HashingReader};
use super::limits::{Devices, Limits, OverLimit};
use super::tarball::{Entry, Kind, Tar, TarError};
use super::tree::{self, Found, Place, Tree, TreeError};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
/// Bookkeeping of aufs, of no use to anyone else.
const AUFS: &[u8] = b".wh..wh.";
const NAME_BYTES: usize = 255;

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("{op} {path}: {source}")]
    Io { op: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error("{entry:?}: {source}")]
    Tree { entry: String, source: TreeError },
    #[error("{entry:?}: {why}")]
    Refused { entry: String, why: &'static str },
    #[error("{entry:?}: {source}")]
    Limit { entry: String, source: OverLimit },
    #[error("the content has the digest {found}, its configuration says {wanted}")]
    DiffId { wanted: Digest, found: Digest },
}

#[derive(Debug)]
pub(super) struct Unpacked {
    /// Digest of the decompressed archive.
    pub(super) diff_id: Digest,
    /// Of files' content.
    pub(super) bytes: u64,
    pub(super) inodes: u64,
}

/// Unpacks `blob` into the empty directory `into`. `lowers` are the layers below, lowest first.
/// Nothing is flushed to disk yet.
pub(super) fn unpack(
    blob: impl Read,
    lowers: &[PathBuf],
    into: &Path,
    limits: &Limits,
) -> Result<Unpacked, UnpackError> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::open(path, flags, Mode::empty()).map_err(|errno| UnpackError::Io {
            op: "opening",
            path: path.to_path_buf(),
            source: errno.into(),
        })
    };
    let root = open(into)?;
    fs::fchmod(&root, Mode::from_raw_mode(0o755)).map_err(|errno| UnpackError::Io {
        op: "changing the mode of",
        path: into.to_path_buf(),
        source: errno.into(),
    })?;
    let lowers = lowers.iter().rev().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let tree = Tree::new(root, lowers, limits.depth);
    let reading = |entry: &str, source| UnpackError::Tar(TarError::Read { entry: entry.to_string(), source });
    let mut stream =
        HashingReader::new(Decoder::new(blob, limits).map_err(|error| reading("the beginning", error))?);
    let mut unpacker = Unpacker { tree, limits, bytes: 0, buffer: vec![0; 128 << 10] };
    let mut tar = Tar::new(&mut stream, limits);
    while let Some(entry) = tar.next()? {
        unpacker.place(&entry, &mut tar)?;
    }
    // What follows the archive's end mark counts for the digest.
    io::copy(&mut stream, &mut io::sink()).map_err(|error| reading("the end", error))?;
    let bytes = unpacker.bytes;
    let inodes =
        unpacker.tree.finish().map_err(|source| UnpackError::Tree { entry: ".".to_string(), source })?;
    Ok(Unpacked { diff_id: stream.finish().0, bytes, inodes })
}

struct Unpacker<'a> {
    tree: Tree,
    limits: &'a Limits,
    bytes: u64,
    buffer: Vec<u8>,
}

impl Unpacker<'_> {
    fn place<R: Read>(&mut self, entry: &Entry, tar: &mut Tar<'_, R>) -> Result<(), UnpackError> {
        let refused = |why| UnpackError::Refused { entry: entry.shown(), why };
        let mut path = self.components(&entry.name, entry)?;
        let Some(name) = path.pop() else {
            if entry.kind != Kind::Directory {
                return Err(refused("only a directory can be the root"));
            }
            return self.attribute_dir(&Vec::new(), entry);
        };
        if name == OPAQUE_MARK {
            return self.hide_below(&path).map_err(|source| at(entry, source));
        }
        if name.starts_with(AUFS) {
            return Ok(());
        }
        let here = self.tree.resolve(&path).map_err(|source| at(entry, source))?;
        if let Some(deleted) = name.strip_prefix(WHITEOUT) {
            if matches!(deleted, b"" | b"." | b"..") {
                return Err(refused("a deletion of nothing"));
            }
            return self.delete(&here, deleted).map_err(|source| at(entry, source));
        }
        match entry.kind {
            Kind::Directory => self.directory(&here, &name, entry),
            Kind::HardLink => self.hard_link(&here, &name, entry),
            Kind::Char | Kind::Block if self.limits.devices == Devices::Skip => Ok(()),
            Kind::Char | Kind::Block if self.limits.devices == Devices::Refuse => {
                Err(refused("device nodes are not allowed"))
            }
            Kind::Char if entry.device == (0, 0) => {
                Err(refused("the device 0/0 is overlayfs's mark of a deletion"))
            }
            Kind::File => {
                self.clear(&here, &name).map_err(|source| at(entry, source))?;
                self.file(&here, &name, entry, tar)
            }
            Kind::Symlink | Kind::Fifo | Kind::Char | Kind::Block => {
                self.clear(&here, &name).map_err(|source| at(entry, source))?;
                self.node(&here, &name, entry).map_err(|source| at(entry, source))
            }
        }
    }

    /// The parts of a name, taken from the root: a leading slash means nothing, `..` is refused.
    fn components(&self, name: &[u8], entry: &Entry) -> Result<Vec<Vec<u8>>, UnpackError> {
        let refused = |why| UnpackError::Refused { entry: entry.shown(), why };
        if name.len() > self.limits.path_bytes {
            let source = OverLimit { what: "the length of the path", limit: self.limits.path_bytes as u64 };
            return Err(UnpackError::Limit { entry: entry.shown(), source });
        }
        if name.contains(&0) {
            return Err(refused("a zero byte in the name"));
        }
        let parts: Vec<Vec<u8>> = name
            .split(|b| *b == b'/')
            .filter(|part| !matches!(*part, b"" | b"."))
            .map(<[u8]>::to_vec)
            .collect();
        if parts.iter().any(|part| part == b"..") {
            return Err(refused("the name leads out of the root (..)"));
        }
        if parts.iter().any(|part| part.len() > NAME_BYTES) {
            return Err(refused("a name of more than 255 bytes"));
        }
        if parts.len() > self.limits.depth {
            return Err(at(entry, TreeError::TooDeep(self.limits.depth)));
        }
        Ok(parts)
    }

    fn directory(&mut self, here: &Place, name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let fail = |source| at(entry, source);
        let present = tree::stat(self.tree.open(here).map_err(fail)?, name).map_err(fail)?;
        match present {
            Some(stat) if tree::is_dir(&stat) => {}
            Some(stat) if !tree::is_whiteout(&stat) => {
                self.tree.remove(here, name).map_err(fail)?;
                self.tree.make_dir(here, name).map_err(fail)?;
            }
            _ => {
                self.tree.make_dir(here, name).map_err(fail)?;
            }
        }
        let mut place = here.clone();
        place.push(name.to_vec());
        self.attribute_dir(&place, entry)
    }

    fn attribute_dir(&mut self, place: &Place, entry: &Entry) -> Result<(), UnpackError> {
        let dir = self.tree.open(place).map_err(|source| at(entry, source))?;
        attribute(dir, entry).map_err(|source| at(entry, source))?;
        self.tree.set_dir_time(place.clone(), entry.mtime);
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        here: &Place,
        name: &[u8],
        entry: &Entry,
        tar: &mut Tar<'_, R>,
    ) -> Result<(), UnpackError> {
        let mut file = self.tree.create(here, name).map_err(|source| at(entry, source))?;
        let mut content = tar.content();
        let mut left = entry.size;
        while left > 0 {
            let n = match content.read(&mut self.buffer) {
                Ok(0) => return Err(TarError::Truncated(entry.shown()).into()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(TarError::Read { entry: entry.shown(), source }.into()),
            };
            io::Write::write_all(&mut file, &self.buffer[..n]).map_err(|error| at(entry, error.into()))?;
            left -= n as u64;
        }
        self.bytes += entry.size;
        attribute(&file, entry).map_err(|source| at(entry, source))?;
        fs::futimens(&file, &tree::timestamps(entry.mtime)).map_err(|errno| at(entry, errno.into()))
    }

    /// A symbolic link, a FIFO or a device.
    fn node(&mut self, here: &Place, name: &[u8], entry: &Entry) -> Result<(), TreeError> {
        let dir = self.tree.open(here)?;
        let mode = Mode::from_raw_mode(entry.mode);
        let device = fs::makedev(entry.device.0, entry.device.1);
        match entry.kind {
            Kind::Symlink => fs::symlinkat(entry.link.as_slice(), dir, name)?,
            Kind::Fifo => fs::mknodat(dir, name, FileType::Fifo, mode, 0)?,
            Kind::Char => fs::mknodat(dir, name, FileType::CharacterDevice, mode, device)?,
            _ => fs::mknodat(dir, name, FileType::BlockDevice, mode, device)?,
        }
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if entry.kind != Kind::Symlink {
            // It was made a moment ago in a directory that nobody else writes, so it is no link.
            fs::chmodat(dir, name, mode, AtFlags::empty())?;
        }
        fs::utimensat(dir, name, &tree::timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        self.tree.inodes += 1;
        Ok(())
    }

    fn hard_link(&mut self, here: &Place, name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let fail = |source| at(entry, source);
        let refused = |why| UnpackError::Refused { entry: entry.shown(), why };
        let mut path = self.components(&entry.link, entry)?;
        let Some(target) = path.pop() else { return Err(refused("a hard link to the root")) };
        let there = self.tree.resolve(&path).map_err(fail)?;
        if there == *here && target == name {
            return Ok(());
        }
        match self.tree.look(&there, &target).map_err(fail)? {
            Found::Absent => return Err(refused("a hard link to a file that is not there")),
            Found::Here(stat) if tree::is_whiteout(&stat) => {
                return Err(refused("a hard link to a file that is not there"));
            }
            Found::Here(stat) if tree::is_dir(&stat) => return Err(refused("a hard link to a directory")),
            Found::Here(_) => {}
            Found::Below(lower, stat) if tree::is_file(&stat) => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                // Only so much of a layer may come from below, or small archives could fill a disk.
                if self.bytes.saturating_add(size) > self.limits.total_bytes {
                    let source = OverLimit { what: "the unpacked size", limit: self.limits.total_bytes };
                    return Err(UnpackError::Limit { entry: entry.shown(), source });
                }
                self.tree.copy_up(&there, &target, lower, &stat).map_err(fail)?;
                self.bytes += size;
            }
            Found::Below(..) => {
                return Err(refused("a hard link to something of a lower layer that is not a file"));
            }
        }
        self.clear(here, name).map_err(fail)?;
        let from = self.tree.open(&there).map_err(fail)?.try_clone().map_err(|error| fail(error.into()))?;
        let to = self.tree.open(here).map_err(fail)?;
        fs::linkat(from, target.as_slice(), to, name, AtFlags::empty()).map_err(|errno| fail(errno.into()))
    }

    /// Makes room for something that is not a directory.
    fn clear(&mut self, here: &Place, name: &[u8]) -> Result<(), TreeError> {
        match tree::stat(self.tree.open(here)?, name)? {
            Some(_) => self.tree.remove(here, name),
            None => Ok(()),
        }
    }

    /// Hides a file of the layers below. What this layer itself has at the name stays, whichever came first.
    fn delete(&mut self, here: &Place, name: &[u8]) -> Result<(), TreeError> {
        match self.tree.look(here, name)? {
            Found::Here(stat) if tree::is_dir(&stat) => {
                let mut place = here.clone();
                place.push(name.to_vec());
                self.hide_below(&place)
            }
            // Overlayfs lists a mark that hides nothing: it filters only directories that it merges.
            Found::Here(_) | Found::Absent => Ok(()),
            Found::Below(..) => {
                fs::mknodat(self.tree.open(here)?, name, FileType::CharacterDevice, Mode::empty(), 0)?;
                self.tree.inodes += 1;
                Ok(())
            }
        }
    }

    fn hide_below(&mut self, path: &[Vec<u8>]) -> Result<(), TreeError> {
        let place = self.tree.resolve(path)?;
        if self.tree.is_covered(&place) {
            return Ok(());
        }
        let dir = self.tree.open(&place)?.try_clone()?;
        // Marks inside hide nothing any more.
        tree::remove_whiteouts(&dir)?;
        self.tree.make_opaque(place, &dir)
    }
}

/// Owner first: changing it clears set-user-id bits and capabilities.
fn attribute(file: impl std::os::fd::AsFd, entry: &Entry) -> Result<(), TreeError> {
    fs::fchown(&file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    fs::fchmod(&file, Mode::from_raw_mode(entry.mode))?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| tree::is_content_xattr(name)) {
        tree::set_xattr(&file, name, value)?;
    }
    Ok(())
}

fn at(entry: &Entry, source: TreeError) -> UnpackError {
    UnpackError::Tree { entry: entry.shown(), source }
}
