//! `ekso machine-init`: makes a machine's namespaces, becomes its first process and keeps its command running.
//!
//! Two steps, both single-threaded. The first runs on the host: it joins the control groups, leaves its namespaces and
//! starts the second, which is process 1 of the machine. The second waits on its standard input until the first has
//! written down which process it is: should the first die before, the second ends too, so that no machine runs that
//! nobody can find.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use netlink::NetNs;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, UnshareFlags, capabilities, move_into_link_name_space,
    remove_capability_from_bounding_set, set_capabilities, unshare_unsafe,
};
use serde::{Deserialize, Serialize};

use crate::cgroup::{self, Group, INIT_LEAF};
use crate::machine::MachineSpec;
use crate::process::Process;
use crate::{Error, Result, root};

/// The log of the machine, in its root.
pub const LOG: &str = "var/log/ekso/node.log";
const LOG_LIMIT_BYTES: u64 = 16 << 20;
const FIRST_PROCESS: &str = "--first-process";

/// What the server hands to `machine-init`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Boot {
    pub hostname: String,
    /// On the host.
    pub root: PathBuf,
    pub netns: PathBuf,
    pub groups: Vec<Group>,
    /// Where to write which process the machine is.
    pub pid_file: PathBuf,
    /// The process that starts the machine: without it nobody would clear away a half-made one.
    pub starter: u32,
    pub spec: MachineSpec,
}

