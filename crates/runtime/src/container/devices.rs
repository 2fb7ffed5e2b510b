//! `/dev` of a container.

use super::mounts::{self, Kind};
use devices::Rule;
use plan::node::Device;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Gid, Mode, Uid, makedev};
use rustix::mount::MountAttrFlags;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// The nodes that every container has: name, numbers.
const STANDARD: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// What of the machine's `/dev` a privileged container does not get: it has its own.
const OWN: [&str; 8] = ["pts", "shm", "fd", "mqueue", "console", "ptmx", "stdin", "log"];

/// A device of the machine as a rule of a device cgroup.
///
/// # Errors
/// It is not there, or not a device.
pub fn numbers(device: &Device) -> Result<Rule, String> {
    let path = device.host_path.display();
    let meta = std::fs::metadata(&device.host_path).map_err(|error| format!("device {path}: {error}"))?;
    let kind = if meta.file_type().is_char_device() {
        'c'
    } else if meta.file_type().is_block_device() {
        'b'
    } else {
        return Err(format!("device {path}: not a device node"));
    };
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    Ok(Rule { kind, major: Some(major), minor: Some(minor), access: device.permissions.clone() })
}

/// Fills the empty filesystem that `dev` is.
pub fn fill(dev: &OwnedFd) -> Result<(), String> {
    for (name, major, minor) in STANDARD {
        make(
            dev,
            Path::new(name),
            FileType::CharacterDevice,
            0o666,
            makedev(major, minor),
            Path::new("/dev").join(name).as_path(),
        )?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, dev, name).map_err(|error| format!("link /dev/{name}: {error}"))?;
    }
    Ok(())
}

/// Makes a node or, where that is not allowed (in a user namespace), binds the machine's.
fn make(
    root: &OwnedFd,
    path: &Path,
    kind: FileType,
    mode: u32,
    device: u64,
    from: &Path,
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("device {}: {error}", from.display());
    match rustix::fs::mknodat(root, path, kind, Mode::from_raw_mode(mode), device) {
        // The mode again, without the umask.
        Ok(()) => rustix::fs::chmodat(root, path, Mode::from_raw_mode(mode), rustix::fs::AtFlags::empty())
            .map_err(|error| failed(error.into())),
        Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(rustix::io::Errno::PERM) => mounts::clone_tree(from, false)
            .and_then(|tree| mounts::attach(&tree, root, path, Kind::File))
            .map_err(failed),
        Err(error) => Err(failed(error.into())),
    }
}

/// Gives the container a device of the machine.
pub fn add(root: &OwnedFd, device: &Device) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("device {}: {error}", device.host_path.display());
    let meta = std::fs::metadata(&device.host_path).map_err(failed)?;
    let path = Path::new(&device.container_path);
    if let Some(parent) = path.parent() {
        mounts::mount_point(root, parent, Kind::Directory).map_err(failed)?;
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let directory = crate::sys::open_in_root(root, parent, rustix::fs::OFlags::PATH).map_err(failed)?;
    let name =
        path.file_name().ok_or_else(|| format!("device path {:?} names no file", device.container_path))?;
    let kind = FileType::from_raw_mode(meta.mode());
    make(&directory, Path::new(name), kind, meta.mode() & 0o777, meta.rdev(), &device.host_path)
}

/// Gives a privileged container every device of the machine. What cannot be made is left out.
pub fn add_all(dev: &OwnedFd) {
    add_below(dev, Path::new("/dev"), Path::new(""), 0);
}

fn add_below(dev: &OwnedFd, directory: &Path, relative: &Path, depth: u32) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if depth == 0 && OWN.iter().any(|own| name == *own) {
            continue;
        }
        let (Ok(meta), path) = (entry.metadata(), relative.join(&name)) else { continue };
        let kind = FileType::from_raw_mode(meta.mode());
        match kind {
            FileType::Directory if depth < 4 => {
                // Where it cannot be made, nothing below it can.
                let _ = rustix::fs::mkdirat(dev, &path, Mode::from_raw_mode(0o755));
                add_below(dev, &entry.path(), &path, depth + 1);
            }
            FileType::CharacterDevice | FileType::BlockDevice => copy_node(dev, &path, &meta, &entry.path()),
            _ => {}
        }
    }
}

fn copy_node(dev: &OwnedFd, path: &Path, meta: &std::fs::Metadata, from: &Path) {
    let kind = FileType::from_raw_mode(meta.mode());
    if make(dev, path, kind, meta.mode() & 0o777, meta.rdev(), from).is_ok() {
        let (uid, gid) = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
        // A node with the wrong owner is still of use to root.
        let _ = rustix::fs::chownat(dev, path, Some(uid), Some(gid), rustix::fs::AtFlags::empty());
    }
}

/// The instance of devpts that is only this container's.
pub fn pts() -> Result<OwnedFd, String> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    mounts::filesystem("devpts", &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")], attributes)
}

/// Opens a new terminal of that instance, once it is at `/dev/pts`: the master and the slave.
pub fn open_terminal() -> std::io::Result<(OwnedFd, OwnedFd)> {
    use rustix::fs::OFlags;
    use rustix::pty::OpenptFlags;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::openat(CWD, "/dev/pts/ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    Ok((master, slave))
}

/// Makes a terminal the container's console as well.
pub fn make_console(master: &OwnedFd) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let name = rustix::pty::ptsname(master, Vec::new())?;
    let tree = mounts::clone_tree(Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())), false)?;
    let root = rustix::fs::open("/", rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, Mode::empty())?;
    mounts::attach(&tree, &root, Path::new("/dev/console"), Kind::File)
}
