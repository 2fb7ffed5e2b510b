//! The control group of a machine: `ekso-<site>/<machine>` in every hierarchy (v1, hybrid, v2).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::process::Process;
use crate::{Error, Result, site_devices};

/// What a machine may use; an instance type's capacity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub memory_bytes: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
}

/// A mounted hierarchy of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    pub mount: PathBuf,
    pub unified: bool,
}

/// One machine's group in one hierarchy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    pub hierarchy: Hierarchy,
    pub path: PathBuf,
}

/// The leaf that holds a machine's first process in v2, where a group with children has no processes of its own.
pub const INIT_LEAF: &str = "init";

/// The hierarchies that are mounted, in the order of their mounts.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let path = "/proc/self/mountinfo";
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    Ok(parse_mountinfo(&text))
}

fn parse_mountinfo(text: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in text.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let kind = after.split(' ').next().unwrap_or_default();
        let Some(mount) = before.split(' ').nth(4) else { continue };
        let hierarchy = Hierarchy { mount: mount.into(), unified: kind == "cgroup2" };
        if matches!(kind, "cgroup" | "cgroup2") && !found.contains(&hierarchy) {
            found.push(hierarchy);
        }
    }
    found
}

/// Makes the machine's group in every hierarchy and sets its limits.
pub fn create(parent: &str, machine: &str, limits: Limits) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    for hierarchy in hierarchies()? {
        let site = hierarchy.mount.join(parent);
        if hierarchy.unified {
            delegate(&hierarchy.mount);
        }
        if make(&site, &hierarchy)? {
            site_devices::restrict(&site, hierarchy.unified)?;
        }
        if hierarchy.unified {
            delegate(&site);
        }
        let path = site.join(machine);
        make(&path, &hierarchy)?;
        limit(&path, &hierarchy, limits)?;
        groups.push(Group { hierarchy, path });
    }
    Ok(groups)
}

/// Whether it was not there before.
fn make(path: &Path, hierarchy: &Hierarchy) -> Result<bool> {
    let is_new = match fs::create_dir(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(Error::file("create", path)(error)),
    };
    // A new v1 cpuset is empty, and an empty one takes no process.
    if !hierarchy.unified && path.join("cpuset.cpus").exists() {
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let inherited = path.with_file_name(name);
            let value = fs::read_to_string(&inherited).map_err(Error::file("read", &inherited))?;
            write(&path.join(name), value.trim_end())?;
        }
    }
    Ok(is_new)
}

/// Offers every controller of a v2 group to its children. One that the kernel keeps back (in use by v1, or without
/// support for threads) is left out: which ones matter is judged by `doctor`.
pub fn delegate(group: &Path) {
    let Ok(controllers) = fs::read_to_string(group.join("cgroup.controllers")) else { return };
    for controller in controllers.split_ascii_whitespace() {
        if let Err(error) = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")) {
            tracing::debug!(group = %group.display(), controller, %error, "cgroup controller is not delegated");
        }
    }
}

fn limit(path: &Path, hierarchy: &Hierarchy, limits: Limits) -> Result<()> {
    const PERIOD_US: u64 = 100_000;
    let set = |name: &str, value: String| {
        let file = path.join(name);
        if file.exists() { write(&file, &value) } else { Ok(()) }
    };
    if let Some(bytes) = limits.memory_bytes {
        set(if hierarchy.unified { "memory.max" } else { "memory.limit_in_bytes" }, bytes.to_string())?;
    }
    if let Some(millis) = limits.cpu_millis {
        let quota_us = millis * PERIOD_US / 1000;
        if hierarchy.unified {
            set("cpu.max", format!("{quota_us} {PERIOD_US}"))?;
        } else {
            set("cpu.cfs_period_us", PERIOD_US.to_string())?;
            set("cpu.cfs_quota_us", quota_us.to_string())?;
        }
    }
    Ok(())
}

/// Moves the calling process into a group.
pub fn join(group: &Path) -> Result<()> {
    write(&group.join("cgroup.procs"), "0")
}

fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).map_err(Error::file("write", path))
}

/// Ends every process below `ekso-<site>[/<machine>]` and removes the groups. Absent is fine.
pub fn remove(relative: &Path) -> Result<()> {
    for hierarchy in hierarchies()? {
        let path = hierarchy.mount.join(relative);
        if path.exists() {
            kill_all(&path)?;
            remove_tree(&path)?;
        }
    }
    Ok(())
}

/// Kills until nobody is left: a process may fork while the list is read.
fn kill_all(group: &Path) -> Result<()> {
    loop {
        let mut processes = Vec::new();
        for directory in tree(group) {
            let procs = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            processes.extend(procs.lines().filter_map(|pid| pid.parse().ok()).filter_map(Process::of));
        }
        if processes.is_empty() {
            return Ok(());
        }
        for process in processes {
            let fail =
                |source| Error::Process { name: group.display().to_string(), pid: process.pid, source };
            process.signal(rustix::process::Signal::KILL).map_err(fail)?;
            if !process.wait(Duration::from_secs(10)).map_err(fail)? {
                return Err(fail(io::Error::new(io::ErrorKind::TimedOut, "does not die of SIGKILL")));
            }
        }
    }
}

/// The group and all below, deepest first.
fn tree(group: &Path) -> Vec<PathBuf> {
    let children = fs::read_dir(group).into_iter().flatten().filter_map(std::result::Result::ok);
    let directories = children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut found: Vec<PathBuf> = directories.flat_map(|entry| tree(&entry.path())).collect();
    found.push(group.to_owned());
    found
}

/// Kernels from 6.19 on take a dead process out of its group a moment after its end is announced, and there is
/// nothing to wait on in v1: so the removal itself is tried for up to this long.
const SETTLE: Duration = Duration::from_secs(5);

fn remove_tree(group: &Path) -> Result<()> {
    let deadline = Instant::now() + SETTLE;
    for directory in tree(group) {
        loop {
            match fs::remove_dir(&directory) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(2));
                }
                Err(error) => return Err(Error::file("remove", &directory)(error)),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_a_hybrid_host() {
        let text = "25 1 0:20 / / rw - ext4 /dev/vda rw\n\
            30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let expected = [("/sys/fs/cgroup/cpu,cpuacct", false), ("/sys/fs/cgroup/unified", true)];
        let expected = expected.map(|(mount, unified)| Hierarchy { mount: mount.into(), unified });
        assert_eq!(parse_mountinfo(text), expected);
    }
}
