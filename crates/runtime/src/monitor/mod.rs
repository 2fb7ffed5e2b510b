//! The monitor of one pod: a small process with one thread that makes the pod's containers, hears how they end, writes
//! their logs, and outlives the node's process.
//!
//! It sleeps in one poll over everything that can happen: a request, a signal that a child ended, output of a
//! container, a client's input. What takes memory (a container's configuration) is read in the forked child.

mod container;
mod exec;
mod log;
mod pod;
mod spawner;
mod streams;

pub(crate) use spawner::{Spawn, Spawned};

use crate::protocol::{self, Call, Message, Request};
use crate::{layout, sys};
use container::{Asker, Container};
use exec::Exec;
use plan::node::Sandbox;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// More clients at once than there are node processes of one node: an old one, a new one, and a person looking.
const CLIENT_LIMIT: usize = 16;

/// What a monitor writes to its standard output once it serves requests.
pub(crate) const READY: &str = "ready\n";

/// Makes monitors until the process that started this one is gone. Standard input is a socket on which it asks for
/// them; there are no arguments.
///
/// Must be called before any thread is started.
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let asked_by_us = rustix::net::sockopt::socket_type(rustix::stdio::stdin()) == Ok(SocketType::SEQPACKET);
    if args.next().is_some() || !asked_by_us {
        eprintln!("pod-monitor is started by the node's process, not by hand");
        return ExitCode::FAILURE;
    }
    match spawner::serve() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pod-monitor: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Client {
    key: u32,
    socket: OwnedFd,
}

struct Monitor {
    sandbox: PathBuf,
    listener: OwnedFd,
    signals: OwnedFd,
    /// Of this process, to come back to after a visit to another.
    pid_namespace: OwnedFd,
    host_pid: bool,
    /// The holder of the PID namespace that containers share.
    pause: Option<(i32, OwnedFd)>,
    clients: Vec<Client>,
    containers: Vec<Container>,
    execs: Vec<Exec>,
    last_key: u32,
    /// Who asked us to end.
    ending: Option<Asker>,
}

/// What a descriptor in the poll stands for. Containers, execs and clients are named by key, since lists change while
/// events are worked off.
enum Source {
    Listener,
    Signals,
    Client(u32),
    Starting(u32),
    ExecStarting(i32),
    Stream(u32, streams::Ready),
}

impl Monitor {
    fn new(sandbox: PathBuf, run: PathBuf) -> Result<Monitor, String> {
        let path = sandbox.join(layout::SANDBOX);
        let config = layout::read_json::<Sandbox>(&path)
            .map_err(|error| format!("read {}: {error}", path.display()))?
            .config;
        // For those who look at processes; it works as well without.
        let _ = rustix::thread::set_name(c"pod-monitor");
        // Fails for a process that leads its group already, which is as good.
        let _ = rustix::process::setsid();
        rustix::process::chdir("/").map_err(|error| format!("chdir /: {error}"))?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        // Processes whose parents are gone come to us, so that none is left as a zombie.
        sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(|error| format!("subreaper: {error}"))?;
        let signals = sys::signalfd(&[libc::SIGCHLD]).map_err(|error| format!("signalfd: {error}"))?;
        pod::enter(&config, &run)?;
        let namespaces = config.namespaces;
        let share = namespaces.share_process_namespace && !namespaces.host_pid;
        let pause = if share { Some(pod::start_pause(&run)?) } else { None };
        let pid_namespace = std::fs::File::open("/proc/self/ns/pid")
            .map_err(|error| format!("open the PID namespace: {error}"))?;
        let listener = listen(&run).map_err(|error| format!("listen in {}: {error}", run.display()))?;
        Ok(Monitor {
            sandbox,
            listener,
            signals,
            pid_namespace: pid_namespace.into(),
            host_pid: namespaces.host_pid,
            pause,
            clients: Vec::new(),
            containers: Vec::new(),
            execs: Vec::new(),
            last_key: 0,
            ending: None,
        })
    }

    fn next_key(&mut self) -> u32 {
        self.last_key += 1;
        self.last_key
    }

    fn serve(&mut self) -> ExitCode {
        let mut fds = Vec::new();
        let mut sources = Vec::new();
        loop {
            if let Some(asker) = self.ending
                && !self.containers.iter().any(Container::is_live)
            {
                self.reply(asker, Ok(()), &[]);
                return ExitCode::SUCCESS;
            }
            fds.clear();
            sources.clear();
            self.sources(&mut fds, &mut sources);
            if let Err(error) = sys::poll(&mut fds, -1) {
                eprintln!("poll: {error}");
                return ExitCode::FAILURE;
            }
            for (fd, source) in fds.iter().zip(&sources) {
                if fd.revents != 0 {
                    self.handle(source);
                }
            }
            self.containers.iter_mut().for_each(|container| container.streams.sweep());
        }
    }

