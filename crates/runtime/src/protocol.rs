//! What the node's process and a pod's monitor say to each other: one JSON message per packet of a Unix socket
//! (SOCK_SEQPACKET), which keeps messages apart and descriptors with the message that they belong to.
//!
//! A monitor outlives the program that started it, so messages may gain fields with defaults and new calls, but those
//! that exist stay as they are.

use plan::node::ContainerStatus;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::path::PathBuf;

/// The longest message. What may be longer (a command line) goes in a file of its own, by descriptor.
const MESSAGE_LIMIT_BYTES: usize = 16 << 10;
/// The most descriptors in one message.
const FD_LIMIT: usize = 4;

#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Comes back in the reply.
    pub id: u64,
    pub call: Call,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Call {
    Start(Start),
    Kill {
        container: String,
        signal: i32,
    },
    /// Descriptors: the process (JSON), stdin, stdout, stderr; only the first with a terminal. The reply to the latter
    /// brings the terminal.
    Exec {
        exec: u64,
        container: String,
        tty: bool,
    },
    KillExec {
        exec: u64,
    },
    /// Descriptors: those that are asked for, in this order.
    Attach {
        container: String,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    Resize {
        container: String,
        columns: u16,
        rows: u16,
    },
    ReopenLog {
        container: String,
    },
    /// Forgets a container that does not run.
    Remove {
        container: String,
    },
    /// Tells the status of every container, then replies.
    Status,
    /// Kills what runs, and ends the monitor.
    Shutdown,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Start {
    pub container: String,
    pub log_path: PathBuf,
    pub log_max_bytes: u64,
    pub log_max_files: u32,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
    pub cgroups: Vec<PathBuf>,
    /// A container whose PID namespace this one joins.
    pub pid_target: Option<String>,
    /// The container has a PID namespace of its own, so nothing in it outlives its first process.
    pub own_pid_namespace: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    Reply { id: u64, error: Option<String> },
    Container { id: String, status: ContainerStatus },
    ExecExited { exec: u64, exit_code: i32 },
}

/// Sends one message without waiting.
///
/// # Errors
/// `WouldBlock` when the other side does not keep up.
pub fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MESSAGE_LIMIT_BYTES {
        return Err(io::Error::other(format!(
            "a message of {} bytes; {MESSAGE_LIMIT_BYTES} may be sent",
            bytes.len()
        )));
    }
    send_bytes(socket, &bytes, fds)
}

pub fn send_bytes(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FD_LIMIT))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other(format!("{} descriptors; {FD_LIMIT} may be sent", fds.len())));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// Takes the next message without waiting. `None`: the other side has gone.
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = [0; MESSAGE_LIMIT_BYTES];
    match receive_bytes(socket, &mut bytes)? {
        (0, _) => Ok(None),
        (length, fds) => Ok(Some((serde_json::from_slice(&bytes[..length])?, fds))),
    }
}

pub fn receive_bytes(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FD_LIMIT))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    Ok((received.bytes, fds))
}
