//! The node's side of the process that makes monitors.

use super::blocking;
use crate::monitor::{Spawn, Spawned};
use crate::{protocol, sys};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

/// How long the spawner may take to fork.
const PATIENCE_MS: i32 = 30_000;

/// Started when the first monitor is needed, and again should it die.
pub struct Spawner {
    /// The program, and what comes before our arguments.
    command: Vec<OsString>,
    /// The program where no container can write to it; `None` where the kernel cannot do that.
    program: Option<OwnedFd>,
    /// One request at a time.
    control: tokio::sync::Mutex<Option<Arc<OwnedFd>>>,
}

impl Spawner {
    pub fn new(command: Vec<OsString>) -> Spawner {
        let program = command.first().and_then(|program| write_protected(Path::new(program)));
        Spawner { command, program, control: tokio::sync::Mutex::default() }
    }

    /// Forks a monitor that says on `stdout` how it fares; its pidfd.
    pub async fn spawn(
        &self,
        sandbox: PathBuf,
        run: PathBuf,
        stdout: OwnedFd,
        log: OwnedFd,
    ) -> io::Result<OwnedFd> {
        let mut control = self.control.lock().await;
        let request = Arc::new((Spawn { sandbox, run }, [stdout, log]));
        if let Some(running) = control.take() {
            match ask(running.clone(), request.clone()).await {
                Ok(pidfd) => {
                    *control = Some(running);
                    return Ok(pidfd);
                }
                Err(error) if is_gone(&error) => {}
                // One that fails otherwise may answer late, so the next request goes to a new one.
                Err(error) => return Err(error),
            }
        }
        let started = Arc::new(self.start()?);
        let pidfd = ask(started.clone(), request).await?;
        *control = Some(started);
        Ok(pidfd)
    }

    fn start(&self) -> io::Result<OwnedFd> {
        let [program, arguments @ ..] = self.command.as_slice() else {
            return Err(io::Error::other("no program is configured for monitors"));
        };
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let mut command = match &self.program {
            Some(program) => tokio::process::Command::new(sys::fd_path(program)),
            None => tokio::process::Command::new(program),
        };
        command.arg0("ekso").args(arguments).env_clear().current_dir("/");
        let mut child = command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // It ends when our side of the socket is closed, and is to leave no zombie until then.
        tokio::spawn(async move { child.wait().await });
        Ok(ours)
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
    )
}

async fn ask(control: Arc<OwnedFd>, request: Arc<(Spawn, [OwnedFd; 2])>) -> io::Result<OwnedFd> {
    blocking(move || {
        let (spawn, [stdout, log]) = &*request;
        protocol::send(&control, spawn, &[stdout.as_fd(), log.as_fd()])?;
        let mut fds = [libc::pollfd { fd: control.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        sys::poll(&mut fds, PATIENCE_MS)?;
        match protocol::receive::<Spawned>(&control)? {
            None => Err(io::ErrorKind::UnexpectedEof.into()),
            Some((Spawned { error: Some(message) }, _)) => Err(io::Error::other(message)),
            Some((_, mut fds)) => fds.pop().ok_or_else(|| io::Error::other("the spawner sent no descriptor")),
        }
    })
    .await
}

/// A view of a program through which nobody can write: a container whose command is `/proc/self/exe` runs the monitor's
/// program, and could else overwrite it (CVE-2019-5736).
fn write_protected(program: &Path) -> Option<OwnedFd> {
    use rustix::mount::OpenTreeFlags;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, program, flags).ok()?;
    sys::mount_setattr(tree.as_fd(), false, libc::MOUNT_ATTR_RDONLY, libc::MS_PRIVATE).ok()?;
    Some(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_program_can_be_write_protected() {
        let program = write_protected(Path::new("/proc/self/exe")).expect("tests run as root");
        let path = crate::sys::fd_path(&program);
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read("/proc/self/exe").unwrap());
        let status =
            std::process::Command::new(&path).arg("--list").stdout(std::process::Stdio::null()).status();
        assert!(status.unwrap().success());
    }
}
