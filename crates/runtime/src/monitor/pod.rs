//! The namespaces of a pod. The monitor itself lives in them, so they last as long as it does and its children are
//! born into them.

use crate::{layout, sys};
use plan::node::SandboxConfig;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::io;
use std::path::{Path, PathBuf};

/// Enters the pod's network, IPC and UTS namespaces, made where they are the pod's own.
pub fn enter(config: &SandboxConfig, run: &Path) -> Result<(), String> {
    enter_network(config, run)?;
    if !config.namespaces.host_ipc {
        sys::unshare(libc::CLONE_NEWIPC).map_err(|error| format!("unshare the IPC namespace: {error}"))?;
        mount_shm(run)?;
    }
    if !config.namespaces.host_network {
        sys::unshare(libc::CLONE_NEWUTS).map_err(|error| format!("unshare the UTS namespace: {error}"))?;
        rustix::system::sethostname(config.hostname.as_bytes())
            .map_err(|error| format!("set the hostname {:?}: {error}", config.hostname))?;
    }
    apply_sysctls(config)
}

fn enter_network(config: &SandboxConfig, run: &Path) -> Result<(), String> {
    if config.namespaces.host_network {
        return Ok(());
    }
    if let Some(path) = &config.netns_path {
        let failed = |error: io::Error| format!("enter the network namespace {}: {error}", path.display());
        let file = std::fs::File::open(path).map_err(failed)?;
        return sys::setns(std::os::fd::AsFd::as_fd(&file), libc::CLONE_NEWNET).map_err(failed);
    }
    sys::unshare(libc::CLONE_NEWNET).map_err(|error| format!("unshare the network namespace: {error}"))?;
    loopback_up().map_err(|error| format!("bring up lo: {error}"))?;
    // So that others can reach it by a path, also when this process is gone.
    let pin = run.join(layout::NETNS);
    std::fs::File::create(&pin).map_err(|error| format!("create {}: {error}", pin.display()))?;
    rustix::mount::mount_bind("/proc/self/ns/net", &pin)
        .map_err(|error| format!("pin {}: {error}", pin.display()))
}

fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: ifreq is plain data, and both requests read and write no more than it.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        sys::check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &mut request).into())?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        sys::check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &mut request).into())?;
    }
    Ok(())
}

/// Shared memory of the pod's containers; 64 MiB as with containerd.
fn mount_shm(run: &Path) -> Result<(), String> {
    let path = run.join(layout::SHM);
    let failed = |error: io::Error| format!("mount {}: {error}", path.display());
    std::fs::create_dir_all(&path).map_err(failed)?;
    let flags = MountFlags::NOEXEC | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("shm", &path, "tmpfs", flags, Some(c"mode=1777,size=65536k"))
        .map_err(|e| failed(e.into()))
}

/// Sysctls that belong to a namespace of the pod's own; the others would be the machine's.
fn apply_sysctls(config: &SandboxConfig) -> Result<(), String> {
    let own_network = !config.namespaces.host_network;
    if own_network && config.netns_path.is_none() {
        // As containerd: what needs no more privilege than a pod has is not refused for its port or for being a ping.
        for (name, value) in
            [("net/ipv4/ip_unprivileged_port_start", "0"), ("net/ipv4/ping_group_range", "0 2147483647")]
        {
            std::fs::write(Path::new("/proc/sys").join(name), value)
                .map_err(|error| format!("set sysctl {name}: {error}"))?;
        }
    }
    for (name, value) in &config.sysctls {
        let path = sysctl_path(name, own_network, !config.namespaces.host_ipc)?;
        std::fs::write(&path, value).map_err(|error| format!("set sysctl {name:?} to {value:?}: {error}"))?;
    }
    Ok(())
}

