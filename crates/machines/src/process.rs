//! A process that may outlive us: known by its id and its start time, since ids are used again.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process of the host's PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks between boot and the process's start: field 22 of proc_pid_stat(5).
    pub started_ticks: u64,
}

impl Process {
    /// The process that has this id now; none if there is none, or if it only waits to be reaped.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the command in parentheses, which may hold anything.
        let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
        let state = fields.next()?;
        let started_ticks = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, started_ticks })
    }

    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    pub fn is_running(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal; a process that has ended is fine.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        let Some(fd) = self.handle()? else { return Ok(()) };
        match pidfd_send_signal(fd, signal) {
            Err(errno) if errno != rustix::io::Errno::SRCH => Err(errno.into()),
            _ => Ok(()),
        }
    }

    /// Waits for its end; false if it runs on. The end of a namespace's first process is the end of all in it.
    pub fn wait(self, timeout: Duration) -> io::Result<bool> {
        let Some(fd) = self.handle()? else { return Ok(true) };
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&left)) {
                Ok(ready) => return Ok(ready > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// A handle that cannot turn into another process; none if the process has ended.
    pub fn handle(self) -> io::Result<Option<std::os::fd::OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid as i32) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // Checked after opening: from here on the handle is of the process that was checked.
            Ok(fd) => Ok(self.is_running().then_some(fd)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let me = Process::of(std::process::id()).unwrap();
        assert!(me.is_running());
        assert!(!Process { started_ticks: me.started_ticks + 1, ..me }.is_running());
    }

    #[test]
    fn its_end_is_waited_for() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        assert!(!process.wait(Duration::ZERO).unwrap());
        let end = process.handle().unwrap().expect("it runs");
        let has_ended = |timeout| poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&timeout)).unwrap() > 0;
        assert!(!has_ended(Timespec { tv_sec: 0, tv_nsec: 0 }));
        process.signal(Signal::KILL).unwrap();
        assert!(has_ended(Timespec { tv_sec: 10, tv_nsec: 0 }));
        assert!(process.wait(Duration::from_secs(10)).unwrap());
        child.wait().unwrap();
        assert!(process.wait(Duration::ZERO).unwrap());
        process.signal(Signal::KILL).unwrap();
    }
}