    fn sources(&self, fds: &mut Vec<libc::pollfd>, sources: &mut Vec<Source>) {
        let mut add = |fd: &OwnedFd, events: libc::c_short, source: Source| {
            fds.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
            sources.push(source);
        };
        // Output first: what a container wrote before it ended is read before its end is heard.
        for container in &self.containers {
            container.streams.poll(|fd, events, ready| add(fd, events, Source::Stream(container.key, ready)));
            if let Some((status, _)) = &container.starting {
                add(status, libc::POLLIN, Source::Starting(container.key));
            }
        }
        for exec in &self.execs {
            if let Some((status, _)) = &exec.starting {
                add(status, libc::POLLIN, Source::ExecStarting(exec.pid));
            }
        }
        add(&self.signals, libc::POLLIN, Source::Signals);
        for client in &self.clients {
            add(&client.socket, libc::POLLIN, Source::Client(client.key));
        }
        if self.clients.len() < CLIENT_LIMIT {
            add(&self.listener, libc::POLLIN, Source::Listener);
        }
    }

    fn handle(&mut self, source: &Source) {
        match *source {
            Source::Listener => self.accept(),
            Source::Signals => self.reap(),
            Source::Client(key) => self.request(key),
            Source::Starting(key) => self.hear(key),
            Source::ExecStarting(pid) => self.hear_exec(pid),
            Source::Stream(key, ready) => {
                if let Some(container) = self.containers.iter_mut().find(|container| container.key == key) {
                    container.streams.ready(ready);
                }
            }
        }
    }

    fn accept(&mut self) {
        if let Ok(socket) =
            rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
        {
            let key = self.next_key();
            self.clients.push(Client { key, socket });
        }
    }

