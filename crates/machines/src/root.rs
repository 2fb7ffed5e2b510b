//! The file system that a machine sees, made by its first process in a mount namespace of its own.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, mknodat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};

use crate::init::Boot;
use crate::machine::Bind;
use crate::{Error, Result};

/// Where the ekso binary is inside.
const BINARY: &str = "usr/bin/ekso";
/// Folders of every machine, in its root.
const DIRECTORIES: &[&str] = &[
    "dev",
    "etc",
    "etc/ssl",
    "opt",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr/bin",
    "usr/lib",
    "var/lib/ekso",
    "var/lib/kubelet",
    "var/log/ekso",
    "var/log/pods",
    "var/log/containers",
    "var/run",
];
/// Bundles of the host's certificate authorities, wherever its distribution keeps them. They are copied: a bind that is
/// read-only is so until root in the machine makes it writable again, and would let it say whom the host trusts.
const AUTHORITIES: &[&str] = &[
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs/ca-certificates.crt",
];
/// Files of `etc` that are written at every start, `machine-id` among them.
const WRITTEN: &[&str] = &["hostname", "hosts", "resolv.conf", "passwd", "group", "os-release", "machine-id"];
/// Character devices: name, major, minor (Documentation/admin-guide/devices.txt).
const DEVICES: &[(&str, u32, u32)] = &[
    ("full", 1, 7),
    ("fuse", 10, 229),
    ("kmsg", 1, 11),
    ("null", 1, 3),
    ("random", 1, 8),
    ("tty", 5, 0),
    ("urandom", 1, 9),
    ("zero", 1, 5),
];

/// Builds the root and moves into it. The calling process has mount, PID, network and cgroup namespaces of its own.
pub fn enter(boot: &Boot) -> Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(failed("make private", "/"))?;
    let root = &boot.root;
    for directory in DIRECTORIES {
        without_links(root, Path::new(directory))?;
        make_dir(&root.join(directory))?;
    }
    for file in WRITTEN {
        without_links(root, &Path::new("etc").join(file))?;
    }
    mount_bind_recursive(root, root).map_err(failed("bind", root))?;
    write_etc(boot)?;
    kernel_file_systems(root)?;
    devices(root)?;
    control_groups(boot)?;
    for directory in ["run", "tmp"] {
        let mode = if directory == "tmp" { c"mode=1777" } else { c"mode=755" };
        let path = root.join(directory);
        mount("tmpfs", &path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(mode))
            .map_err(failed("mount", &path))?;
    }
    binary(root)?;
    authorities(root)?;
    for wanted in &boot.spec.binds {
        bind(root, wanted)?;
    }
    pivot(root)
}

fn failed(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(rustix::io::Errno) -> Error {
    let path = path.as_ref().to_owned();
    move |errno| Error::file(operation, path)(errno.into())
}

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::file("create", path))
}

/// Takes away every link on the way to `relative` below the root, and one at its end. The root keeps what pods wrote
/// into it, and a link of theirs, followed before the root is this process's own, would lead to a file of the host.
/// Nothing of the machine runs now that could put another in its place.
pub fn without_links(root: &Path, relative: &Path) -> Result<()> {
    let mut path = root.to_owned();
    for part in relative.components() {
        let std::path::Component::Normal(name) = part else { continue };
        path.push(name);
        match fs::symlink_metadata(&path) {
            Ok(kind) if kind.is_symlink() => {
                fs::remove_file(&path).map_err(Error::file("remove the link", &path))?;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::file("look at", &path)(error)),
        }
    }
    Ok(())
}

fn kernel_file_systems(root: &Path) -> Result<()> {
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for (kind, target) in [("proc", "proc"), ("sysfs", "sys")] {
        let path = root.join(target);
        mount(kind, &path, kind, safe, None).map_err(failed("mount", &path))?;
    }
    Ok(())
}

fn authorities(root: &Path) -> Result<()> {
    for bundle in AUTHORITIES.iter().map(Path::new).filter(|bundle| bundle.is_file()) {
        let relative = bundle.strip_prefix("/").unwrap_or(bundle);
        without_links(root, relative)?;
        let target = root.join(relative);
        if let Some(parent) = target.parent() {
            make_dir(parent)?;
        }
        fs::copy(bundle, &target).map_err(Error::file("copy", bundle))?;
    }
    Ok(())
}

