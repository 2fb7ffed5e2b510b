//! Network namespaces: pinned by a bind mount of nsfs, entered by threads made for it.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::{Error, Result};

/// The magic number of the file system that namespaces live on (linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// An open network namespace; it lives at least as long as this.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    path: PathBuf,
}

impl NetNs {
    /// Opens a namespace by its pin, or by `/proc/<pid>/ns/net`.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        match File::open(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(Error::Namespace { operation: "open", path, source }),
        }
    }

    /// Opens the pinned namespace at `path`, making it if there is none.
    pub fn ensure(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        if is_pinned(&path) {
            return Self::open(path);
        }
        create(&path).map_err(|source| Error::Namespace {
            operation: "create",
            path: path.clone(),
            source,
        })?;
        Self::open(path)
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether `path` is a namespace's pin, as opposed to a file left by a crash between creating and mounting.
pub fn is_pinned(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type as u64 == NSFS_MAGIC)
}

fn create(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(path)?;
    in_new_thread(|| {
        // SAFETY: only the network namespace of this thread changes, and the thread ends with the closure.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        mount_bind("/proc/thread-self/ns/net", path)?;
        Ok(())
    })
}

/// Unpins a namespace; it ends when its last process and socket are gone. Absent is fine.
pub fn remove(path: &Path) -> Result<()> {
    let fail = |source| Error::Namespace { operation: "remove", path: path.to_owned(), source };
    while is_pinned(path) {
        unmount(path, UnmountFlags::DETACH).map_err(|errno| fail(errno.into()))?;
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(fail(source)),
        _ => Ok(()),
    }
}

/// Runs a closure on a thread inside the namespace and hands back its result.
///
/// A thread a call (some 30 µs): a thread that has been elsewhere is never reused for anything.
pub fn run_in<T: Send>(ns: &NetNs, run: impl FnOnce() -> T + Send) -> Result<T> {
    let fail = |source| Error::Namespace { operation: "enter", path: ns.path.clone(), source };
    in_new_thread(|| {
        move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(run())
    })
    .map_err(fail)
}

/// Runs a closure in a namespace that is gone afterwards: to try things out.
pub fn run_in_new<T: Send>(run: impl FnOnce() -> T + Send) -> Result<T> {
    in_new_thread(|| {
        // SAFETY: only the network namespace of this thread changes, and the thread ends with the closure.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        Ok(run())
    })
    .map_err(|source| Error::Namespace { operation: "create", path: PathBuf::new(), source })
}

fn in_new_thread<T: Send>(run: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, run)?;
        // A panic of the closure goes on in the caller, as if no thread had been between.
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn socket_in<T: Send>(
    ns: &NetNs,
    operation: &'static str,
    make: impl FnOnce() -> io::Result<T> + Send,
) -> Result<T> {
    run_in(ns, make)?.map_err(|source| Error::Namespace { operation, path: ns.path.clone(), source })
}

/// A listener whose connections arrive inside the namespace.
pub fn tcp_listener(ns: &NetNs, address: SocketAddr) -> Result<TcpListener> {
    socket_in(ns, "listen in", || TcpListener::bind(address))
}

/// A bound UDP socket inside the namespace.
pub fn udp_socket(ns: &NetNs, address: SocketAddr) -> Result<UdpSocket> {
    socket_in(ns, "bind in", || UdpSocket::bind(address))
}

/// A connection made from inside the namespace. Blocks up to `timeout`.
pub fn tcp_connect(ns: &NetNs, address: SocketAddr, timeout: Duration) -> Result<TcpStream> {
    socket_in(ns, "connect from", || TcpStream::connect_timeout(&address, timeout))
}
