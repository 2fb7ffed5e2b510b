//! Limits of a group, in the words of either version.

use super::{CgroupError, Group, failed};
use plan::node::Resources;
use std::path::Path;

/// Writes the limits that are given; 0 leaves what is.
///
/// `container` also keeps a container together when it runs out of memory: the kernel then kills all of it.
pub fn apply(group: &Group, resources: &Resources, container: bool) -> Result<(), CgroupError> {
    if group.cgroups.unified() { apply_v2(group, resources, container) } else { apply_v1(group, resources) }
}

fn write(directory: &Path, file: &'static str, value: impl ToString) -> Result<(), CgroupError> {
    let path = directory.join(file);
    std::fs::write(&path, value.to_string()).map_err(|error| failed("limit", &path, error))
}

/// For files that a kernel may be built without.
fn write_if_there(directory: &Path, file: &'static str, value: impl ToString) -> Result<(), CgroupError> {
    if directory.join(file).exists() { write(directory, file, value) } else { Ok(()) }
}

fn apply_v1(group: &Group, resources: &Resources) -> Result<(), CgroupError> {
    if let Some(directory) = group.v1("cpu") {
        if resources.cpu_shares > 0 {
            write(&directory, "cpu.shares", resources.cpu_shares)?;
        }
        if resources.cpu_period_us > 0 {
            write(&directory, "cpu.cfs_period_us", resources.cpu_period_us)?;
        }
        if resources.cpu_quota_us != 0 {
            write(&directory, "cpu.cfs_quota_us", resources.cpu_quota_us.max(-1))?;
        }
    }
    if let Some(directory) = group.v1("memory")
        && resources.memory_limit_bytes > 0
    {
        let (memory, with_swap) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
        let limit = resources.memory_limit_bytes;
        // Memory with swap may never be less than memory, so their order depends on the way the limit goes.
        if write(&directory, memory, limit).is_err() {
            write_if_there(&directory, with_swap, limit)?;
            write(&directory, memory, limit)?;
        }
        write_if_there(&directory, with_swap, limit)?;
    }
    match group.v1("pids") {
        Some(directory) if resources.pids_limit > 0 => write(&directory, "pids.max", resources.pids_limit),
        _ => Ok(()),
    }
}

fn apply_v2(group: &Group, resources: &Resources, container: bool) -> Result<(), CgroupError> {
    let Some(directory) = group.v2() else { return Ok(()) };
    if resources.cpu_shares > 0 {
        write(&directory, "cpu.weight", weight_of_shares(resources.cpu_shares))?;
    }
    if resources.cpu_quota_us != 0 {
        let period = if resources.cpu_period_us > 0 { resources.cpu_period_us } else { 100_000 };
        let quota = match resources.cpu_quota_us {
            ..0 => "max".to_string(),
            quota => quota.to_string(),
        };
        write(&directory, "cpu.max", format!("{quota} {period}"))?;
    }
    if resources.memory_limit_bytes > 0 {
        write(&directory, "memory.max", resources.memory_limit_bytes)?;
        write_if_there(&directory, "memory.swap.max", 0)?;
    }
    if container {
        write_if_there(&directory, "memory.oom.group", 1)?;
    }
    if resources.pids_limit > 0 {
        write(&directory, "pids.max", resources.pids_limit)?;
    }
    Ok(())
}

/// Shares (2 to 262144, 1024 for one CPU) as a weight (1 to 10000, 100 by default), on the curve through these three
/// pairs that runc 1.3.2 and crun 1.23 use.
fn weight_of_shares(shares: u64) -> u64 {
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Cgroups;

    /// Writes limits into what looks like a hierarchy, and reads them back.
    fn check(
        mount: &str,
        controllers: &[&str],
        container: bool,
        resources: &Resources,
        want: &[(&str, &str)],
    ) {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path();
        std::fs::write(top.join("cgroup.controllers"), "cpu memory pids rdma").unwrap();
        let line = |controller: &&str| {
            let point = top.join(controller);
            format!("1 1 0:1 / {} rw - {mount}", point.display()).replace("CONTROLLER", controller)
        };
        let mountinfo: Vec<String> = controllers.iter().map(line).collect();
        let cgroups = Cgroups::parse(&mountinfo.join("\n"), "", "/ekso").unwrap();
        let group = cgroups.group("pod").unwrap();
        group.create().unwrap();
        apply(&group, resources, container).unwrap();
        for (file, value) in want {
            assert_eq!(std::fs::read_to_string(top.join(file)).unwrap(), *value, "{file}");
        }
    }

    #[test]
    fn both_versions() {
        let resources = Resources {
            cpu_shares: 512,
            cpu_period_us: 0,
            cpu_quota_us: 50_000,
            memory_limit_bytes: 1 << 20,
            pids_limit: 7,
            oom_score_adj: None,
        };
        check(
            "cgroup2 cgroup2 rw",
            &[""],
            true,
            &resources,
            &[
                ("ekso/pod/cpu.weight", "59"),
                ("ekso/pod/cpu.max", "50000 100000"),
                ("ekso/pod/memory.max", "1048576"),
                ("ekso/pod/pids.max", "7"),
                ("cgroup.subtree_control", "+pids"),
            ],
        );
        check(
            "cgroup cgroup rw,CONTROLLER",
            &["cpu", "memory", "pids"],
            true,
            &resources,
            &[
                ("cpu/ekso/pod/cpu.shares", "512"),
                ("cpu/ekso/pod/cpu.cfs_quota_us", "50000"),
                ("memory/ekso/pod/memory.limit_in_bytes", "1048576"),
                ("pids/ekso/pod/pids.max", "7"),
            ],
        );
        let unlimited = Resources { cpu_quota_us: -1, ..Default::default() };
        check("cgroup2 cgroup2 rw", &[""], false, &unlimited, &[("ekso/pod/cpu.max", "max 100000")]);
    }

    #[test]
    fn weights() {
        for (shares, weight) in
            [(0, 1), (2, 1), (1024, 100), (102, 17), (262_144, 10_000), (u64::MAX, 10_000)]
        {
            assert_eq!(weight_of_shares(shares), weight, "{shares} shares");
        }
    }
}
