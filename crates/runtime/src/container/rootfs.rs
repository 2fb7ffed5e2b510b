//! A container's view of files: the image's layers, what is mounted on them, and what is hidden.

use super::{devices, mounts};
use crate::spec::{Spec, Volume};
use mounts::{Kind, attach, clone_tree, filesystem};
use plan::node::{ImageVolume, ProcMount};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountAttrFlags, MountFlags, MountPropagationFlags, UnmountFlags};
use std::io;
use std::path::Path;

#[rustfmt::skip]
const MASKED: [&str; 12] = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What names programs that the kernel then runs as root outside of every container, or stops the host: kept even from
/// privileged containers, whose machine shares the kernel with its host. Whoever means to can mount another `/proc`.
#[rustfmt::skip]
const HOSTS: [&str; 6] = [
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hotplug", "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/sysrq", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper",
];

const NO_SUID_EXEC_DEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// What must be opened while the machine's files are still in sight.
struct Sources {
    layers: Vec<OwnedFd>,
    /// `None`: an image, of which nothing can be mounted yet.
    volumes: Vec<Option<OwnedFd>>,
    shm: OwnedFd,
    /// Each with its name below `/sys/fs/cgroup`.
    cgroups: Vec<(String, OwnedFd)>,
}

/// Makes this process's root the container's. `directory` is the container's own on the machine.
pub fn enter(spec: &Spec, directory: &Path) -> Result<(), String> {
    let mut sources = open_sources(spec)?;
    // Nothing that happens below may show on the machine, and what is cloned has its own ties by now.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(|error| format!("make mounts private: {error}"))?;
    let volumes = spec.volumes.iter().zip(sources.volumes.drain(..));
    let trees: Vec<OwnedFd> =
        volumes.map(|(volume, tree)| dressed(volume, tree, directory)).collect::<Result<_, _>>()?;
    let root = overlay(&sources.layers, directory)?;
    system_mounts(spec, &root, &sources)?;
    for (volume, tree) in spec.volumes.iter().zip(&trees) {
        bind(volume, tree, &root)?;
    }
    for device in &spec.devices {
        devices::add(&root, device)?;
    }
    pivot(&root)?;
    HOSTS.iter().try_for_each(|path| protect(Path::new(path)))?;
    if !spec.security.privileged && spec.security.proc_mount == ProcMount::Default {
        READ_ONLY.iter().try_for_each(|path| protect(Path::new(path)))?;
        MASKED.iter().try_for_each(|path| mask(Path::new(path)))?;
        mask_each("/sys/devices/system/cpu", "thermal_throttle")?;
    }
    Ok(())
}

/// Write-protects the root, once everything in it is made.
pub fn finish(spec: &Spec) -> Result<(), String> {
    if !spec.security.read_only_root_filesystem {
        return Ok(());
    }
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    root.map_err(io::Error::from)
        .and_then(|root| crate::sys::mount_setattr(root.as_fd(), false, libc::MOUNT_ATTR_RDONLY, 0))
        .map_err(|error| format!("make the root filesystem read-only: {error}"))
}

fn open_sources(spec: &Spec) -> Result<Sources, String> {
    let tree = |path: &Path, recursive: bool| {
        clone_tree(path, recursive).map_err(|error| format!("mount source {}: {error}", path.display()))
    };
    let source = |volume: &Volume| match volume {
        Volume::Host(mount) => tree(&mount.host_path, true).map(Some),
        Volume::Image(_) => Ok(None),
    };
    let layer = |path: &std::path::PathBuf| open_directory(path).map_err(|error| format!("layer: {error}"));
    let cgroups = if spec.security.privileged {
        vec![(String::new(), tree(Path::new("/sys/fs/cgroup"), true)?)]
    } else {
        let view = |(name, path): &(String, std::path::PathBuf)| Ok((name.clone(), tree(path, false)?));
        spec.cgroup_views.iter().map(view).collect::<Result<_, String>>()?
    };
    Ok(Sources {
        layers: spec.layers.iter().map(layer).collect::<Result<_, _>>()?,
        volumes: spec.volumes.iter().map(source).collect::<Result<_, _>>()?,
        shm: tree(&spec.shm, false)?,
        cgroups,
    })
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("open {}: {error}", path.display()))
    })
}

