//! One container as its monitor sees it.

use super::log::Log;
use super::streams::Streams;
use crate::container::init::{self, Channels, TOLD_ERROR, TOLD_TERMINAL};
use crate::protocol::{self, Start};
use crate::{cgroup, layout, sys};
use plan::node::{ContainerState, ContainerStatus};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;
use std::io;
use std::path::{Path, PathBuf};

/// Who is waiting for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub client: u32,
    pub request: u64,
}

pub struct Container {
    pub key: u32,
    pub id: String,
    pub directory: PathBuf,
    pub cgroups: Vec<PathBuf>,
    pub own_pid_namespace: bool,
    stdin: bool,
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// While the child is on its way to the program.
    pub starting: Option<(OwnedFd, Asker)>,
    pub streams: Streams,
    pub status: ContainerStatus,
}

/// What a child has told.
pub enum Told {
    Nothing,
    Terminal(OwnedFd),
    Failed(String),
    /// The program runs, or the child died without a word.
    Gone,
}

pub fn listen(status: &OwnedFd) -> Told {
    let mut bytes = [0; 4200];
    match protocol::receive_bytes(status, &mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Told::Nothing,
        Ok((length, mut fds)) if length > 0 => match (bytes[0], fds.pop()) {
            (TOLD_TERMINAL, Some(master)) => Told::Terminal(master),
            (TOLD_ERROR, _) => Told::Failed(String::from_utf8_lossy(&bytes[1..length]).into_owned()),
            _ => Told::Nothing,
        },
        _ => Told::Gone,
    }
}

/// The two ends of the socket by which a child reports.
pub fn status_socket() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

pub fn dev_null(write: bool) -> io::Result<OwnedFd> {
    let file = std::fs::OpenOptions::new().read(!write).write(write).open("/dev/null")?;
    Ok(file.into())
}

impl Container {
    /// Forks the child that becomes the container. `fork` does so in the right PID namespace.
    pub fn start(
        key: u32,
        sandbox: &Path,
        start: Start,
        asker: Asker,
        fork: impl FnOnce() -> io::Result<Option<(i32, OwnedFd)>>,
    ) -> io::Result<Container> {
        let directory = layout::container(sandbox, &start.container);
        let (ours, theirs) = status_socket()?;
        let mut streams = Streams::default();
        let log = Log::open(&start.log_path, start.log_max_bytes, start.log_max_files);
        streams.log = Some(log.map_err(|error| {
            io::Error::new(error.kind(), format!("open log {}: {error}", start.log_path.display()))
        })?);
        let stdio = if start.tty { None } else { Some(pipes(&mut streams, &start)?) };
        let Some((pid, pidfd)) = fork()? else {
            drop(ours);
            init::start(&directory, Channels { status: theirs, stdio, console: true })
        };
        Ok(Container {
            key,
            id: start.container,
            directory,
            cgroups: start.cgroups,
            own_pid_namespace: start.own_pid_namespace,
            stdin: start.stdin,
            pid,
            pidfd,
            starting: Some((ours, asker)),
            streams,
            status: ContainerStatus::default(),
        })
    }

    pub fn is_live(&self) -> bool {
        self.starting.is_some() || self.status.state == ContainerState::Running
    }

    /// Hears what the child has to say while it starts. When that is decided: who asked, and what became of it.
    pub fn hear(&mut self) -> Option<(Asker, Result<(), String>)> {
        loop {
            let (status, asker) = self.starting.as_ref()?;
            let asker = *asker;
            match listen(status) {
                Told::Nothing => return None,
                Told::Terminal(master) => {
                    if let Err(error) = self.streams.set_terminal(master, self.stdin) {
                        // Gone already is as good.
                        let _ = sys::pidfd_send_signal(std::os::fd::AsFd::as_fd(&self.pidfd), libc::SIGKILL);
                        self.failed(format!("set up the terminal: {error}"));
                    }
                }
                Told::Failed(message) => {
                    self.failed(message.clone());
                    return Some((asker, Err(message)));
                }
                Told::Gone => {
                    self.starting = None;
                    self.status.state = ContainerState::Running;
                    self.status.pid = self.pid as u32;
                    self.status.started_at_ns = sys::now_ns();
                    self.save(false);
                    return Some((asker, Ok(())));
                }
            }
        }
    }

    /// Exit code and reason are containerd's for a container that did not come to run.
    fn failed(&mut self, message: String) {
        self.starting = None;
        self.streams.finish();
        self.status = ContainerStatus {
            state: ContainerState::Exited,
            exit_code: 128,
            reason: "StartError".into(),
            message,
            finished_at_ns: sys::now_ns(),
            ..Default::default()
        };
        self.save(true);
    }

    /// Its first process has ended with this status of waitpid.
    pub fn exited(&mut self, wait_status: i32) {
        if self.status.state != ContainerState::Running {
            return;
        }
        if !self.own_pid_namespace {
            cgroup::kill_all(&self.cgroups);
        }
        self.streams.finish();
        let (exit_code, signal) = decode(wait_status);
        let out_of_memory = cgroup::oom_kills(self.cgroups.iter().map(PathBuf::as_path)) > 0;
        let reason = match exit_code {
            _ if out_of_memory => "OOMKilled",
            0 => "Completed",
            _ => "Error",
        };
        self.status.state = ContainerState::Exited;
        self.status.pid = 0;
        self.status.exit_code = exit_code;
        self.status.signal = signal;
        self.status.reason = reason.into();
        self.status.finished_at_ns = sys::now_ns();
        self.save(true);
    }

    /// What cannot be written is said in the monitor's log; the node still hears it over the socket.
    fn save(&self, durable: bool) {
        let path = self.directory.join(layout::STATUS);
        if let Err(error) = layout::write_json(&path, &self.status, durable) {
            eprintln!("write {}: {error}", path.display());
        }
    }
}

/// Exit code (128 + signal when one ended the process) and signal.
pub fn decode(wait_status: i32) -> (i32, i32) {
    if libc::WIFSIGNALED(wait_status) {
        let signal = libc::WTERMSIG(wait_status);
        return (128 + signal, signal);
    }
    (libc::WEXITSTATUS(wait_status), 0)
}

/// Makes the container's pipes, keeps our ends and returns its.
fn pipes(streams: &mut Streams, start: &Start) -> io::Result<[OwnedFd; 3]> {
    let (stdout, their_stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, their_stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    for fd in [&stdout, &stderr] {
        rustix::io::ioctl_fionbio(fd, true)?;
    }
    let (their_stdin, stdin) = if start.stdin {
        let (theirs, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        (theirs, Some(ours))
    } else {
        (dev_null(false)?, None)
    };
    streams.set_pipes(stdin, stdout, stderr, start.stdin_once);
    Ok([their_stdin, their_stdout, their_stderr])
}