/// Runs `machine-init` with the arguments after that word: the path of a [`Boot`] in JSON.
/// To be called before anything has started a thread.
pub fn main(args: &[String]) -> ExitCode {
    let done = match args {
        [path] => launch(Path::new(path)),
        [flag, path] if flag == FIRST_PROCESS => first_process(Path::new(path)),
        _ => Err("usage: machine-init BOOT.json".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `machine-idle`: what a machine runs that was told to run nothing. Ends when it is asked to.
pub fn idle() -> ExitCode {
    match Signals::block(&[libc::SIGINT, libc::SIGTERM]) {
        Ok(signals) => {
            while signals.wait(TICK).is_none() {}
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("block signals: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read_boot(path: &Path) -> Result<Boot> {
    let bytes = fs::read(path).map_err(Error::file("read", path))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Record { path: path.to_owned(), source })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The first step.
fn launch(path: &Path) -> std::result::Result<(), String> {
    let boot = read_boot(path).map_err(text)?;
    die_with(boot.starter)?;
    // Out of the server's session, so that a terminal's signals do not reach the machine.
    rustix::process::setsid().map_err(|errno| format!("start a session: {errno}"))?;
    let ns = NetNs::open(&boot.netns).map_err(text)?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&ns), Some(LinkNameSpaceType::Network))
        .map_err(|errno| format!("enter network namespace {}: {errno}", boot.netns.display()))?;
    for group in &boot.groups {
        cgroup::join(&group.path).map_err(text)?;
    }
    let flags = UnshareFlags::NEWCGROUP
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWUTS;
    // SAFETY: no thread shares anything with this process, and the file table is not unshared.
    unsafe { unshare_unsafe(flags) }.map_err(|errno| format!("make namespaces: {errno}"))?;
    leave_room(&boot.groups).map_err(text)?;

    root::without_links(&boot.root, Path::new(LOG)).map_err(text)?;
    let mut child = Command::new("/proc/self/exe")
        .arg("machine-init")
        .arg(FIRST_PROCESS)
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(open_log(&boot.root.join(LOG)).map_err(text)?)
        .spawn()
        .map_err(|error| format!("start the first process: {error}"))?;
    let ready = introduce(&boot, &mut child);
    if ready.is_err() {
        // Already gone is as good.
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_file(&boot.pid_file);
    }
    ready
}

/// The next start clears away what this one leaves, and must not meet it still at work.
fn die_with(starter: u32) -> std::result::Result<(), String> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| format!("ask for the starter's end: {errno}"))?;
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    if parent == Some(starter) { Ok(()) } else { Err("whoever started this machine is gone".to_owned()) }
}

/// In v2 a group that offers controllers to its children has no processes of its own: the first process lives in a
/// leaf, beside those that the node will make.
fn leave_room(groups: &[Group]) -> Result<()> {
    for group in groups.iter().filter(|group| group.hierarchy.unified) {
        let leaf = group.path.join(INIT_LEAF);
        fs::create_dir_all(&leaf).map_err(Error::file("create", &leaf))?;
        cgroup::join(&leaf)?;
        cgroup::delegate(&group.path);
    }
    Ok(())
}

/// Writes down which process the machine is, lets it go on, and waits for its word.
fn introduce(boot: &Boot, child: &mut Child) -> std::result::Result<(), String> {
    let process = Process::of(child.id()).ok_or("the first process ended at once")?;
    let bytes = serde_json::to_vec(&process).map_err(text)?;
    files::write(&boot.pid_file, 0o600, &bytes).map_err(text)?;
    let (Some(mut go), Some(word)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("the first process has no pipes".to_owned());
    };
    go.write_all(b"go\n").map_err(|error| format!("speak to the first process: {error}"))?;
    let mut line = String::new();
    BufReader::new(word)
        .read_line(&mut line)
        .map_err(|error| format!("hear from the first process: {error}"))?;
    match line.trim_end() {
        "ok" => Ok(()),
        "" => Err(format!("the first process ended; see {}", boot.root.join(LOG).display())),
        why => Err(why.to_owned()),
    }
}

fn open_log(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
    }
    // Appending, so that the log can be cut while the command writes it.
    let options = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
    options.map_err(Error::file("open", path))
}

/// The second step: process 1 of the machine.
fn first_process(path: &Path) -> std::result::Result<(), String> {
    let mut go = [0; 3];
    if io::stdin().read_exact(&mut go).is_err() {
        return Err("machine-init ended before it had written down the first process".to_owned());
    }
    match furnish(path) {
        Ok((supervisor, child)) => {
            say("ok");
            supervisor.run(child);
            Ok(())
        }
        Err(why) => {
            say(&why.replace('\n', " "));
            Err(why)
        }
    }
}

/// To the first step, whose end of the pipe is closed when it has heard.
fn say(word: &str) {
    let mut out = io::stdout();
    // A step that has ended meanwhile is told nothing, and there is nobody else to tell.
    let _ = writeln!(out, "{word}").and_then(|()| out.flush());
}

fn furnish(path: &Path) -> std::result::Result<(Supervisor, Child), String> {
    let boot = read_boot(path).map_err(text)?;
    rustix::system::sethostname(boot.hostname.as_bytes())
        .map_err(|errno| format!("set the host name: {errno}"))?;
    root::enter(&boot).map_err(text)?;
    keep_from_the_kernel().map_err(|errno| format!("give capabilities away: {errno}"))?;
    let signals = Signals::block(&[libc::SIGCHLD, libc::SIGINT, libc::SIGTERM, NUDGE]);
    let signals = signals.map_err(|error| format!("block signals: {error}"))?;
    let supervisor = Supervisor { spec: boot.spec, signals };
    let child =
        supervisor.spawn().map_err(|error| format!("run {}: {error}", supervisor.spec.command.join(" ")))?;
    Ok((supervisor, child))
}

/// Takes from the machine what is about the one kernel and hardware that it shares with the host, and about nothing of
/// its own: modules, kexec, ports and memory, the clock. What is out of the bounding set comes back to no process here,
/// privileged pods included.
fn keep_from_the_kernel() -> rustix::io::Result<()> {
    const KERNEL: [CapabilitySet; 4] = [
        CapabilitySet::SYS_BOOT,
        CapabilitySet::SYS_MODULE,
        CapabilitySet::SYS_RAWIO,
        CapabilitySet::SYS_TIME,
    ];
    let mut held = capabilities(None)?;
    for capability in KERNEL {
        remove_capability_from_bounding_set(capability)?;
        // The bounding set takes effect at the next execve; this process, which runs none, gives them up as well.
        held.effective.remove(capability);
        held.permitted.remove(capability);
        held.inheritable.remove(capability);
    }
    set_capabilities(None, held)
}

/// Signals that are blocked, to be waited for instead of being interrupted by.
struct Signals(libc::sigset_t);

impl Signals {
    fn block(signals: &[libc::c_int]) -> io::Result<Self> {
        // SAFETY: the set is initialised by sigemptyset before anything reads it, and every pointer is to it. The
        // process has one thread and no handlers.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in signals {
                libc::sigaddset(&mut set, *signal);
            }
            match libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) {
                0 => Ok(Self(set)),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }

    /// Undoes `block` in a child: std lets it inherit the mask, and it would be deaf to its own end.
    fn unblock_in(&self, command: &mut Command) {
        let set = self.0;
        // SAFETY: sigprocmask is async-signal-safe, and reads a set that the closure owns.
        unsafe {
            command.pre_exec(move || {
                match libc::sigprocmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut()) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            });
        }
    }

    /// The next of them; none when the time is over or another signal came between.
    fn wait(&self, timeout: Duration) -> Option<libc::c_int> {
        let timeout =
            libc::timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        // SAFETY: both pointers are to live values, and the kernel is asked for no details.
        let signal = unsafe { libc::sigtimedwait(&self.0, std::ptr::null_mut(), &timeout) };
        (signal > 0).then_some(signal)
    }
}

