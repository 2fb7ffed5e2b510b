//! Mounts by descriptor: a filesystem or a bind is made detached, dressed, and only then put where it belongs, below a
//! root that no link in an image can lead out of.

use plan::node::{Mount, MountPropagation};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};
use std::io;
use std::path::Path;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
}

/// A new instance of a filesystem, not yet anywhere.
pub fn filesystem(
    name: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, String> {
    let failed = |error: rustix::io::Errno| format!("mount {name}: {}", io::Error::from(error));
    let context = rustix::mount::fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value).map_err(failed)?;
    }
    rustix::mount::fsconfig_create(context.as_fd()).map_err(failed)?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed)
}

/// A second view of what is at `path`, not yet anywhere. It keeps its ties to mounts made later on the machine until
/// `dress` cuts them.
pub fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// The propagation and write protection that a pod asks for.
pub fn dress(tree: &OwnedFd, mount: &Mount) -> io::Result<()> {
    let propagation = match mount.propagation {
        MountPropagation::None => libc::MS_PRIVATE,
        MountPropagation::HostToContainer => libc::MS_SLAVE,
        MountPropagation::Bidirectional => libc::MS_SHARED,
    };
    crate::sys::mount_setattr(tree.as_fd(), true, 0, propagation)?;
    if mount.read_only {
        crate::sys::mount_setattr(tree.as_fd(), mount.recursive_read_only, libc::MOUNT_ATTR_RDONLY, 0)?;
    }
    Ok(())
}

/// Puts a detached mount at `path` below `root`, making the mount point where it is missing.
pub fn attach(tree: &OwnedFd, root: &OwnedFd, path: &Path, kind: Kind) -> io::Result<()> {
    let target = mount_point(root, path, kind)?;
    attach_to(tree, &target)
}

pub fn attach_to(tree: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree.as_fd(), "", target.as_fd(), "", flags)?)
}

/// What is at `path` below `root`, made where it is missing.
pub fn mount_point(root: &OwnedFd, path: &Path, kind: Kind) -> io::Result<OwnedFd> {
    match crate::sys::open_in_root(root, path, OFlags::PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let parent =
        mount_point(root, if parent == Path::new("") { Path::new(".") } else { parent }, Kind::Directory)?;
    match kind {
        Kind::Directory => rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?,
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            drop(rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?);
        }
    }
    crate::sys::open_in_root(root, path, OFlags::PATH)
}

/// Whether a detached mount shows a directory or something that is none.
pub fn kind_of(tree: impl AsFd) -> io::Result<Kind> {
    let stat = rustix::fs::fstat(tree)?;
    let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    Ok(if directory { Kind::Directory } else { Kind::File })
}