fn devices(root: &Path) -> Result<()> {
    let dev = root.join("dev");
    mount("tmpfs", &dev, "tmpfs", MountFlags::NOSUID, Some(c"mode=755")).map_err(failed("mount", &dev))?;
    for (name, major, minor) in DEVICES {
        let path = dev.join(name);
        let device = rustix::fs::makedev(*major, *minor);
        mknodat(rustix::fs::CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)
            .map_err(failed("create device", &path))?;
        // The file mode above is cut by the umask.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).map_err(Error::file("chmod", &path))?;
    }
    make_dir(&dev.join("net"))?;
    let tun = dev.join("net/tun");
    mknodat(
        rustix::fs::CWD,
        &tun,
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        rustix::fs::makedev(10, 200),
    )
    .map_err(failed("create device", &tun))?;
    for (kind, name, options) in [
        ("devpts", "pts", c"newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ("tmpfs", "shm", c"mode=1777"),
        ("mqueue", "mqueue", c""),
    ] {
        let path = dev.join(name);
        make_dir(&path)?;
        mount(kind, &path, kind, MountFlags::NOSUID | MountFlags::NOEXEC, Some(options))
            .map_err(failed("mount", &path))?;
    }
    for (target, name) in [
        ("pts/ptmx", "ptmx"),
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
    ] {
        symlink(target, dev.join(name)).map_err(Error::file("link", dev.join(name)))?;
    }
    // Disks of the host that containers may be given: loop devices, for volumes in files.
    for entry in
        fs::read_dir("/dev").map_err(Error::file("list", "/dev"))?.filter_map(std::result::Result::ok)
    {
        let name = entry.file_name();
        let Some(meta) = entry.metadata().ok().filter(|_| name.to_string_lossy().starts_with("loop")) else {
            continue;
        };
        let kind = match meta.file_type() {
            kind if kind.is_block_device() => FileType::BlockDevice,
            kind if kind.is_char_device() => FileType::CharacterDevice,
            _ => continue,
        };
        // Nodes of the machine's own: whatever it does to them, the host's stay as they are.
        let path = dev.join(name);
        mknodat(rustix::fs::CWD, &path, kind, Mode::from_raw_mode(0o660), meta.rdev())
            .map_err(failed("create device", &path))?;
    }
    Ok(())
}

/// The machine's group of each hierarchy where the host has the whole hierarchy: to what runs inside, the machine
/// looks like a host.
fn control_groups(boot: &Boot) -> Result<()> {
    let nested = boot.groups.iter().any(|group| !group.hierarchy.unified);
    let top = boot.root.join("sys/fs/cgroup");
    if nested {
        mount("tmpfs", &top, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755"))
            .map_err(failed("mount", &top))?;
    }
    for group in &boot.groups {
        // Hybrid hosts mount the unified hierarchy beside the others; pure ones mount it on top itself.
        let name = group.hierarchy.mount.file_name().filter(|_| nested);
        let target = name.map_or(top.clone(), |name| top.join(name));
        make_dir(&target)?;
        mount_bind(&group.path, &target).map_err(failed("bind", &target))?;
    }
    // Hosts that mount several controllers together link each name to the mount.
    if nested {
        for group in &boot.groups {
            let Some(mounted) = group.hierarchy.mount.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            for controller in mounted.split(',').filter(|controller| *controller != mounted) {
                symlink(mounted, top.join(controller)).map_err(Error::file("link", top.join(controller)))?;
            }
        }
    }
    Ok(())
}

/// The running binary, and what a dynamically linked one needs to run: only release builds are static.
fn binary(root: &Path) -> Result<()> {
    let source = own_binary()?;
    without_links(root, Path::new(BINARY))?;
    bind_file(&source, &root.join(BINARY))?;
    read_only(&root.join(BINARY))?;
    if !is_dynamic(&source).map_err(Error::file("read", &source))? {
        return Ok(());
    }
    for name in ["lib", "lib32", "lib64", "usr/lib", "usr/lib32", "usr/lib64"] {
        let host = Path::new("/").join(name);
        let inside = root.join(name);
        match fs::symlink_metadata(&host) {
            Ok(kind) if kind.is_symlink() => {
                let target = fs::read_link(&host).map_err(Error::file("read", &host))?;
                replace_link(&target, &inside)?;
            }
            Ok(kind) if kind.is_dir() => {
                bind(root, &Bind { source: host.clone(), target: host, read_only: true })?
            }
            _ => {}
        }
    }
    Ok(())
}

/// The path of the running binary: the link in /proc leads to a mount of the host's namespace, which cannot be bound
/// in this one. A file that was replaced since (an upgrade) is taken as it is now.
fn own_binary() -> Result<PathBuf> {
    let link = fs::read_link("/proc/self/exe").map_err(Error::file("read", "/proc/self/exe"))?;
    let replaced = link.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Ok(replaced.unwrap_or(link))
}

fn replace_link(target: &Path, link: &Path) -> Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::file("replace", link)(error));
        }
        _ => {}
    }
    symlink(target, link).map_err(Error::file("link", link))
}

