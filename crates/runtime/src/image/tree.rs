//! A directory tree that is filled from an untrusted archive, over read-only trees below it.
//!
//! Paths are resolved here, one component at a time, as a process whose root is the merged tree would see them.
//! Every directory is then opened with `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)`, so that a mistake in that
//! resolution is an error and not a way out.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    self, AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

/// As the kernel's own.
const MAX_SYMLINKS: usize = 40;
pub(super) const OPAQUE: &str = "trusted.overlay.opaque";

#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0:?} on the way is not a directory")]
    NotADirectory(String),
    #[error("more than {MAX_SYMLINKS} symbolic links on the way")]
    TooManyLinks,
    #[error("more than {0} directories deep")]
    TooDeep(usize),
}

impl From<Errno> for TreeError {
    fn from(errno: Errno) -> Self {
        TreeError::Io(errno.into())
    }
}

/// A directory of the tree as its real components from the root, none of them a symbolic link.
pub(super) type Place = Vec<Vec<u8>>;

pub(super) struct Tree {
    root: OwnedFd,
    /// Topmost first.
    lowers: Vec<OwnedFd>,
    max_depth: usize,
    /// Directories of this tree that hide what lies below them.
    opaque: BTreeSet<Place>,
    /// Times of directories, set at the end because filling a directory changes them.
    dir_times: BTreeMap<Place, (i64, u32)>,
    /// The directory opened last: members of an archive come in runs.
    last: Option<(Place, OwnedFd)>,
    /// Files and directories made here, with the root.
    pub(super) inodes: u64,
}

pub(super) enum Found {
    Absent,
    /// In this tree.
    Here(Stat),
    /// In one of the trees below: its index.
    Below(usize, Stat),
}

impl Tree {
    /// `lowers` topmost first; `root` must be an empty directory.
    pub(super) fn new(root: OwnedFd, lowers: Vec<OwnedFd>, max_depth: usize) -> Tree {
        Tree {
            root,
            lowers,
            max_depth,
            opaque: BTreeSet::new(),
            dir_times: BTreeMap::new(),
            last: None,
            inodes: 1,
        }
    }

