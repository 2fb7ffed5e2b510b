//! Makes monitors: one process per node's process that forks them.
//!
//! A monitor that is forked shares with its siblings what a program of this size writes to memory only to start up
//! (some 1.5 MB of relocations), and it starts in a fraction of the time. The spawner ends with the process that
//! started it; the monitors do not.

use super::Monitor;
use super::container::dev_null;
use crate::{protocol, sys};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Asks for a monitor. Descriptors: its standard output, on which it says `READY` or what is wrong, and its log.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spawn {
    pub sandbox: PathBuf,
    pub run: PathBuf,
}

/// The answer. Descriptor: a pidfd of the monitor, unless there is an error.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spawned {
    pub error: Option<String>,
}

/// Serves the socket that standard input is until the other side is gone. In each child, returns when the monitor
/// ends.
pub fn serve() -> io::Result<ExitCode> {
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(dev_null(false)?)?;
    // For those who look at processes; it works as well without.
    let _ = rustix::thread::set_name(c"pod-spawner");
    // Containers may not look into what they are born from.
    sys::prctl(libc::PR_SET_DUMPABLE, 0)?;
    // Not an error where it may not be lowered.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
    // The kernel reaps monitors that end: whoever they serve hears of it over their sockets.
    sys::set_child_signal(libc::SIG_IGN);
    loop {
        let mut fds = [libc::pollfd { fd: control.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        sys::poll(&mut fds, -1)?;
        let (spawn, fds) = match protocol::receive::<Spawn>(&control) {
            Ok(Some(asked)) => asked,
            Ok(None) => return Ok(ExitCode::SUCCESS),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        match sys::fork(0) {
            Ok(None) => {
                drop(control);
                return become_monitor(spawn, fds);
            }
            Ok(Some((_, pidfd))) => protocol::send(&control, &Spawned { error: None }, &[pidfd.as_fd()])?,
            Err(error) => protocol::send(&control, &Spawned { error: Some(error.to_string()) }, &[])?,
        }
    }
}

fn become_monitor(spawn: Spawn, fds: Vec<OwnedFd>) -> io::Result<ExitCode> {
    let [stdout, log] =
        <[OwnedFd; 2]>::try_from(fds).map_err(|_| io::Error::other("two descriptors are needed"))?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(log)?;
    sys::set_child_signal(libc::SIG_DFL);
    match Monitor::new(spawn.sandbox, spawn.run) {
        Ok(mut monitor) => {
            // Who is not there to hear it cannot find this monitor any more, so an error ends it.
            leave_standard_output(super::READY)?;
            Ok(monitor.serve())
        }
        Err(error) => {
            leave_standard_output(&error)?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn leave_standard_output(last_words: &str) -> io::Result<()> {
    rustix::io::write(rustix::stdio::stdout(), last_words.as_bytes())?;
    Ok(rustix::stdio::dup2_stdout(dev_null(true)?)?)
}
