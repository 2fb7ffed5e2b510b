//! Processes that are started in containers that run already.

use super::container::{self, Asker, Told};
use super::{Monitor, fork_in};
use crate::container::init::{self, Channels, Target};
use crate::protocol::Message;
use crate::sys;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

/// Execs that run at once in a pod.
const EXEC_LIMIT: usize = 256;

/// A process that runs in a container besides its own.
pub struct Exec {
    client: u32,
    id: u64,
    pub pid: i32,
    pidfd: OwnedFd,
    pub starting: Option<(OwnedFd, Asker)>,
    terminal: Option<OwnedFd>,
}

impl Monitor {
    pub(super) fn exec(
        &mut self,
        asker: Asker,
        id: u64,
        container: &str,
        tty: bool,
        fds: Vec<OwnedFd>,
    ) -> Option<Result<(), String>> {
        if self.execs.len() >= EXEC_LIMIT {
            return Some(Err(format!("{EXEC_LIMIT} execs run in this pod already")));
        }
        let prepared = self.running(container).and_then(|container| {
            let pidfd = container.pidfd.try_clone().map_err(|error| format!("exec: {error}"))?;
            Ok((container.directory.clone(), pidfd))
        });
        let (directory, target) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Some(Err(error)),
        };
        let (process, stdio) = match exec_channels(tty, fds) {
            Ok(channels) => channels,
            Err(error) => return Some(Err(error)),
        };
        let (ours, theirs) = match container::status_socket() {
            Ok(pair) => pair,
            Err(error) => return Some(Err(format!("exec: {error}"))),
        };
        let own = self.pid_namespace.as_fd();
        let child = if self.host_pid { sys::fork(0) } else { fork_in(target.as_fd(), own, 0) };
        match child {
            Ok(None) => {
                drop(ours);
                let target = Target { container: target, process };
                init::exec(&directory, target, Channels { status: theirs, stdio, console: false })
            }
            Ok(Some((pid, pidfd))) => {
                let starting = Some((ours, asker));
                self.execs.push(Exec { client: asker.client, id, pid, pidfd, starting, terminal: None });
                None
            }
            Err(error) => Some(Err(format!("exec: {error}"))),
        }
    }

    pub(super) fn kill_exec(&self, client: u32, id: u64) {
        if let Some(exec) = self.execs.iter().find(|exec| exec.client == client && exec.id == id) {
            // It leads a process group of its own; what it started goes with it. Gone already is as good.
            let _ = sys::kill(-exec.pid, libc::SIGKILL);
            let _ = sys::pidfd_send_signal(exec.pidfd.as_fd(), libc::SIGKILL);
        }
    }

    pub(super) fn hear_exec(&mut self, pid: i32) {
        let Some(at) = self.execs.iter().position(|exec| exec.pid == pid) else { return };
        let exec = &mut self.execs[at];
        let Some((status, asker)) = &exec.starting else { return };
        let asker = *asker;
        match container::listen(status) {
            Told::Nothing => {}
            Told::Terminal(master) => exec.terminal = Some(master),
            Told::Failed(message) => {
                // Its end, when it is reaped, concerns nobody any more.
                self.execs.remove(at);
                self.reply(asker, Err(message), &[]);
            }
            Told::Gone => {
                exec.starting = None;
                let terminal = exec.terminal.take();
                let fds: Vec<BorrowedFd> = terminal.iter().map(AsFd::as_fd).collect();
                self.reply(asker, Ok(()), &fds);
            }
        }
    }

    pub(super) fn reap_exec(&mut self, pid: i32, wait_status: i32) {
        // At most the terminal, then the end or an error.
        for _ in 0..3 {
            self.hear_exec(pid);
        }
        let Some(at) = self.execs.iter().position(|exec| exec.pid == pid) else { return };
        let exec = self.execs.remove(at);
        let message = Message::ExecExited { exec: exec.id, exit_code: container::decode(wait_status).0 };
        self.send(exec.client, &message, &[]);
    }
}

type ExecChannels = (OwnedFd, Option<[OwnedFd; 3]>);

fn exec_channels(tty: bool, fds: Vec<OwnedFd>) -> Result<ExecChannels, String> {
    let mut fds = fds.into_iter();
    let process = fds.next().ok_or("exec came without a command")?;
    if tty {
        return Ok((process, None));
    }
    match (fds.next(), fds.next(), fds.next()) {
        (Some(stdin), Some(stdout), Some(stderr)) => Ok((process, Some([stdin, stdout, stderr]))),
        _ => Err("exec came without its streams".into()),
    }
}
