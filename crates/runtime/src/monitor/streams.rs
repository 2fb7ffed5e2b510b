//! What a container reads and writes: from its pipes or terminal to the log and to attached clients, and back.

use super::log::Log;
use crate::sys;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::io::Errno;
use std::io;

/// One read of a container's output.
const CHUNK_BYTES: usize = 16 << 10;

pub const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// One of a container's outputs, as read by the monitor.
struct Output {
    fd: OwnedFd,
    /// What of a line has come so far.
    rest: Vec<u8>,
}

/// A client's side of one output. While something is pending the container is not read from: a slow client slows the
/// container down, as with any terminal.
struct Follower {
    fd: OwnedFd,
    pending: Vec<u8>,
}

/// A client that is attached.
pub struct Attachment {
    stdin: Option<OwnedFd>,
    followers: [Option<Follower>; 2],
}

#[derive(Default)]
pub struct Streams {
    outputs: [Option<Output>; 2],
    stdin: Option<OwnedFd>,
    stdin_pending: Vec<u8>,
    /// Close stdin when the first client that brought one is gone.
    stdin_once: bool,
    /// For its size only; `outputs` and `stdin` are the terminal too.
    pub terminal: Option<OwnedFd>,
    pub log: Option<Log>,
    attachments: Vec<Attachment>,
}

/// What to poll for, and what to do then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    Output(usize),
    Stdin,
    AttachedStdin(usize),
    Follower(usize, usize),
}

impl Streams {
    pub fn set_pipes(&mut self, stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd, stdin_once: bool) {
        self.stdin = stdin;
        self.stdin_once = stdin_once;
        self.outputs = [stdout, stderr].map(|fd| Some(Output { fd, rest: Vec::new() }));
    }

