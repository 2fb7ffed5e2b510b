//! From a fresh child of the monitor to the program of a container, or of an exec in one.

use super::{capability, devices, rootfs, user};
use crate::protocol;
use crate::spec::{Process, Spec};
use crate::{cgroup, layout, seccomp, sys};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::process::{Resource, Rlimit};
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// First byte of what a child tells its monitor.
pub const TOLD_ERROR: u8 = b'E';
/// Comes with the terminal's master.
pub const TOLD_TERMINAL: u8 = b'T';

/// What a child inherits to talk by.
pub struct Channels {
    /// To the monitor; closes when the program starts.
    pub status: OwnedFd,
    /// stdin, stdout, stderr; none with a terminal, which the child makes in the container.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Whether the terminal becomes the container's console: that of its first process.
    pub console: bool,
}

/// Where the child of an exec goes: the container's first process, whose namespaces it enters.
pub struct Target {
    pub container: OwnedFd,
    pub process: OwnedFd,
}

/// What the program may do.
struct Restrictions {
    capabilities: u64,
    filter: Option<Vec<libc::sock_filter>>,
}

/// Never returns: becomes the container's first process.
pub fn start(directory: &Path, channels: Channels) -> ! {
    let result = layout::read_json::<Spec>(&directory.join(layout::SPEC))
        .map_err(|error| format!("read {}: {error}", directory.join(layout::SPEC).display()))
        .and_then(|spec| {
            let restrictions = restrictions(&spec)?;
            prepare(&spec)?;
            rootfs::enter(&spec, directory)?;
            open_working_dir(&spec.process.working_dir)?;
            rootfs::finish(&spec)?;
            run(&spec, &spec.process, &restrictions, &channels)
        });
    give_up(&channels, result)
}

/// Never returns: becomes one more process of a running container.
pub fn exec(directory: &Path, target: Target, channels: Channels) -> ! {
    let result = layout::read_json::<Spec>(&directory.join(layout::SPEC))
        .map_err(|error| format!("read {}: {error}", directory.join(layout::SPEC).display()))
        .and_then(|spec| {
            let process: Process = read_process(target.process)?;
            let restrictions = restrictions(&spec)?;
            prepare_exec(&spec, target.container.as_fd())?;
            run(&spec, &process, &restrictions, &channels)
        });
    give_up(&channels, result)
}

fn give_up(channels: &Channels, result: Result<std::convert::Infallible, String>) -> ! {
    let Err(message) = result;
    let mut told = vec![TOLD_ERROR];
    // What a packet cannot hold helps nobody.
    told.extend(message.as_bytes().iter().take(4096));
    // The monitor is gone if this fails, and nobody is left to tell.
    let _ = protocol::send_bytes(&channels.status, &told, &[]);
    sys::exit(1)
}

fn read_process(file: OwnedFd) -> Result<Process, String> {
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))
        .map_err(|error| format!("read the command: {error}"))?;
    let text = sys::read_limited(file, 4 << 20).map_err(|error| format!("read the command: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("read the command: {error}"))
}

fn prepare(spec: &Spec) -> Result<(), String> {
    sys::reset_signals();
    for directory in &spec.cgroups {
        cgroup::join(directory).map_err(|error| error.to_string())?;
    }
    if spec.cgroup_namespace {
        sys::unshare(libc::CLONE_NEWCGROUP)
            .map_err(|error| format!("unshare the cgroup namespace: {error}"))?;
    }
    set_oom_score(spec)
}

fn prepare_exec(spec: &Spec, container: BorrowedFd) -> Result<(), String> {
    sys::reset_signals();
    for directory in &spec.cgroups {
        cgroup::join(directory).map_err(|error| error.to_string())?;
    }
    set_oom_score(spec)?;
    let cgroup = if spec.cgroup_namespace { libc::CLONE_NEWCGROUP } else { 0 };
    sys::setns(container, libc::CLONE_NEWNS | cgroup).map_err(|error| format!("enter the container: {error}"))
}

fn set_oom_score(spec: &Spec) -> Result<(), String> {
    // The monitor's own is low, and must not be inherited.
    let score = spec.oom_score_adj.unwrap_or(0);
    match std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        // Where the machine was started without CAP_SYS_RESOURCE it cannot be lowered. The container then is a likelier
        // victim than it should be, which is better than not to run.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other.map_err(|error| format!("set oom_score_adj to {score}: {error}")),
    }
}

