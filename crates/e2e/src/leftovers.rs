//! What a site left on the host: looked for by its id and its folder, in every place where it puts something.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::clients::{run, tool};

/// A line for each thing that is still there of the site that had this id and this folder.
pub fn leftovers(id: &str, dir: &Path) -> Result<Vec<String>> {
    let folder = dir.to_string_lossy();
    let mut found = Vec::new();
    if dir.exists() {
        found.push(format!("folder {folder}"));
    }
    for place in [format!("/run/ekso/{id}"), format!("/run/netns/ekso-{id}")] {
        if Path::new(&place).exists() {
            found.push(format!("runtime folder {place}"));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let ours = mounts.lines().filter(|line| line.contains(&*folder) || line.contains(&format!("/ekso/{id}")));
    found.extend(ours.map(|line| format!("mount {line}")));
    found.extend(names("/sys/class/net").filter(|name| name.contains(id)).map(|name| format!("link {name}")));
    found.extend(control_groups(id));
    let tables = run(Command::new(tool("nft")?).args(["list", "tables"]), "")?.ok()?;
    found.extend(tables.lines().filter(|line| line.contains(id)).map(|line| format!("nftables {line}")));
    found.extend(processes(id, &folder));
    Ok(found)
}

fn names(dir: &str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// In version 2's one tree, or in each of version 1's.
fn control_groups(id: &str) -> Vec<String> {
    let root = "/sys/fs/cgroup";
    let group = format!("ekso-{id}");
    let trees = names(root).map(|name| format!("{root}/{name}")).chain([root.to_owned()]);
    let groups = trees.map(|tree| format!("{tree}/{group}")).filter(|path| Path::new(path).exists());
    groups.map(|path| format!("cgroup {path}")).collect()
}

/// By what they were started with, and by their control group. One that has ended and is not yet reaped is gone.
fn processes(id: &str, folder: &str) -> Vec<String> {
    let group = format!("ekso-{id}");
    let mut found = Vec::new();
    for pid in names("/proc").filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let text = |file: &str| String::from_utf8_lossy(&read(file)).into_owned();
        let command = text("cmdline").replace('\0', " ");
        let has_ended = ["State:\tZ", "State:\tX"].iter().any(|state| text("status").contains(state));
        let is_ours = command.contains("ekso") && command.contains(folder);
        if !has_ended && (is_ours || text("cgroup").contains(&group)) {
            found.push(format!("process {pid} {command}"));
        }
    }
    found
}
