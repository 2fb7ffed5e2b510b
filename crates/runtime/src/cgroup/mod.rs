//! Control groups, version 1, 2 and both at once: made, limited, read and removed. Below one root, never beside it.
//!
//! Each hierarchy that is mounted gets the same path. On a hybrid machine limits go to version 1 and the version 2
//! hierarchy only groups processes, so that a whole group can be killed at once.

mod limits;
mod stats;

pub use limits::apply as apply_limits;
pub use stats::{oom_kills, read as read_stats};

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("no cgroup hierarchy is mounted; mount cgroup2 at /sys/fs/cgroup")]
    NotMounted,
    #[error("cgroup path {0:?} may only have plain names")]
    BadPath(String),
    #[error(
        "cgroup {} has processes of its own, so that it cannot hand controllers down; \
         move them into a group below it, or use a cgroup root that begins with /",
        .0.display()
    )]
    Occupied(PathBuf),
    #[error("{action} cgroup {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> CgroupError {
    CgroupError::Io { action, path: path.to_path_buf(), source }
}

/// Controllers of version 1 that containers are put in when mounted.
const V1_CONTROLLERS: [&str; 6] = ["cpu", "cpuacct", "devices", "freezer", "memory", "pids"];
/// Controllers of version 2 that are switched on for containers when available.
const V2_CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];

/// The hierarchies of this machine, each with the directory below which all groups of ours are.
#[derive(Clone, Debug)]
pub struct Cgroups {
    v1: BTreeMap<&'static str, PathBuf>,
    v2: Option<PathBuf>,
    /// Where `v2` is mounted: controllers are switched on from there down.
    v2_mount: PathBuf,
    /// Whether limits of CPU, memory and pids are in version 2.
    unified: bool,
}

/// One group: the same path in every hierarchy.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    cgroups: &'a Cgroups,
    path: String,
}

impl Cgroups {
    /// `root` is relative to each hierarchy as mounted when it begins with `/`. Else it is below the group that this
    /// process is in (so that limits set on it hold for containers too); in version 2 beside it, since a group that has
    /// processes cannot hand controllers down.
    pub fn detect(root: &str) -> Result<Cgroups, CgroupError> {
        let read = |path: &'static str| {
            std::fs::read_to_string(path).map_err(|error| failed("find", Path::new(path), error))
        };
        Cgroups::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?, root)
    }

    fn parse(mountinfo: &str, own: &str, root: &str) -> Result<Cgroups, CgroupError> {
        checked(root.trim_start_matches('/'))?;
        let below = |mount: &Mount, controller: &str| match root.strip_prefix('/') {
            Some(root) => mount.point.join(root),
            None => {
                let own = own_path(own, controller, &mount.root);
                let above = if mount.v2 { own.parent().unwrap_or(Path::new("")) } else { &own };
                mount.point.join(above).join(root)
            }
        };
        let mounts: Vec<Mount> = mountinfo.lines().filter_map(cgroup_mount).collect();
        let mut v1 = BTreeMap::new();
        for controller in V1_CONTROLLERS {
            let has =
                |mount: &&Mount| !mount.v2 && mount.options.split(',').any(|option| option == controller);
            if let Some(mount) = mounts.iter().find(has) {
                v1.insert(controller, below(mount, controller));
            }
        }
        let v2 = mounts.iter().find(|mount| mount.v2);
        if v1.is_empty() && v2.is_none() {
            return Err(CgroupError::NotMounted);
        }
        let unified = v2.is_some() && !v1.contains_key("memory") && !v1.contains_key("cpu");
        let v2_mount = v2.map(|mount| mount.point.clone()).unwrap_or_default();
        Ok(Cgroups { v1, v2: v2.map(|mount| below(mount, "")), v2_mount, unified })
    }

    /// The group at `path` below the root.
    pub fn group(&self, path: &str) -> Result<Group<'_>, CgroupError> {
        checked(path)?;
        Ok(Group { cgroups: self, path: path.to_string() })
    }

    /// Whether version 2 rules: then containers get a cgroup namespace of their own.
    pub fn unified(&self) -> bool {
        self.unified
    }
}

/// Refuses what would lead out of the root.
fn checked(path: &str) -> Result<(), CgroupError> {
    let plain = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
    if path.is_empty() || path.split('/').all(plain) {
        Ok(())
    } else {
        Err(CgroupError::BadPath(path.into()))
    }
}