/// From here on start and exec are the same.
fn run(
    spec: &Spec,
    process: &Process,
    restrictions: &Restrictions,
    channels: &Channels,
) -> Result<std::convert::Infallible, String> {
    let user = user::resolve(&spec.security, &spec.image_user)?;
    rustix::process::setsid().map_err(|error| format!("setsid: {error}"))?;
    match &channels.stdio {
        Some(stdio) => use_stdio(stdio, user.uid)?,
        None => use_terminal(channels, user.uid)?,
    }
    set_limits()?;
    let directory = open_working_dir(&process.working_dir)?;
    rustix::process::fchdir(&directory)
        .map_err(|error| format!("chdir to cwd ({:?}): {error}", process.working_dir))?;
    let mut env = process.env.clone();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    let strings =
        |list: &[String]| list.iter().map(|s| CString::new(s.as_str())).collect::<Result<Vec<_>, _>>();
    let nul = |error: std::ffi::NulError| format!("command or environment: {error}");
    let (args, env_strings) = (strings(&process.args).map_err(nul)?, strings(&env).map_err(nul)?);
    rustix::process::umask(Mode::from_raw_mode(0o022));
    become_user(spec, &user, restrictions)?;
    die_with_monitor(channels)?;
    let program = find(&process.args[0], &env)?;
    sys::close_on_exec_from(3).map_err(|error| format!("close descriptors: {error}"))?;
    if no_new_privileges(spec) {
        // Now that nothing but exec is left to do, the filter need not let anything else through.
        install(&restrictions.filter)?;
    }
    let error = sys::exec(&program, &args, &env_strings);
    Err(format!("exec {}: {}", program.display(), reason(&error)))
}

/// Decides what must be decided while the machine's files are in sight: a `Localhost` profile is one of them.
fn restrictions(spec: &Spec) -> Result<Restrictions, String> {
    let capabilities = capability::granted(&spec.security)?;
    let filter = match spec.security.privileged {
        true => None,
        false => seccomp::program(&spec.security.seccomp, capabilities)?,
    };
    Ok(Restrictions { capabilities, filter })
}

fn use_stdio(stdio: &[OwnedFd; 3], uid: u32) -> Result<(), String> {
    let failed = |error: rustix::io::Errno| format!("set up standard streams: {error}");
    for fd in stdio {
        // So that the program can open /dev/stdout again; /dev/null is everybody's.
        let stat = rustix::fs::fstat(fd).map_err(failed)?;
        if matches!(FileType::from_raw_mode(stat.st_mode), FileType::Fifo | FileType::Socket) {
            rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None).map_err(failed)?;
        }
    }
    duplicate([stdio[0].as_fd(), stdio[1].as_fd(), stdio[2].as_fd()]).map_err(failed)
}

fn duplicate([stdin, stdout, stderr]: [BorrowedFd; 3]) -> rustix::io::Result<()> {
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)
}

fn use_terminal(channels: &Channels, uid: u32) -> Result<(), String> {
    let failed = |error: io::Error| format!("set up the terminal: {error}");
    let (master, slave) = devices::open_terminal().map_err(failed)?;
    if channels.console {
        devices::make_console(&master).map_err(failed)?;
    }
    rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), Some(Gid::from_raw(5)))
        .map_err(|error| failed(error.into()))?;
    protocol::send_bytes(&channels.status, &[TOLD_TERMINAL], &[master.as_fd()]).map_err(failed)?;
    rustix::process::ioctl_tiocsctty(&slave).map_err(|error| failed(error.into()))?;
    duplicate([slave.as_fd(), slave.as_fd(), slave.as_fd()]).map_err(|error| failed(error.into()))
}

/// Descriptors as many as containerd gives; the rest as the node has it.
fn set_limits() -> Result<(), String> {
    const DESCRIPTORS: u64 = 1 << 20;
    let limit = Rlimit { current: Some(DESCRIPTORS), maximum: Some(DESCRIPTORS) };
    if rustix::process::setrlimit(Resource::Nofile, limit).is_err() {
        // fs.nr_open may be lower; what the node has is then the most there is.
        let most = rustix::process::getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: most, maximum: most };
        rustix::process::setrlimit(Resource::Nofile, limit)
            .map_err(|error| format!("set RLIMIT_NOFILE: {error}"))?;
    }
    Ok(())
}