    /// Follows `path` to a directory, making what is absent: like the directory it covers below, else 0755 of root.
    pub(super) fn resolve(&mut self, path: &[Vec<u8>]) -> Result<Place, TreeError> {
        // Most parents exist by their plain names.
        let plain = !path.iter().any(|name| matches!(name.as_slice(), b"" | b"." | b".."));
        if plain && self.open(&path.to_vec()).is_ok() {
            return Ok(path.to_vec());
        }
        let mut ahead: Vec<Vec<u8>> = path.iter().rev().cloned().collect();
        let mut here: Place = Vec::new();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    here.pop();
                    continue;
                }
                _ => {}
            }
            let target = match self.look(&here, &name)? {
                Found::Here(stat) if is_dir(&stat) => None,
                Found::Here(stat) if is_symlink(&stat) => {
                    Some(fs::readlinkat(self.open(&here)?, name.as_slice(), vec![])?)
                }
                Found::Below(lower, stat) if is_symlink(&stat) => {
                    let parent = open_dir(&self.lowers[lower], &here)?;
                    Some(fs::readlinkat(parent, name.as_slice(), vec![])?)
                }
                Found::Here(stat) if !is_whiteout(&stat) => {
                    return Err(TreeError::NotADirectory(shown(&here, &name)));
                }
                Found::Below(_, stat) if !is_dir(&stat) => {
                    return Err(TreeError::NotADirectory(shown(&here, &name)));
                }
                Found::Below(lower, stat) => {
                    self.copy_dir(&here, &name, lower, &stat)?;
                    None
                }
                Found::Here(_) | Found::Absent => {
                    self.make_dir(&here, &name)?;
                    None
                }
            };
            let Some(target) = target else {
                here.push(name);
                if here.len() > self.max_depth {
                    return Err(TreeError::TooDeep(self.max_depth));
                }
                continue;
            };
            links += 1;
            if links > MAX_SYMLINKS {
                return Err(TreeError::TooManyLinks);
            }
            let target = target.as_bytes();
            if target.starts_with(b"/") {
                here.clear();
            }
            ahead.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
        }
        Ok(here)
    }

    /// What is at `name` in the merged tree. `here` must exist in this tree. A deletion is `Here` with a whiteout's stat.
    pub(super) fn look(&mut self, here: &Place, name: &[u8]) -> Result<Found, TreeError> {
        if let Some(stat) = stat(self.open(here)?, name)? {
            return Ok(Found::Here(stat));
        }
        if self.is_covered(here) {
            return Ok(Found::Absent);
        }
        let mut path = here.clone();
        path.push(name.to_vec());
        for (index, lower) in self.lowers.iter().enumerate() {
            match look_below(lower, &path)? {
                Below::Found(stat) => return Ok(Found::Below(index, stat)),
                Below::Hidden => return Ok(Found::Absent),
                Below::Nothing => {}
            }
        }
        Ok(Found::Absent)
    }

    /// An open directory of this tree.
    pub(super) fn open(&mut self, place: &Place) -> Result<&OwnedFd, TreeError> {
        if self.last.as_ref().is_none_or(|(last, _)| last != place) {
            let dir = open_dir(&self.root, place)?;
            self.last = Some((place.clone(), dir));
        }
        match &self.last {
            Some((_, dir)) => Ok(dir),
            None => Err(Errno::BADF.into()),
        }
    }

    /// An empty directory at a name where this tree has nothing or a whiteout, which then makes it opaque.
    pub(super) fn make_dir(&mut self, here: &Place, name: &[u8]) -> Result<OwnedFd, TreeError> {
        let parent = self.open(here)?;
        let deleted = stat(parent, name)?.is_some_and(|stat| is_whiteout(&stat));
        if deleted {
            fs::unlinkat(parent, name, AtFlags::empty())?;
        }
        fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
        let dir = open_child(parent, name)?;
        // The mode above is cut by the process's umask.
        fs::fchmod(&dir, Mode::from_raw_mode(0o755))?;
        self.inodes += 1;
        if deleted {
            let mut place = here.clone();
            place.push(name.to_vec());
            self.make_opaque(place, &dir)?;
        }
        Ok(dir)
    }

    /// Whether nothing of the trees below shows in a directory.
    pub(super) fn is_covered(&self, place: &Place) -> bool {
        (0..=place.len()).any(|n| self.opaque.contains(&place[..n]))
    }

    /// Hides what lies below `place`, whose open directory is `dir`.
    pub(super) fn make_opaque(&mut self, place: Place, dir: &OwnedFd) -> Result<(), TreeError> {
        fs::fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty())?;
        self.opaque.insert(place);
        Ok(())
    }

    /// A directory like the one it covers, as overlayfs would copy it up.
    fn copy_dir(&mut self, here: &Place, name: &[u8], lower: usize, stat: &Stat) -> Result<(), TreeError> {
        let dir = self.make_dir(here, name)?;
        let mut place = here.clone();
        place.push(name.to_vec());
        let below = open_dir(&self.lowers[lower], &place)?;
        fs::fchown(&dir, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        fs::fchmod(&dir, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        copy_xattrs(&below, &dir)?;
        self.dir_times.insert(place, mtime_of(stat));
        Ok(())
    }

    /// Copies a regular file of a tree below to the same place here, so that it can be linked to.
    pub(super) fn copy_up(
        &mut self,
        here: &Place,
        name: &[u8],
        lower: usize,
        stat: &Stat,
    ) -> Result<(), TreeError> {
        let below = open_dir(&self.lowers[lower], here)?;
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut from = std::fs::File::from(fs::openat(below, name, read, Mode::empty())?);
        let mut to = self.create(here, name)?;
        io::copy(&mut from, &mut to)?;
        fs::fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        copy_xattrs(&from, &to)?;
        fs::futimens(&to, &timestamps(mtime_of(stat)))?;
        Ok(())
    }

    /// A new file, private until its mode is set.
    pub(super) fn create(&mut self, here: &Place, name: &[u8]) -> Result<std::fs::File, TreeError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(self.open(here)?, name, flags, Mode::from_raw_mode(0o600))?;
        self.inodes += 1;
        Ok(file.into())
    }

    /// Removes whatever this tree has at `name`.
    pub(super) fn remove(&mut self, here: &Place, name: &[u8]) -> Result<(), TreeError> {
        remove_at(self.open(here)?, name)?;
        let mut gone = here.clone();
        gone.push(name.to_vec());
        // Everything inside follows in order, so that replacing a file costs no walk over all directories.
        while let Some(inside) =
            self.opaque.range(gone.clone()..).next().filter(|p| p.starts_with(&gone)).cloned()
        {
            self.opaque.remove(&inside);
        }
        while let Some((inside, _)) =
            self.dir_times.range(gone.clone()..).next().filter(|(p, _)| p.starts_with(&gone))
        {
            let inside = inside.clone();
            self.dir_times.remove(&inside);
        }
        // The open directory may have been inside.
        if self.last.as_ref().is_some_and(|(place, _)| place.starts_with(&gone)) {
            self.last = None;
        }
        Ok(())
    }

    pub(super) fn set_dir_time(&mut self, place: Place, mtime: (i64, u32)) {
        self.dir_times.insert(place, mtime);
    }

    /// Sets the times of directories, after which nothing may be made here.
    pub(super) fn finish(self) -> Result<u64, TreeError> {
        for (place, mtime) in &self.dir_times {
            fs::futimens(open_dir(&self.root, place)?, &timestamps(*mtime))?;
        }
        Ok(self.inodes)
    }
}