    /// The terminal takes the place of the pipes.
    pub fn set_terminal(&mut self, master: OwnedFd, stdin: bool) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&master, true)?;
        self.outputs[0] = Some(Output { fd: master.try_clone()?, rest: Vec::new() });
        self.stdin = if stdin { Some(master.try_clone()?) } else { None };
        self.terminal = Some(master);
        Ok(())
    }

    pub fn attach(
        &mut self,
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    ) -> io::Result<()> {
        for fd in [&stdin, &stdout, &stderr].into_iter().flatten() {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        let follower = |fd: Option<OwnedFd>| fd.map(|fd| Follower { fd, pending: Vec::new() });
        let mut attachment = Attachment { stdin, followers: [follower(stdout), follower(stderr)] };
        if self.stdin.is_none() {
            attachment.stdin = None;
        }
        self.attachments.push(attachment);
        Ok(())
    }

    fn clogged(&self) -> bool {
        let pending = |follower: &Follower| !follower.pending.is_empty();
        self.attachments.iter().any(|attachment| attachment.followers.iter().flatten().any(pending))
    }

    /// Adds what is waited for.
    pub fn poll(&self, mut add: impl FnMut(&OwnedFd, libc::c_short, Ready)) {
        if !self.clogged() {
            for (stream, output) in self.outputs.iter().enumerate() {
                if let Some(output) = output {
                    add(&output.fd, libc::POLLIN, Ready::Output(stream));
                }
            }
        }
        match &self.stdin {
            Some(stdin) if !self.stdin_pending.is_empty() => add(stdin, libc::POLLOUT, Ready::Stdin),
            _ => {}
        }
        for (number, attachment) in self.attachments.iter().enumerate() {
            if let Some(stdin) = &attachment.stdin
                && self.stdin_pending.is_empty()
            {
                add(stdin, libc::POLLIN, Ready::AttachedStdin(number));
            }
            for (stream, follower) in attachment.followers.iter().enumerate() {
                if let Some(follower) = follower {
                    // Without POLLOUT the kernel still tells when the client is gone.
                    let events = if follower.pending.is_empty() { 0 } else { libc::POLLOUT };
                    add(&follower.fd, events, Ready::Follower(number, stream));
                }
            }
        }
    }

    pub fn ready(&mut self, ready: Ready) {
        match ready {
            Ready::Output(stream) => drop(self.read_output(stream)),
            Ready::Stdin => self.write_stdin(),
            Ready::AttachedStdin(number) => self.read_attached(number),
            Ready::Follower(number, stream) => self.write_follower(number, stream),
        }
    }

    /// Forgets clients that have nothing open any more. Numbers of `Ready` change by this.
    pub fn sweep(&mut self) {
        self.attachments.retain(|attachment| {
            attachment.stdin.is_some() || attachment.followers.iter().any(Option::is_some)
        });
    }

    /// Reads once; whether there may be more.
    fn read_output(&mut self, stream: usize) -> bool {
        let Some(output) = &mut self.outputs[stream] else { return false };
        let mut chunk = [0; CHUNK_BYTES];
        let now_ns = sys::now_ns();
        match rustix::io::read(&output.fd, &mut chunk) {
            Err(Errno::AGAIN | Errno::INTR) => false,
            // A terminal says EIO when its last user is gone.
            Ok(0) | Err(_) => {
                self.close_output(stream);
                false
            }
            Ok(length) => {
                let chunk = &chunk[..length];
                if let Some(log) = &mut self.log {
                    // A full disk loses lines, but does not stop the container.
                    let _ = log.append(STREAMS[stream], &mut output.rest, chunk, now_ns);
                }
                for attachment in &mut self.attachments {
                    if let Some(follower) = &mut attachment.followers[stream] {
                        follower.pending.extend_from_slice(chunk);
                    }
                }
                for number in 0..self.attachments.len() {
                    self.write_follower(number, stream);
                }
                true
            }
        }
    }

    fn close_output(&mut self, stream: usize) {
        if let Some(mut output) = self.outputs[stream].take()
            && let Some(log) = &mut self.log
        {
            // A full disk loses lines, here too.
            let _ = log.finish(STREAMS[stream], &mut output.rest, sys::now_ns());
        }
        for attachment in &mut self.attachments {
            // What is pending is still delivered, and then it is closed.
            if attachment.followers[stream].as_ref().is_some_and(|follower| follower.pending.is_empty()) {
                attachment.followers[stream] = None;
            }
        }
    }

    fn write_follower(&mut self, number: usize, stream: usize) {
        let ended = self.outputs[stream].is_none();
        let Some(attachment) = self.attachments.get_mut(number) else { return };
        let Some(follower) = &mut attachment.followers[stream] else { return };
        let result = match follower.pending.is_empty() {
            // Called without anything to write: the client has gone.
            true if has_hung_up(&follower.fd) => Err(Errno::PIPE),
            true => Ok(0),
            false => rustix::io::write(&follower.fd, &follower.pending),
        };
        match result {
            Ok(length) => drop(follower.pending.drain(..length)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => attachment.followers[stream] = None,
        }
        if ended && attachment.followers[stream].as_ref().is_some_and(|follower| follower.pending.is_empty())
        {
            attachment.followers[stream] = None;
        }
    }

    fn read_attached(&mut self, number: usize) {
        let Some(attachment) = self.attachments.get_mut(number) else { return };
        let Some(stdin) = &attachment.stdin else { return };
        let mut chunk = [0; CHUNK_BYTES];
        match rustix::io::read(stdin, &mut chunk) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => {
                attachment.stdin = None;
                if self.stdin_once && self.terminal.is_none() {
                    self.stdin = None;
                }
            }
            Ok(length) => {
                self.stdin_pending.extend_from_slice(&chunk[..length]);
                self.write_stdin();
            }
        }
    }

    fn write_stdin(&mut self) {
        let Some(stdin) = &self.stdin else {
            self.stdin_pending.clear();
            return;
        };
        match rustix::io::write(stdin, &self.stdin_pending) {
            Ok(length) => drop(self.stdin_pending.drain(..length)),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => {
                self.stdin = None;
                self.stdin_pending.clear();
            }
        }
    }

    /// The container is dead: takes what it left in its pipes, and closes everything but what clients still have to
    /// read.
    pub fn finish(&mut self) {
        for stream in 0..2 {
            // As much as a pipe can hold; somebody else may have it open and write on.
            for _ in 0..(1 << 20) / CHUNK_BYTES {
                if !self.read_output(stream) {
                    break;
                }
            }
            self.close_output(stream);
        }
        self.stdin = None;
        self.terminal = None;
        self.log = None;
        for attachment in &mut self.attachments {
            attachment.stdin = None;
        }
        self.sweep();
    }
}

fn has_hung_up(fd: &OwnedFd) -> bool {
    let mut fds = [libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 }];
    sys::poll(&mut fds, 0).is_err() || fds[0].revents & (libc::POLLERR | libc::POLLHUP) != 0
}
