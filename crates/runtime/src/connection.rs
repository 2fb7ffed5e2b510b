//! The node's side of a connection to a monitor.

use crate::layout;
use crate::protocol::{self, Call, Message, Request};
use plan::node::ContainerStatus;
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

type Answer = Result<Vec<OwnedFd>, String>;

/// Why a call brought nothing.
#[derive(Debug)]
pub enum CallError {
    Gone,
    Refused(String),
}

/// What a monitor tells without being asked.
pub enum Told {
    Container { id: String, status: ContainerStatus },
}

pub struct Connection {
    socket: AsyncFd<OwnedFd>,
    /// The monitor's.
    pub pid: i32,
    last_id: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    gone: bool,
    replies: HashMap<u64, oneshot::Sender<Answer>>,
    execs: HashMap<u64, oneshot::Sender<i32>>,
}

impl Connection {
    /// Connects to the monitor that serves in `run`. Needs a tokio runtime.
    pub fn open(run: &Path) -> io::Result<Arc<Connection>> {
        let (_directory, path) = layout::socket_path(run)?;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(&path)?)?;
        let peer = rustix::net::sockopt::socket_peercred(&socket)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        // SAFETY: the descriptor is owned, and stays open until the AsyncFd drops it.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Arc::new(Connection {
            socket,
            pid: peer.pid.as_raw_nonzero().get(),
            last_id: AtomicU64::new(0),
            waiting: Mutex::default(),
        }))
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Announces an exec, so that its end is not missed however soon it comes.
    pub fn expect_exec(&self, exec: u64) -> oneshot::Receiver<i32> {
        let (tell, told) = oneshot::channel();
        self.waiting().execs.insert(exec, tell);
        told
    }

    pub fn forget_exec(&self, exec: u64) {
        self.waiting().execs.remove(&exec);
    }

    /// Asks, and waits for the answer: the descriptors that came with it.
    pub async fn call(&self, call: Call, fds: &[OwnedFd]) -> Result<Vec<OwnedFd>, CallError> {
        let id = self.next_id();
        let (tell, told) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            if waiting.gone {
                return Err(CallError::Gone);
            }
            waiting.replies.insert(id, tell);
        }
        if let Err(error) = self.send(&Request { id, call }, fds).await {
            self.waiting().replies.remove(&id);
            return Err(match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected => {
                    CallError::Gone
                }
                _ => CallError::Refused(error.to_string()),
            });
        }
        match told.await {
            Ok(Ok(fds)) => Ok(fds),
            Ok(Err(message)) => Err(CallError::Refused(message)),
            Err(_) => Err(CallError::Gone),
        }
    }

    async fn send(&self, request: &Request, fds: &[OwnedFd]) -> io::Result<()> {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        loop {
            let mut ready = self.socket.writable().await?;
            match ready.try_io(|socket| protocol::send(socket, request, &fds)) {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Hands answers to who waits for them, and returns the next thing nobody asked for. `None`: the monitor is gone.
    pub async fn next(&self) -> Option<Told> {
        loop {
            let received = self.receive().await;
            let Ok(Some((message, fds))) = received else {
                let mut waiting = self.waiting();
                // Dropping the senders tells everybody.
                *waiting = Waiting { gone: true, ..Default::default() };
                return None;
            };
            match message {
                Message::Container { id, status } => return Some(Told::Container { id, status }),
                Message::Reply { id, error } => {
                    if let Some(tell) = self.waiting().replies.remove(&id) {
                        // Who asked may have stopped waiting.
                        let _ = tell.send(error.map_or(Ok(fds), Err));
                    }
                }
                Message::ExecExited { exec, exit_code } => {
                    if let Some(tell) = self.waiting().execs.remove(&exec) {
                        // As above.
                        let _ = tell.send(exit_code);
                    }
                }
            }
        }
    }

    async fn receive(&self) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(protocol::receive::<Message>) {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }
}