/// Whether an ELF file asks for an interpreter: it has a program header of type PT_INTERP (elf(5), 64 bits).
fn is_dynamic(path: &Path) -> io::Result<bool> {
    const PT_INTERP: [u8; 4] = 3u32.to_ne_bytes();
    let mut file = File::open(path)?;
    let mut header = [0; 64];
    file.read_exact(&mut header)?;
    let number = |at: usize, length: usize| {
        let mut bytes = [0; 8];
        bytes[..length].copy_from_slice(&header[at..at + length]);
        u64::from_le_bytes(bytes)
    };
    let (offset, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    for index in 0..count {
        let mut kind = [0; 4];
        file.seek(SeekFrom::Start(offset + index * size))?;
        file.read_exact(&mut kind)?;
        if kind == PT_INTERP {
            return Ok(true);
        }
    }
    Ok(false)
}

fn bind(root: &Path, bind: &Bind) -> Result<()> {
    let relative = bind.target.strip_prefix("/").unwrap_or(&bind.target);
    without_links(root, relative)?;
    let target = root.join(relative);
    if bind.source.is_dir() {
        make_dir(&target)?;
        mount_bind_recursive(&bind.source, &target).map_err(failed("bind", &bind.source))?;
    } else {
        if let Some(parent) = target.parent() {
            make_dir(parent)?;
        }
        bind_file(&bind.source, &target)?;
    }
    if bind.read_only { read_only(&target) } else { Ok(()) }
}

fn bind_file(source: &Path, target: &Path) -> Result<()> {
    if !target.exists() {
        File::create(target).map_err(Error::file("create", target))?;
    }
    mount_bind(source, target).map_err(failed("bind", source))
}

fn read_only(target: &Path) -> Result<()> {
    mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, c"")
        .map_err(failed("make read-only", target))
}

/// Files that belong to the machine's identity, written anew at every start.
fn write_etc(boot: &Boot) -> Result<()> {
    let name = &boot.hostname;
    let mut hosts = format!("127.0.0.1 localhost\n::1 localhost\n{} {name}\n", boot.spec.link.address);
    hosts.extend(boot.spec.hosts.iter().map(|(address, name)| format!("{address} {name}\n")));
    let resolv: String =
        boot.spec.nameservers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let files = [
        ("hostname", format!("{name}\n")),
        ("hosts", hosts),
        ("resolv.conf", resolv),
        ("passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n".to_owned()),
        ("group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n".to_owned()),
        ("os-release", "NAME=\"Ekso\"\nID=ekso\nPRETTY_NAME=\"Ekso\"\n".to_owned()),
    ];
    for (file, content) in files {
        let path = boot.root.join("etc").join(file);
        fs::write(&path, content).map_err(Error::file("write", &path))?;
    }
    let machine_id = boot.root.join("etc/machine-id");
    if !machine_id.exists() {
        let uuid = "/proc/sys/kernel/random/uuid";
        let random = fs::read_to_string(uuid).map_err(Error::file("read", uuid))?;
        fs::write(&machine_id, random.replace('-', "")).map_err(Error::file("write", &machine_id))?;
    }
    Ok(())
}

/// Makes `root` the root and lets go of the host's file systems.
fn pivot(root: &PathBuf) -> Result<()> {
    std::env::set_current_dir(root).map_err(Error::file("enter", root))?;
    rustix::process::pivot_root(".", ".").map_err(failed("make the root of", root))?;
    unmount(".", UnmountFlags::DETACH).map_err(failed("unmount", "the old root"))?;
    std::env::set_current_dir("/").map_err(Error::file("enter", "/"))?;
    // Mounts made by pods with bidirectional propagation are seen by the node, as on any kubelet's host.
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    mount_change("/", shared).map_err(failed("make shared", "/"))
}