/// A volume as a detached mount that is ready to be put into place.
fn dressed(volume: &Volume, tree: Option<OwnedFd>, directory: &Path) -> Result<OwnedFd, String> {
    let result = match (volume, tree) {
        (Volume::Host(mount), Some(tree)) => mounts::dress(&tree, mount).map(|()| tree),
        (Volume::Host(_), None) => Err(io::ErrorKind::NotFound.into()),
        (Volume::Image(image), _) => image_volume(image, directory),
    };
    result.map_err(|error| bind_failed(volume, error))
}

/// An image, or a part of it.
///
/// Overlayfs must be mounted somewhere before a part of it can be taken; the directory of the image's own volumes is
/// opened by now, and free to be covered for a moment.
fn image_volume(image: &ImageVolume, directory: &Path) -> io::Result<OwnedFd> {
    let layers: Vec<OwnedFd> =
        image.layers.iter().map(|path| open_directory(path)).collect::<Result<_, _>>()?;
    // Two layers are the least that overlayfs takes; where the container's root comes later it is empty until then.
    let empty = open_directory(&directory.join("rootfs"))?;
    let lower: Vec<String> = layers.iter().rev().chain([&empty]).map(crate::sys::fd_path).collect();
    let place = directory.join("volumes");
    mount_overlay(&format!("lowerdir={}", lower.join(":")), &place)?;
    let taken = open_directory(&place).and_then(|whole| {
        let sub_path = if image.sub_path.is_empty() { "." } else { &image.sub_path };
        let part = crate::sys::open_in_root(&whole, Path::new(sub_path), OFlags::PATH)?;
        clone_tree(Path::new(&crate::sys::fd_path(&part)), false)
    });
    rustix::mount::unmount(&place, UnmountFlags::DETACH)?;
    let tree = taken?;
    let attributes =
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    crate::sys::mount_setattr(tree.as_fd(), false, attributes, libc::MS_PRIVATE)?;
    Ok(tree)
}

fn mount_overlay(options: &str, target: &Path) -> rustix::io::Result<()> {
    let options = std::ffi::CString::new(options).map_err(|_| rustix::io::Errno::INVAL)?;
    rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), Some(options.as_c_str()))
}

/// Mounts the layers, with the container's own changes on top.
///
/// Layers are named by descriptor, so that 128 of them fit into the one page of options that the kernel takes.
fn overlay(layers: &[OwnedFd], directory: &Path) -> Result<OwnedFd, String> {
    let lower: Vec<String> = layers.iter().rev().map(crate::sys::fd_path).collect();
    let open = |name: &str| open_directory(&directory.join(name)).map_err(|error| error.to_string());
    let (upper, work) = (open("upper")?, open("work")?);
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        crate::sys::fd_path(&upper),
        crate::sys::fd_path(&work)
    );
    let target = directory.join("rootfs");
    mount_overlay(&options, &target)
        .map_err(|error| format!("mount overlay of {} layers: {error}", layers.len()))?;
    open_directory(&target).map_err(|error| error.to_string())
}