/// Keeps the command running and reaps everybody else's children.
struct Supervisor {
    spec: MachineSpec,
    signals: Signals,
}

/// A command that ran this long was well.
const WELL: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// How often the log's size is looked at.
const TICK: Duration = Duration::from_secs(30);
/// Somebody wants the command to run now: what went wrong before is forgotten.
const NUDGE: libc::c_int = libc::SIGUSR1;

/// How long to wait before the command is started again, after so many failures in a row: not at all the first time.
fn delay(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        n => FIRST_DELAY.saturating_mul(1 << (n - 2).min(10)).min(LONGEST_DELAY),
    }
}

impl Supervisor {
    fn spawn(&self) -> io::Result<Child> {
        let log = open_log(&Path::new("/").join(LOG)).map_err(io::Error::other)?;
        let Some((program, args)) = self.spec.command.split_first() else {
            return Err(io::Error::other("the command is empty"));
        };
        let mut command = Command::new(program);
        self.signals.unblock_in(&mut command);
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .envs(self.spec.env.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
    }

    /// Returns when the machine is to end; what still runs in it ends with this process.
    fn run(&self, first: Child) {
        let mut child = Some((pid_of(&first), Instant::now()));
        let mut failures = 0;
        let mut start_at = Instant::now();
        loop {
            if child.is_none() && Instant::now() >= start_at {
                match self.spawn() {
                    Ok(started) => child = Some((pid_of(&started), Instant::now())),
                    Err(error) => {
                        eprintln!("cannot start {}: {error}", self.spec.command.join(" "));
                        failures += 1;
                        start_at = Instant::now() + delay(failures).max(FIRST_DELAY);
                    }
                }
            }
            let timeout =
                if child.is_some() { TICK } else { start_at.saturating_duration_since(Instant::now()) };
            match self.signals.wait(timeout) {
                Some(libc::SIGTERM | libc::SIGINT) => return self.stop(child.map(|(pid, _)| pid)),
                Some(NUDGE) => (failures, start_at) = (0, Instant::now()),
                _ => {}
            }
            let ended = reap();
            if let Some((pid, since)) = child.filter(|(pid, _)| ended.contains(pid)) {
                failures = if since.elapsed() >= WELL { 1 } else { failures + 1 };
                start_at = Instant::now() + delay(failures);
                eprintln!(
                    "process {} ended, started again in {} ms",
                    pid.as_raw_nonzero(),
                    delay(failures).as_millis()
                );
                child = None;
            }
            cut_log(&Path::new("/").join(LOG));
        }
    }

    /// Passes the end on to the command and gives it its time.
    fn stop(&self, child: Option<Pid>) {
        let Some(pid) = child else { return };
        let deadline = Instant::now() + Duration::from_millis(self.spec.stop_grace_ms);
        // Gone already is as good.
        let _ = kill_process(pid, Signal::TERM);
        while Instant::now() < deadline && !reap().contains(&pid) {
            self.signals.wait(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Every child that has ended, ours and those that lost their parent.
fn reap() -> Vec<Pid> {
    let mut ended = Vec::new();
    // Not `waitpid(None)`, which asks for its own process group only.
    while let Ok(Some((pid, _))) = wait(WaitOptions::NOHANG) {
        ended.push(pid);
    }
    ended
}

/// Keeps the log small: one older file beside it.
fn cut_log(path: &Path) {
    let large = fs::metadata(path).is_ok_and(|file| file.len() > LOG_LIMIT_BYTES);
    if large && fs::copy(path, path.with_extension("log.1")).is_ok() {
        // The command goes on writing to the same file, at its new end.
        let _ = OpenOptions::new().write(true).truncate(true).open(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_slow_down() {
        let delays: Vec<u128> = [1, 2, 3, 4, 8, 9, 100].map(|n| delay(n).as_millis()).to_vec();
        assert_eq!(delays, [0, 100, 200, 400, 6400, 10_000, 10_000]);
    }
}