enum Below {
    Found(Stat),
    /// Deleted, or behind something that is not a directory: trees further down do not show through.
    Hidden,
    Nothing,
}

fn look_below(lower: &OwnedFd, path: &[Vec<u8>]) -> Result<Below, TreeError> {
    let mut dir = lower.try_clone()?;
    let mut opaque = is_opaque(&dir)?;
    for (index, name) in path.iter().enumerate() {
        let Some(stat) = stat(&dir, name)? else {
            return Ok(if opaque { Below::Hidden } else { Below::Nothing });
        };
        if is_whiteout(&stat) {
            return Ok(Below::Hidden);
        }
        if index + 1 == path.len() {
            return Ok(Below::Found(stat));
        }
        if !is_dir(&stat) {
            return Ok(Below::Hidden);
        }
        dir = open_child(&dir, name)?;
        opaque |= is_opaque(&dir)?;
    }
    Ok(Below::Nothing)
}

fn is_opaque(dir: &OwnedFd) -> Result<bool, TreeError> {
    let mut value = [0; 8];
    match fs::fgetxattr(dir, OPAQUE, &mut value[..]) {
        Ok(1) => Ok(value[0] == b'y'),
        Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory by its real path; any symbolic link, mount point or step above the root on the way is an error.
pub(super) fn open_dir(root: &OwnedFd, place: &[Vec<u8>]) -> io::Result<OwnedFd> {
    let path = if place.is_empty() { b".".to_vec() } else { place.join(&b'/') };
    let resolve = ResolveFlags::IN_ROOT
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(fs::openat2(root, path.as_slice(), flags, Mode::empty(), resolve)?)
}

/// Opens a directory that must not be a symbolic link.
pub(super) fn open_child(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    fs::openat2(dir, name, flags, Mode::empty(), resolve)
}

pub(super) fn stat(dir: impl AsFd, name: &[u8]) -> Result<Option<Stat>, TreeError> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes a file, or a directory with all in it, never following a link.
pub(super) fn remove_at(dir: impl AsFd, name: &[u8]) -> io::Result<()> {
    // Callers refuse such names with a better message; a mistake there must not delete what is outside.
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
        return Err(Errno::INVAL.into());
    }
    let dir = dir.as_fd();
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let child = open_child(dir, name)?;
    for name in names(&child)? {
        remove_at(&child, &name)?;
    }
    fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
    Ok(())
}

/// Removes every whiteout in a directory and those below it.
pub(super) fn remove_whiteouts(dir: &OwnedFd) -> Result<(), TreeError> {
    for name in names(dir)? {
        match stat(dir, &name)? {
            Some(stat) if is_whiteout(&stat) => fs::unlinkat(dir, name.as_slice(), AtFlags::empty())?,
            Some(stat) if is_dir(&stat) => remove_whiteouts(&open_child(dir, &name)?)?,
            _ => {}
        }
    }
    Ok(())
}

fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Extended attributes that belong to the content. Overlayfs's own would let an image redirect lookups (`trusted.overlay.redirect`).
pub(super) fn is_content_xattr(name: &[u8]) -> bool {
    name == b"security.capability"
        || matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default")
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// Sets one attribute; a file system without such attributes is no reason to fail.
pub(super) fn set_xattr(file: impl AsFd, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
    match fs::fsetxattr(file, name, value, XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

fn copy_xattrs(from: impl AsFd, to: impl AsFd) -> Result<(), TreeError> {
    for (name, value) in xattrs(&from)? {
        set_xattr(&to, &name, &value)?;
    }
    Ok(())
}

/// The content's attributes, in order of their names.
pub(super) fn xattrs(file: impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    // As large as the kernel lets a list or a value be.
    let mut buffer = vec![0; 64 << 10];
    let length = match fs::flistxattr(&file, &mut buffer[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let mut names: Vec<Vec<u8>> = buffer[..length].split(|b| *b == 0).map(<[u8]>::to_vec).collect();
    names.retain(|name| is_content_xattr(name));
    names.sort();
    let mut found = Vec::new();
    for name in names {
        let length = fs::fgetxattr(&file, name.as_slice(), &mut buffer[..])?;
        found.push((name, buffer[..length].to_vec()));
    }
    Ok(found)
}

pub(super) fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn mtime_of(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime, stat.st_mtime_nsec as u32)
}

pub(super) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

pub(super) fn is_symlink(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

/// Overlayfs's mark of a deletion: a character device 0/0.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn shown(here: &Place, name: &[u8]) -> String {
    let mut path = here.clone();
    path.push(name.to_vec());
    super::tarball::shown(&path.join(&b'/'))
}
