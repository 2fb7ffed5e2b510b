//! From one store to another: each store that a stranger may write to gets copies, and none sees another's files.
//!
//! Linking would be cheaper, and share the files with whoever writes to one of them. Where the file system can share blocks until one of
//! two files is written to (btrfs, XFS), a copy takes no room.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::blob::sync_parent;
use super::digest::Digest;
use super::lock::Operation;
use super::store::{At, Store, StoreError, remove_tree};

impl Store {
    /// Takes over every image of another store under its name; what is here under that name already and the same stays. Returns how many.
    /// Nobody may write to the other store but whoever may write to this one.
    pub fn take_over(&self, from: &Store) -> Result<usize, StoreError> {
        let mut taken = 0;
        for image in from.list()? {
            let known = self.get(&image.name)?;
            if known.is_some_and(|known| known.digest == image.digest && known.name == image.name) {
                continue;
            }
            let operation = self.begin()?;
            for layer in &image.layers {
                self.take_layer(from, &operation, &layer.chain_id)?;
            }
            for digest in image.documents.iter().chain([&image.id]) {
                self.take_blob(from, &operation, digest)?;
            }
            self.write_record(&operation, &image)?;
            taken += 1;
        }
        Ok(taken)
    }

    fn take_layer(&self, from: &Store, operation: &Operation, chain_id: &Digest) -> Result<(), StoreError> {
        operation.uses(chain_id)?;
        if self.has_layer(chain_id) {
            return Ok(());
        }
        let _stripe = self.stripe("layer", chain_id)?;
        if self.has_layer(chain_id) {
            return Ok(());
        }
        let unfinished = operation.temporary(&self.dir().join("tmp"));
        let copied = self.copy_layer(&from.layer_dir(chain_id), &unfinished, chain_id);
        if copied.is_err() {
            // The collector takes what stays.
            let _ = remove_tree(&unfinished);
        }
        copied
    }

    fn copy_layer(&self, source: &Path, unfinished: &Path, chain_id: &Digest) -> Result<(), StoreError> {
        copy(source, unfinished, &mut BTreeMap::new())?;
        let dir = File::open(unfinished).at("opening", unfinished)?;
        rustix::fs::syncfs(dir).at("flushing", unfinished)?;
        let path = self.layer_dir(chain_id);
        fs::rename(unfinished, &path).at("renaming to", &path)?;
        sync_parent(&path)
    }

    fn take_blob(&self, from: &Store, operation: &Operation, digest: &Digest) -> Result<(), StoreError> {
        match from.open_blob(digest) {
            Ok(mut content) => self.put(operation, digest, &mut content),
            // A layer that was imported from a folder has no archive.
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Copies a file of any kind with all that it is. `links` are the files that have more names than one, by device and number.
fn copy(source: &Path, target: &Path, links: &mut BTreeMap<(u64, u64), PathBuf>) -> Result<(), StoreError> {
    let meta = source.symlink_metadata().at("looking at", source)?;
    let kind = meta.file_type();
    if !kind.is_dir() && meta.nlink() > 1 {
        if let Some(first) = links.get(&(meta.dev(), meta.ino())) {
            return fs::hard_link(first, target).at("linking", target);
        }
        links.insert((meta.dev(), meta.ino()), target.to_owned());
    }
    if kind.is_symlink() {
        let to = fs::read_link(source).at("reading", source)?;
        symlink(to, target).at("linking", target)?;
    } else if kind.is_dir() {
        fs::create_dir(target).at("creating", target)?;
        for entry in fs::read_dir(source).at("listing", source)? {
            let name = entry.at("listing", source)?.file_name();
            copy(&source.join(&name), &target.join(&name), links)?;
        }
    } else if kind.is_file() {
        copy_content(source, target)?;
    } else {
        let (special, device) = match () {
            () if kind.is_char_device() => (FileType::CharacterDevice, meta.rdev()),
            () if kind.is_block_device() => (FileType::BlockDevice, meta.rdev()),
            () if kind.is_fifo() => (FileType::Fifo, 0),
            () => (FileType::Socket, 0),
        };
        rustix::fs::mknodat(CWD, target, special, Mode::empty(), device).at("creating", target)?;
    }
    lchown(target, Some(meta.uid()), Some(meta.gid())).at("changing the owner of", target)?;
    if !kind.is_symlink() {
        // After the owner, whose change takes set-user-ID bits away.
        let mode = fs::Permissions::from_mode(meta.mode() & 0o7777);
        fs::set_permissions(target, mode).at("changing the mode of", target)?;
    }
    copy_attributes(source, target)?;
    let stamp = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: stamp(meta.atime(), meta.atime_nsec()),
        last_modification: stamp(meta.mtime(), meta.mtime_nsec()),
    };
    rustix::fs::utimensat(CWD, target, &times, AtFlags::SYMLINK_NOFOLLOW).at("changing the times of", target)
}

fn copy_content(source: &Path, target: &Path) -> Result<(), StoreError> {
    let from = File::open(source).at("opening", source)?;
    let mut to = File::create_new(target).at("creating", target)?;
    if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(());
    }
    io::copy(&mut &from, &mut to).map(drop).at("writing", target)
}

/// Capabilities of programs, and what overlays note on directories.
fn copy_attributes(source: &Path, target: &Path) -> Result<(), StoreError> {
    let names = match whole(|buffer| rustix::fs::llistxattr(source, buffer)) {
        // A file system without attributes has none to be copied.
        Err(Errno::NOTSUP) => return Ok(()),
        names => names.at("listing the attributes of", source)?,
    };
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let value = whole(|buffer| rustix::fs::lgetxattr(source, name, buffer));
        let value = value.at("reading an attribute of", source)?;
        rustix::fs::lsetxattr(target, name, &value, XattrFlags::empty())
            .at("setting an attribute of", target)?;
    }
    Ok(())
}