fn system_mounts(spec: &Spec, root: &OwnedFd, sources: &Sources) -> Result<(), String> {
    let put = |tree: &OwnedFd, path: &str| {
        attach(tree, root, Path::new(path), Kind::Directory).map_err(|error| format!("mount {path}: {error}"))
    };
    put(&filesystem("proc", &[], NO_SUID_EXEC_DEV)?, "/proc")?;
    let read_only =
        if spec.security.privileged { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    put(&filesystem("sysfs", &[], NO_SUID_EXEC_DEV | read_only)?, "/sys")?;
    cgroup_mounts(root, &sources.cgroups, !spec.security.privileged)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    put(&filesystem("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes)?, "/dev")?;
    let dev = crate::sys::open_in_root(root, Path::new("dev"), OFlags::PATH)
        .map_err(|error| format!("open /dev: {error}"))?;
    devices::fill(&dev)?;
    if spec.security.privileged {
        devices::add_all(&dev);
    }
    put(&devices::pts()?, "/dev/pts")?;
    put(&filesystem("mqueue", &[], NO_SUID_EXEC_DEV)?, "/dev/mqueue")?;
    crate::sys::mount_setattr(sources.shm.as_fd(), false, 0, libc::MS_PRIVATE)
        .map_err(|error| format!("mount /dev/shm: {error}"))?;
    put(&sources.shm, "/dev/shm")
}

/// The container sees its own groups, and cannot raise its limits by them.
fn cgroup_mounts(root: &OwnedFd, cgroups: &[(String, OwnedFd)], read_only: bool) -> Result<(), String> {
    let failed = |error: io::Error| format!("mount /sys/fs/cgroup: {error}");
    let top = Path::new("/sys/fs/cgroup");
    let protect = (libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NODEV)
        | if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    if let [(name, tree)] = cgroups
        && name.is_empty()
    {
        crate::sys::mount_setattr(tree.as_fd(), true, protect, libc::MS_PRIVATE).map_err(failed)?;
        return attach(tree, root, top, Kind::Directory).map_err(failed);
    }
    let attributes = NO_SUID_EXEC_DEV;
    attach(&filesystem("tmpfs", &[("mode", "755")], attributes)?, root, top, Kind::Directory)
        .map_err(failed)?;
    for (name, tree) in cgroups {
        crate::sys::mount_setattr(tree.as_fd(), true, protect, libc::MS_PRIVATE).map_err(failed)?;
        attach(tree, root, &top.join(name), Kind::Directory).map_err(failed)?;
    }
    let tmpfs = crate::sys::open_in_root(root, top, OFlags::PATH).map_err(failed)?;
    let read_only = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    crate::sys::mount_setattr(tmpfs.as_fd(), false, read_only, 0).map_err(failed)
}

fn bind(volume: &Volume, tree: &OwnedFd, root: &OwnedFd) -> Result<(), String> {
    let path = Path::new(volume.container_path());
    mounts::kind_of(tree)
        .and_then(|kind| attach(tree, root, path, kind))
        .map_err(|error| bind_failed(volume, error))
}

fn bind_failed(volume: &Volume, error: io::Error) -> String {
    let source = match volume {
        Volume::Host(mount) => mount.host_path.display().to_string(),
        Volume::Image(_) => "image".into(),
    };
    format!("error mounting {source:?} to rootfs at {:?}: {error}", volume.container_path())
}

/// Makes `root` this process's `/` and takes the old one out of sight.
fn pivot(root: &OwnedFd) -> Result<(), String> {
    rustix::process::fchdir(root)
        .and_then(|()| rustix::process::pivot_root(".", "."))
        // The old root is mounted on top of the new one now.
        .and_then(|()| rustix::mount::unmount(".", UnmountFlags::DETACH))
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(|error| format!("pivot_root: {error}"))
}

/// Write-protects what is at `path`, if there is something.
fn protect(path: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("make {} read-only: {error}", path.display());
    let Some(target) = existing(path).map_err(failed)? else { return Ok(()) };
    clone_tree(path, true)
        .and_then(|tree| {
            crate::sys::mount_setattr(tree.as_fd(), true, libc::MOUNT_ATTR_RDONLY, 0)?;
            mounts::attach_to(&tree, &target)
        })
        .map_err(failed)
}

/// Hides what is at `path`, if there is something: a file behind `/dev/null`, a directory behind an empty one.
fn mask(path: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("mask {}: {error}", path.display());
    let Some(target) = existing(path).map_err(failed)? else { return Ok(()) };
    let cover = match mounts::kind_of(&target).map_err(failed)? {
        Kind::File => clone_tree(Path::new("/dev/null"), false).map_err(failed)?,
        Kind::Directory => filesystem(
            "tmpfs",
            &[("size", "4k"), ("nr_inodes", "2")],
            MountAttrFlags::MOUNT_ATTR_RDONLY | NO_SUID_EXEC_DEV,
        )?,
    };
    mounts::attach_to(&cover, &target).map_err(failed)
}

/// Masks `name` in every directory of `directory`.
fn mask_each(directory: &str, name: &str) -> Result<(), String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    entries
        .flatten()
        .map(|entry| entry.path().join(name))
        .filter(|path| path.exists())
        .try_for_each(|path| mask(&path))
}

fn existing(path: &Path) -> io::Result<Option<OwnedFd>> {
    match rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