struct Mount {
    /// Which directory of the hierarchy is mounted.
    root: String,
    point: PathBuf,
    options: String,
    v2: bool,
}

/// One line of `/proc/self/mountinfo`, if it is a cgroup hierarchy: proc(5).
fn cgroup_mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let kind = after.next()?;
    let options = after.nth(1).unwrap_or("");
    let v2 = match kind {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    Some(Mount { root: root.into(), point: point.into(), options: options.into(), v2 })
}

/// The directory of this process below the mount, from `/proc/self/cgroup`.
///
/// In a container the file may show the path on the host while the mount shows only its tail: the mount's root is cut
/// off, and a path that does not begin with it is hidden from us, so the mount itself is the best there is.
fn own_path(own: &str, controller: &str, mount_root: &str) -> PathBuf {
    let line = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let controllers = fields.nth(1)?;
        let path = fields.next()?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    });
    let path = line.unwrap_or("/");
    let tail = if mount_root == "/" { Some(path) } else { path.strip_prefix(mount_root) };
    let tail = tail.unwrap_or("").trim_matches('/');
    if checked(tail).is_ok() { PathBuf::from(tail) } else { PathBuf::new() }
}

impl Group<'_> {
    /// Its directory in every hierarchy: what a process writes itself into to join.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.cgroups.v1.values().chain(&self.cgroups.v2).map(|root| root.join(&self.path)).collect()
    }

    /// The directories by the name under which a container sees them in `/sys/fs/cgroup`; the empty name is the whole. Beside version 1
    /// the hierarchy of version 2 is not shown, as runc does not either: it limits nothing there, and who finds one looks there for limits.
    pub fn views(&self) -> Vec<(String, PathBuf)> {
        if self.cgroups.unified {
            return self.v2().map(|directory| (String::new(), directory)).into_iter().collect();
        }
        self.cgroups.v1.iter().map(|(name, root)| (name.to_string(), root.join(&self.path))).collect()
    }

    fn v1(&self, controller: &str) -> Option<PathBuf> {
        self.cgroups.v1.get(controller).map(|root| root.join(&self.path))
    }

    fn v2(&self) -> Option<PathBuf> {
        self.cgroups.v2.as_ref().map(|root| root.join(&self.path))
    }

    /// Makes the group, and those above it, where they are missing.
    pub fn create(&self) -> Result<(), CgroupError> {
        for directory in self.directories() {
            std::fs::create_dir_all(&directory).map_err(|error| failed("make", &directory, error))?;
        }
        match self.v2() {
            Some(directory) if self.cgroups.unified => self.enable_controllers(&directory),
            _ => Ok(()),
        }
    }

    /// A group of version 2 has a controller only when every group above it hands it down.
    fn enable_controllers(&self, directory: &Path) -> Result<(), CgroupError> {
        let above: Vec<&Path> = directory
            .ancestors()
            .skip(1)
            .take_while(|ancestor| ancestor.starts_with(&self.cgroups.v2_mount))
            .collect();
        for ancestor in above.into_iter().rev() {
            let file = ancestor.join("cgroup.subtree_control");
            let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
            let (enabled, available) = (read(&file), read(&ancestor.join("cgroup.controllers")));
            let has = |list: &str, name: &str| list.split_whitespace().any(|listed| listed == name);
            for name in V2_CONTROLLERS {
                if has(&available, name) && !has(&enabled, name) {
                    enable(&file, name).map_err(|error| match error.kind() {
                        io::ErrorKind::ResourceBusy => CgroupError::Occupied(ancestor.into()),
                        _ => failed("enable controllers of", ancestor, error),
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Kills every process in the group and below it.
    pub fn kill(&self) {
        kill_all(&self.directories());
    }

    /// Lets its processes open the standard devices and `more`, and no others. Before it has groups below.
    pub fn restrict_devices(&self, more: &[devices::Rule]) -> Result<(), CgroupError> {
        let (directory, restricted) = match (self.v1("devices"), self.v2()) {
            (Some(directory), _) => (directory.clone(), devices::restrict_v1(&directory, more)),
            (None, Some(directory)) => (directory.clone(), devices::restrict_v2(&directory, more)),
            (None, None) => return Ok(()),
        };
        restricted.map_err(|error| failed("restrict devices of", &directory, error))
    }

    /// Removes the group and those below it. `Ok(false)`: some process in it is not gone yet.
    pub fn remove(&self) -> Result<bool, CgroupError> {
        let mut all = true;
        for directory in self.directories() {
            all &= remove_tree(&directory).map_err(|error| failed("remove", &directory, error))?;
        }
        Ok(all)
    }
}

fn enable(subtree_control: &Path, controller: &str) -> io::Result<()> {
    std::fs::write(subtree_control, format!("+{controller}"))
}

fn remove_tree(directory: &Path) -> io::Result<bool> {
    match std::fs::remove_dir(directory) {
        Ok(()) => return Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(_) => {}
    }
    for entry in std::fs::read_dir(directory)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
        Err(error) => Err(error),
    }
}

/// Kills every process in the group with these directories and, where version 2 is mounted, below it.
pub fn kill_all(directories: &[PathBuf]) {
    if directories.iter().any(|directory| std::fs::write(directory.join("cgroup.kill"), "1").is_ok()) {
        return;
    }
    let Some(procs) =
        directories.iter().map(|directory| directory.join("cgroup.procs")).find(|file| file.exists())
    else {
        return;
    };
    // Who forks while being looked for is found in the next round; the limit is for a fork bomb without a limit.
    for _ in 0..64 {
        let text = std::fs::read_to_string(&procs).unwrap_or_default();
        let pids: Vec<i32> =
            text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect();
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            // Gone already is as good.
            let _ = crate::sys::kill(pid, libc::SIGKILL);
        }
    }
}

/// Puts this process into the group of `directory`.
pub fn join(directory: &Path) -> Result<(), CgroupError> {
    std::fs::write(directory.join("cgroup.procs"), "0").map_err(|error| failed("join", directory, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
    const V1: &str = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 /docker/ab /sys/fs/cgroup/memory ro,x shared:1 master:2 - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    fn check(mountinfo: &str, own: &str, root: &str, unified: bool, want: &[&str]) {
        let cgroups = Cgroups::parse(mountinfo, own, root).unwrap();
        assert_eq!(cgroups.unified(), unified);
        let got = cgroups.group("kubepods/pod1").unwrap().directories();
        let want: Vec<PathBuf> = want.iter().map(PathBuf::from).collect();
        assert_eq!(got, want, "root {root:?} in {own:?}");
    }

    #[test]
    fn finds_the_hierarchies() {
        check(V2, "0::/user.slice\n", "/ekso", true, &["/sys/fs/cgroup/ekso/kubepods/pod1"]);
        check(V2, "0::/x.slice/y.scope\n", "ekso", true, &["/sys/fs/cgroup/x.slice/ekso/kubepods/pod1"]);
        check(V2, "0::/init\n", "ekso", true, &["/sys/fs/cgroup/ekso/kubepods/pod1"]);
        check(V2, "0::/\n", "ekso", true, &["/sys/fs/cgroup/ekso/kubepods/pod1"]);
        check(V2, "0::/../hidden\n", "ekso", true, &["/sys/fs/cgroup/ekso/kubepods/pod1"]);
        check(
            V1,
            "4:memory:/docker/ab/in\n1:cpu,cpuacct:/x\n0::/\n",
            "ekso",
            false,
            &[
                "/sys/fs/cgroup/cpu,cpuacct/x/ekso/kubepods/pod1",
                "/sys/fs/cgroup/cpu,cpuacct/x/ekso/kubepods/pod1",
                "/sys/fs/cgroup/memory/in/ekso/kubepods/pod1",
                "/sys/fs/cgroup/unified/ekso/kubepods/pod1",
            ],
        );
    }

    #[test]
    fn containers_see_what_limits_them() {
        for (mountinfo, own, want) in [
            (V2, "0::/\n", vec![""]),
            (V1, "4:memory:/docker/ab\n1:cpu,cpuacct:/\n0::/\n", vec!["cpu", "cpuacct", "memory"]),
        ] {
            let cgroups = Cgroups::parse(mountinfo, own, "ekso").unwrap();
            let views = cgroups.group("pod1").unwrap().views();
            assert_eq!(views.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), want);
        }
    }

    #[test]
    fn refuses_to_leave_the_root() {
        let cgroups = Cgroups::parse(V2, "0::/", "/ekso").unwrap();
        for path in ["..", "a/../b", "/a", "a//b", "."] {
            assert!(cgroups.group(path).is_err(), "{path}");
        }
        assert!(Cgroups::parse(V2, "0::/", "/a/../b").is_err());
        assert!(matches!(Cgroups::parse("", "", "/a"), Err(CgroupError::NotMounted)));
    }
}