/// What a call yields that fills a buffer: most of it is short, and nothing longer than 64 KiB (xattr(7)).
fn whole(fill: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    let size = match fill(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(64 << 10, 0);
            fill(&mut buffer)?
        }
        other => other?,
    };
    buffer.truncate(size);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_what_was_copied_and_shares_nothing() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("bin/tool"), "tool").unwrap();
        fs::hard_link(root.join("bin/tool"), root.join("bin/other")).unwrap();
        lchown(root.join("bin/tool"), Some(7), Some(8)).unwrap();
        fs::set_permissions(root.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
        symlink("tool", root.join("bin/link")).unwrap();
        rustix::fs::mknodat(CWD, root.join("gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        rustix::fs::lsetxattr(root.join("bin"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        let first = Store::open(dir.path().join("first")).unwrap();
        first.import_rootfs(&root, &[], &["/bin/tool".into()], "web:1").unwrap();
        let copied = dir.path().join("copied");
        copy(&root, &copied, &mut BTreeMap::new()).unwrap();
        let tool = copied.join("bin/tool").metadata().unwrap();
        assert_eq!((tool.uid(), tool.gid(), tool.mode() & 0o7777, tool.nlink()), (7, 8, 0o4755, 2));
        assert_ne!(tool.ino(), root.join("bin/tool").metadata().unwrap().ino());
        assert_eq!(fs::read_link(copied.join("bin/link")).unwrap(), Path::new("tool"));
        assert!(copied.join("gone").symlink_metadata().unwrap().file_type().is_char_device());
        let mut opaque = [0u8; 1];
        rustix::fs::lgetxattr(copied.join("bin"), "trusted.overlay.opaque", &mut opaque[..]).unwrap();
        assert_eq!(&opaque, b"y");

        let second = Store::open(dir.path().join("second")).unwrap();
        assert_eq!(second.take_over(&first).unwrap(), 1);
        assert_eq!(second.take_over(&first).unwrap(), 0);
        assert_eq!(second.list().unwrap(), first.list().unwrap());
        let image = second.get("web:1").unwrap().unwrap();
        let prepared = second.prepare(&image, "a container").unwrap();
        let inside = prepared.layers[0].join("bin/tool");
        assert!(inside.starts_with(dir.path().join("second")));
        fs::write(&inside, "changed").unwrap();
        let image = first.get("web:1").unwrap().unwrap();
        let prepared = first.prepare(&image, "another").unwrap();
        assert_eq!(fs::read_to_string(prepared.layers[0].join("bin/tool")).unwrap(), "tool");
        // The same name for another image.
        fs::write(root.join("bin/tool"), "new").unwrap();
        first.import_rootfs(&root, &[], &["/bin/tool".into()], "web:1").unwrap();
        assert_eq!(second.take_over(&first).unwrap(), 1);
        assert_eq!(second.get("web:1").unwrap(), first.get("web:1").unwrap());
    }
}