/// Opens the working directory, made where it is missing, without following magic links: a link to a
/// descriptor of ours would lead out of the container (CVE-2024-21626).
fn open_working_dir(path: &str) -> Result<OwnedFd, String> {
    let failed = |error: io::Error| format!("chdir to cwd ({path:?}) set in config.json failed: {error}");
    if !path.starts_with('/') {
        return Err(format!("Cwd must be an absolute path: {path:?}"));
    }
    let root = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| failed(e.into()))?;
    super::mounts::mount_point(&root, Path::new(path), super::mounts::Kind::Directory).map_err(failed)
}

/// Gives up everything that the container does not get.
///
/// Without `no_new_privileges` only root may install a filter, so it comes first and must let the rest through.
fn become_user(spec: &Spec, user: &user::User, restrictions: &Restrictions) -> Result<(), String> {
    let Restrictions { capabilities, filter } = restrictions;
    capability::limit_bounding_set(*capabilities).map_err(|error| format!("limit capabilities: {error}"))?;
    if !no_new_privileges(spec) {
        install(filter)?;
    }
    sys::prctl(libc::PR_SET_KEEPCAPS, 1).map_err(|error| format!("keep capabilities: {error}"))?;
    sys::set_ids(user.uid, user.gid, &user.groups)
        .map_err(|error| format!("become user {}:{}: {error}", user.uid, user.gid))?;
    sys::set_capabilities(*capabilities).map_err(|error| format!("set capabilities: {error}"))?;
    if no_new_privileges(spec) {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(|error| format!("no_new_privs: {error}"))?;
    }
    Ok(())
}

fn no_new_privileges(spec: &Spec) -> bool {
    spec.security.no_new_privileges && !spec.security.privileged
}

fn install(filter: &Option<Vec<libc::sock_filter>>) -> Result<(), String> {
    match filter {
        Some(filter) => sys::seccomp(filter).map_err(|error| format!("seccomp: {error}")),
        None => Ok(()),
    }
}

/// A container does not outlive the monitor that reaps it. A change of user would have undone this, so it comes late.
fn die_with_monitor(channels: &Channels) -> Result<(), String> {
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
        .map_err(|error| format!("set the parent's death signal: {error}"))?;
    let mut fds = [libc::pollfd { fd: channels.status.as_raw_fd(), events: 0, revents: 0 }];
    sys::poll(&mut fds, 0).map_err(|error| format!("ask for the monitor: {error}"))?;
    if fds[0].revents & libc::POLLHUP != 0 {
        return Err("the pod's monitor is gone".into());
    }
    Ok(())
}

/// Finds a program as execvp(3) does, and says what is wrong in the words that users of runc know.
fn find(name: &str, env: &[String]) -> Result<PathBuf, String> {
    let failed = |error: &io::Error| format!("exec: {name:?}: {}", reason(error));
    if name.contains('/') {
        let path = PathBuf::from(name);
        return match executable(&path) {
            Ok(()) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(format!("exec: {name:?}: stat {name}: no such file or directory"))
            }
            Err(error) => Err(failed(&error)),
        };
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("");
    let mut denied = None;
    for directory in path.split(':') {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied = Some(error),
            Err(_) => {}
        }
    }
    match denied {
        Some(error) => Err(failed(&error)),
        None => Err(format!("exec: {name:?}: executable file not found in $PATH")),
    }
}

fn executable(path: &Path) -> io::Result<()> {
    let meta = std::fs::metadata(path)?;
    if meta.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    Ok(rustix::fs::access(path, rustix::fs::Access::EXEC_OK)?)
}

/// The kernel's words for an error, as Go prints them.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES) => "permission denied".into(),
        Some(libc::EISDIR) => "is a directory".into(),
        Some(libc::ENOENT) => "no such file or directory".into(),
        Some(libc::ENOEXEC) => "exec format error".into(),
        Some(libc::ENOTDIR) => "not a directory".into(),
        Some(libc::E2BIG) => "argument list too long".into(),
        _ => error.to_string(),
    }
}