    fn request(&mut self, key: u32) {
        let Some(client) = self.clients.iter().find(|client| client.key == key) else { return };
        match protocol::receive::<Request>(&client.socket) {
            Ok(Some((request, fds))) => {
                let asker = Asker { client: key, request: request.id };
                if let Some(result) = self.call(asker, request.call, fds) {
                    self.reply(asker, result, &[]);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => self.clients.retain(|client| client.key != key),
        }
    }

    /// `None`: the answer comes later.
    fn call(&mut self, asker: Asker, call: Call, fds: Vec<OwnedFd>) -> Option<Result<(), String>> {
        match call {
            Call::Start(start) => self.start(asker, start),
            Call::Kill { container, signal } => Some(self.kill(&container, signal)),
            Call::Exec { exec, container, tty } => self.exec(asker, exec, &container, tty, fds),
            Call::KillExec { exec } => {
                self.kill_exec(asker.client, exec);
                Some(Ok(()))
            }
            Call::Attach { container, stdin, stdout, stderr } => {
                Some(self.attach(&container, [stdin, stdout, stderr], fds))
            }
            Call::Resize { container, columns, rows } => Some(self.resize(&container, columns, rows)),
            Call::ReopenLog { container } => {
                Some(self.running(&container).and_then(|container| match &mut container.streams.log {
                    Some(log) => log.reopen().map_err(|error| format!("reopen log: {error}")),
                    None => Ok(()),
                }))
            }
            Call::Remove { container } => Some(self.remove(&container)),
            Call::Status => {
                self.tell_all(asker.client);
                Some(Ok(()))
            }
            Call::Shutdown => {
                for container in self.containers.iter().filter(|container| container.is_live()) {
                    // Gone already is as good.
                    let _ = sys::pidfd_send_signal(container.pidfd.as_fd(), libc::SIGKILL);
                }
                self.ending = Some(asker);
                None
            }
        }
    }

    fn running(&mut self, id: &str) -> Result<&mut Container, String> {
        match self.containers.iter_mut().find(|container| container.id == id) {
            Some(container) if container.is_live() => Ok(container),
            _ => Err(format!("container {id} is not running")),
        }
    }

    fn start(&mut self, asker: Asker, start: protocol::Start) -> Option<Result<(), String>> {
        if !layout::is_id(&start.container) {
            return Some(Err(format!("{:?} is not a container id", start.container)));
        }
        if self.containers.iter().any(|container| container.id == start.container) {
            return Some(Err(format!("container {} was started before", start.container)));
        }
        if self.ending.is_some() {
            return Some(Err("the sandbox is being stopped".into()));
        }
        let key = self.next_key();
        let joined = match &start.pid_target {
            Some(target) => match self.running(target).map(|target| target.pidfd.try_clone()) {
                Ok(Ok(pidfd)) => Some(pidfd),
                Ok(Err(error)) => return Some(Err(error.to_string())),
                Err(error) => return Some(Err(error)),
            },
            None => None,
        };
        let shared = joined.as_ref().or(self.pause.as_ref().map(|(_, pidfd)| pidfd));
        let (own, host_pid) = (self.pid_namespace.as_fd(), self.host_pid);
        let fork = || match shared {
            _ if host_pid => sys::fork(libc::CLONE_NEWNS),
            Some(shared) => fork_in(shared.as_fd(), own, libc::CLONE_NEWNS),
            None => sys::fork(libc::CLONE_NEWNS | libc::CLONE_NEWPID),
        };
        match Container::start(key, &self.sandbox, start, asker, fork) {
            Ok(container) => {
                self.containers.push(container);
                None
            }
            Err(error) => Some(Err(error.to_string())),
        }
    }

    fn hear(&mut self, key: u32) {
        let Some(container) = self.containers.iter_mut().find(|container| container.key == key) else {
            return;
        };
        if let Some((asker, result)) = container.hear() {
            let message = Message::Container { id: container.id.clone(), status: container.status.clone() };
            self.broadcast(&message);
            self.reply(asker, result, &[]);
        }
    }

    fn kill(&mut self, id: &str, signal: i32) -> Result<(), String> {
        // One that has exited needs no signal; its end is told anyway.
        let Ok(container) = self.running(id) else { return Ok(()) };
        match sys::pidfd_send_signal(container.pidfd.as_fd(), signal) {
            // Dead, and about to be reaped.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            Err(error) => Err(format!("send signal {signal}: {error}")),
            Ok(()) => Ok(()),
        }
    }

    fn attach(&mut self, id: &str, wanted: [bool; 3], fds: Vec<OwnedFd>) -> Result<(), String> {
        let mut fds = fds.into_iter();
        let mut take = |wanted: bool| if wanted { fds.next() } else { None };
        let [stdin, stdout, stderr] = wanted.map(&mut take);
        let container = self.running(id)?;
        container.streams.attach(stdin, stdout, stderr).map_err(|error| format!("attach: {error}"))
    }

    fn resize(&mut self, id: &str, columns: u16, rows: u16) -> Result<(), String> {
        let Some(terminal) = &self.running(id)?.streams.terminal else {
            return Err(format!("container {id} has no terminal"));
        };
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal, size).map_err(|error| format!("resize the terminal: {error}"))
    }

    fn remove(&mut self, id: &str) -> Result<(), String> {
        if self.running(id).is_ok() {
            return Err(format!("container {id} is running"));
        }
        self.containers.retain(|container| container.id != id);
        Ok(())
    }

    /// Takes every child that has ended.
    fn reap(&mut self) {
        let mut discard = [0; 1024];
        // Emptied only so that it wakes us again.
        let _ = rustix::io::read(&self.signals, &mut discard);
        while let Some((pid, wait_status)) = sys::reap() {
            if let Some(at) = self.containers.iter().position(|container| container.pid == pid) {
                let key = self.containers[at].key;
                // It may have said why before it ended.
                self.hear(key);
                let container = &mut self.containers[at];
                if container.is_live() {
                    container.exited(wait_status);
                    let message =
                        Message::Container { id: container.id.clone(), status: container.status.clone() };
                    self.broadcast(&message);
                }
                // Its number may belong to somebody else from now on.
                self.containers[at].pid = 0;
            } else if self.execs.iter().any(|exec| exec.pid == pid) {
                self.reap_exec(pid, wait_status);
            }
        }
    }

    fn tell_all(&mut self, client: u32) {
        let tell = |container: &Container| Message::Container {
            id: container.id.clone(),
            status: container.status.clone(),
        };
        let messages: Vec<Message> = self.containers.iter().map(tell).collect();
        messages.iter().for_each(|message| self.send(client, message, &[]));
    }

    fn reply(&mut self, asker: Asker, result: Result<(), String>, fds: &[BorrowedFd]) {
        self.send(asker.client, &Message::Reply { id: asker.request, error: result.err() }, fds);
    }

    fn broadcast(&mut self, message: &Message) {
        let keys: Vec<u32> = self.clients.iter().map(|client| client.key).collect();
        keys.into_iter().for_each(|key| self.send(key, message, &[]));
    }

    /// A client that does not keep up is dropped: it connects again and asks for everything.
    fn send(&mut self, key: u32, message: &Message, fds: &[BorrowedFd]) {
        let Some(client) = self.clients.iter().find(|client| client.key == key) else { return };
        if protocol::send(&client.socket, message, fds).is_err() {
            self.clients.retain(|client| client.key != key);
        }
    }
}

/// Forks a child into the PID namespace that `target` is, and comes back to our own.
fn fork_in(target: BorrowedFd, own: BorrowedFd, flags: libc::c_int) -> io::Result<Option<(i32, OwnedFd)>> {
    sys::setns(target, libc::CLONE_NEWPID)?;
    let child = sys::fork(flags);
    if !matches!(child, Ok(None)) {
        sys::setns(own, libc::CLONE_NEWPID)?;
    }
    child
}

fn listen(run: &std::path::Path) -> io::Result<OwnedFd> {
    let (_directory, path) = layout::socket_path(run)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // One that is left of a dead monitor would be in the way.
    let _ = std::fs::remove_file(&path);
    let umask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?);
    rustix::process::umask(umask);
    bound?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}
