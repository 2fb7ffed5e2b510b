//! Where things are.
//!
//! ```text
//! <root>/sandboxes/<id>/            stays until the sandbox is removed
//!     sandbox.json  hosts  hostname  resolv.conf  monitor.log
//!     containers/<id>/
//!         container.json            what it is: written once
//!         spec.json                 how to start it: written once
//!         status.json               what became of it: written by the monitor
//!         upper/ work/ rootfs/  termination-log  volumes/
//! <run>/<id>/                       gone after a reboot, or when the sandbox stops
//!     monitor.sock  netns  shm/
//! ```

use rustix::fs::{Mode, OFlags};
use serde::{Serialize, de::DeserializeOwned};
use std::io;
use std::path::{Path, PathBuf};

/// The longest file of ours that is read back.
const LIMIT_BYTES: u64 = 16 << 20;

pub const CONTAINER: &str = "container.json";
pub const SANDBOX: &str = "sandbox.json";
pub const SPEC: &str = "spec.json";
pub const STATUS: &str = "status.json";
pub const SOCKET: &str = "monitor.sock";
pub const NETNS: &str = "netns";
pub const SHM: &str = "shm";

pub fn containers(sandbox: &Path) -> PathBuf {
    sandbox.join("containers")
}

pub fn container(sandbox: &Path, id: &str) -> PathBuf {
    containers(sandbox).join(id)
}

/// Whether `id` is one that we gave out: it becomes part of paths.
pub fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

pub fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let text = crate::sys::read_limited(std::fs::File::open(path)?.into(), LIMIT_BYTES)?;
    Ok(serde_json::from_str(&text)?)
}

pub fn write_json(path: &Path, value: &impl Serialize, durable: bool) -> io::Result<()> {
    crate::sys::write_aside(path, &serde_json::to_vec(value)?, durable)
}

/// A path to the socket that is short enough for a socket address, however deep the directory is. It is good while the
/// returned directory is open.
pub fn socket_path(run: &Path) -> io::Result<(rustix::fd::OwnedFd, PathBuf)> {
    let directory = rustix::fs::open(run, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = Path::new(&crate::sys::fd_path(&directory)).join(SOCKET);
    Ok((directory, path))
}
