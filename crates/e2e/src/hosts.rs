//! Hosts, for stories about several: each has network, mount, process and host-name namespaces, control groups, `/run` and `/var/log` of
//! its own. They meet on a switch that nothing else reaches.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use rustix::process::{Pid, Signal, kill_process};

use crate::clients::{Running, run, start, tool};
use crate::cluster::until;

/// A switch, in a network namespace of its own.
pub struct Lan {
    /// Of everything it makes.
    name: String,
}

impl Lan {
    pub fn new(story: &str) -> Result<Self> {
        let lan = Self { name: format!("e2e{story}{}", std::process::id()) };
        let name = &lan.name;
        for words in [
            format!("netns add {name}"),
            format!("-n {name} link add switch type bridge"),
            format!("-n {name} link set switch up"),
        ] {
            ip(&words)?;
        }
        Ok(lan)
    }

    /// The host with this number, from 1.
    pub fn host(&self, number: u8, scratch: &Path) -> Result<Host> {
        let host = Host {
            name: format!("host-{number}"),
            namespace: format!("{}-{number}", self.name),
            address: Ipv4Addr::new(192, 0, 2, number),
            folder: scratch.join(format!("host-{number}")),
            groups: groups(&format!("{}-{number}", self.name))?,
        };
        std::fs::create_dir_all(&host.folder)?;
        let (switch, namespace, address) = (&self.name, &host.namespace, host.address);
        for words in [
            format!("netns add {namespace}"),
            format!("-n {switch} link add port{number} type veth peer name eth0 netns {namespace}"),
            format!("-n {switch} link set port{number} master switch up"),
            format!("-n {namespace} addr add {address}/24 dev eth0"),
            format!("-n {namespace} link set eth0 up"),
            format!("-n {namespace} link set lo up"),
            // As a host has one; nobody is there.
            format!("-n {namespace} route add default via 192.0.2.254"),
        ] {
            ip(&words)?;
        }
        Ok(host)
    }

    /// Pulls a host's plug, or puts it back.
    pub fn plug(&self, number: u8, is_in: bool) -> Result<()> {
        ip(&format!("-n {} link set port{number} {}", self.name, if is_in { "up" } else { "down" }))
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.name));
    }
}

/// One host. What was started on it ends with it.
pub struct Host {
    pub name: String,
    namespace: String,
    pub address: Ipv4Addr,
    /// Its disk.
    pub folder: PathBuf,
    /// Its control group in every hierarchy.
    groups: Vec<Group>,
}

struct Group {
    path: PathBuf,
    is_unified: bool,
}

/// Becomes the first process of the host: with its own mounts, it runs the arguments and waits for them and for whoever loses its parent.
const BOOT: &str = r#"
mount --make-rprivate / && mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && hostname "$1" || exit 1
shift
"$@" &
wait $!
"#;

impl Host {
    /// Switches it on: it runs this command, and everything on it ends when that does.
    pub fn boot(&self, command: &[&str]) -> Result<Running> {
        // Entered by the outer shell, so that all that follows is in them.
        let enter: String = self
            .groups
            .iter()
            .map(|group| format!("echo $$ > {}/cgroup.procs && ", group.inside().display()))
            .collect();
        let script = format!(
            "{enter}exec nsenter --net=/run/netns/{} unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc sh -c '{BOOT}' boot \"$@\"",
            self.namespace
        );
        for group in &self.groups {
            group.make()?;
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, "sh", &self.name]).args(command).current_dir(&self.folder);
        start(&mut shell, &self.log_path())
    }

    /// A program in its network, and with the mounts of the machine that the story runs on.
    pub fn command(&self, program: &Path) -> Result<Command> {
        let mut command = Command::new(tool("nsenter")?);
        command.arg(format!("--net=/run/netns/{}", self.namespace)).arg(program);
        Ok(command)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.namespace));
        // The processes of a host that was just switched off are on their way out.
        let _ = until("the host's processes end", || Ok(self.groups.iter().all(Group::kill).then_some(())));
        for group in &self.groups {
            remove_groups(&group.path);
        }
    }
}

fn ip(words: &str) -> Result<()> {
    run(Command::new(tool("ip")?).args(words.split(' ')), "")?.ok().map(drop)
}

/// In every hierarchy that is mounted, of version 1 and of version 2.
fn groups(name: &str) -> Result<Vec<Group>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("find the control groups")?;
    let group = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let kind = after.split(' ').next()?;
        let path = Path::new(before.split(' ').nth(4)?).join(name);
        matches!(kind, "cgroup" | "cgroup2").then_some(Group { path, is_unified: kind == "cgroup2" })
    };
    Ok(mounts.lines().filter_map(group).collect())
}

impl Group {
    /// Where the host's own processes are: in version 2 a group with groups below it has none.
    fn inside(&self) -> PathBuf {
        if self.is_unified { self.path.join("init") } else { self.path.clone() }
    }

    /// Ends the processes in it; whether there are none any more.
    fn kill(&self) -> bool {
        let listed = std::fs::read_to_string(self.inside().join("cgroup.procs")).unwrap_or_default();
        for pid in listed.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        listed.is_empty()
    }

    fn make(&self) -> Result<()> {
        std::fs::create_dir_all(self.inside()).with_context(|| format!("make {}", self.path.display()))?;
        if self.path.join("cpuset.cpus").exists() && !self.is_unified {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let above = std::fs::read_to_string(self.path.with_file_name(file))?;
                std::fs::write(self.path.join(file), above.trim_end())?;
            }
        }
        if self.is_unified {
            let offered = std::fs::read_to_string(self.path.join("cgroup.controllers")).unwrap_or_default();
            for controller in offered.split_whitespace() {
                std::fs::write(self.path.join("cgroup.subtree_control"), format!("+{controller}"))?;
            }
        }
        Ok(())
    }
}

/// From the leaves up: a group goes when it is empty.
fn remove_groups(path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(path);
}