/// sysctl(8): either all separators are slashes, or they are dots and a slash stands for a dot in a name.
fn sysctl_path(name: &str, own_network: bool, own_ipc: bool) -> Result<PathBuf, String> {
    let slashes_separate = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    let path: String = if slashes_separate {
        name.into()
    } else {
        let swap = |c: char| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        };
        name.chars().map(swap).collect()
    };
    let ipc = ["kernel/shm", "kernel/msg", "fs/mqueue/"].iter().any(|prefix| path.starts_with(prefix))
        || path == "kernel/sem";
    let allowed = (path.starts_with("net/") && own_network) || (ipc && own_ipc);
    if !allowed || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("sysctl {name:?} is not in a separate kernel namespace"));
    }
    Ok(Path::new("/proc/sys").join(path))
}

/// The process that holds a PID namespace which the pod's containers share. It reaps what they leave behind, and sees
/// nothing of the machine: containers may look into it.
pub fn start_pause(run: &Path) -> Result<(i32, OwnedFd), String> {
    let failed = |error: io::Error| format!("start the pause process: {error}");
    let (told, tell) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let Some(child) = sys::fork(libc::CLONE_NEWPID | libc::CLONE_NEWNS).map_err(failed)? else {
        drop(told);
        pause(run, tell)
    };
    drop(tell);
    match sys::read_limited(told, 4096) {
        Ok(message) if message == "ready" => Ok(child),
        Ok(message) => Err(format!("start the pause process: {message}")),
        Err(error) => Err(failed(error)),
    }
}

fn pause(run: &Path, tell: OwnedFd) -> ! {
    let message = match hide(run) {
        Ok(()) => "ready".to_string(),
        Err(error) => error,
    };
    // Who should hear it is gone if this fails; the death signal then ends this process too.
    let _ = rustix::io::write(&tell, message.as_bytes());
    if message != "ready" {
        sys::exit(1);
    }
    // SAFETY: closes descriptors that this process uses no more, `tell` with them.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
    loop {
        // SAFETY: waits for a signal; those that matter end the process.
        unsafe { libc::pause() };
    }
}

fn hide(run: &Path) -> Result<(), String> {
    sys::reset_signals();
    sys::set_child_signal(libc::SIG_IGN);
    let failed = |what: &str, error: rustix::io::Errno| format!("{what}: {error}");
    // For those who look at processes; it works as well without.
    let _ = rustix::thread::set_name(c"pause");
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| failed("make mounts private", error))?;
    rustix::mount::mount("pause", run, "tmpfs", MountFlags::RDONLY, Some(c"size=4k,nr_inodes=2"))
        .map_err(|error| failed("mount an empty root", error))?;
    let root = rustix::fs::openat(CWD, run, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed("open the empty root", error))?;
    rustix::process::fchdir(&root)
        .and_then(|()| rustix::process::pivot_root(".", "."))
        .and_then(|()| rustix::mount::unmount(".", UnmountFlags::DETACH))
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(|error| failed("pivot_root", error))?;
    sys::set_capabilities(0).map_err(|error| format!("drop capabilities: {error}"))?;
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
        .map_err(|error| format!("death signal: {error}"))?;
    sys::prctl(libc::PR_SET_DUMPABLE, 0).map_err(|error| format!("dumpable: {error}"))
}

#[cfg(test)]
mod tests {
    use super::sysctl_path;

    #[test]
    fn sysctls_of_the_machine_are_refused() {
        let path = |name| sysctl_path(name, true, true).map(|path| path.display().to_string());
        assert_eq!(path("net.ipv4.ip_forward").unwrap(), "/proc/sys/net/ipv4/ip_forward");
        assert_eq!(
            path("net/ipv4/conf/eth0.1/rp_filter").unwrap(),
            "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"
        );
        assert_eq!(
            path("net.ipv4.conf.eth0/1.rp_filter").unwrap(),
            "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"
        );
        assert_eq!(path("kernel.shm_rmid_forced").unwrap(), "/proc/sys/kernel/shm_rmid_forced");
        for name in ["kernel.panic", "net/../kernel/panic", "vm.swappiness", "kernel.shm/../../panic", ""] {
            assert!(path(name).is_err(), "{name}");
        }
        assert!(sysctl_path("net.ipv4.ip_forward", false, true).is_err());
        assert!(sysctl_path("kernel.msgmax", true, false).is_err());
    }
}
