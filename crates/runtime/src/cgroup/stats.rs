//! What a group has used.

use super::Group;
use plan::node::CgroupStats;
use std::path::Path;

fn number(directory: &Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()
}

/// The value of `key` in a file of `key value` lines.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn text(directory: &Path, file: &str) -> String {
    std::fs::read_to_string(directory.join(file)).unwrap_or_default()
}

/// `None` when the group is gone.
pub fn read(group: &Group, at_ns: i64) -> Option<CgroupStats> {
    if !group.directories().first()?.exists() {
        return None;
    }
    let mut stats = CgroupStats { at_ns, ..Default::default() };
    if group.cgroups.unified() {
        let directory = group.v2()?;
        stats.cpu_usage_ns = field(&text(&directory, "cpu.stat"), "usage_usec").unwrap_or(0) * 1000;
        stats.processes = number(&directory, "pids.current").unwrap_or(0);
        let memory = text(&directory, "memory.stat");
        let usage = number(&directory, "memory.current").unwrap_or(0);
        fill_memory(&mut stats, usage, &memory, ["inactive_file", "anon", "pgfault", "pgmajfault"]);
        return Some(stats);
    }
    if let Some(directory) = group.v1("cpuacct") {
        stats.cpu_usage_ns = number(&directory, "cpuacct.usage").unwrap_or(0);
    }
    if let Some(directory) = group.v1("pids") {
        stats.processes = number(&directory, "pids.current").unwrap_or(0);
    }
    if let Some(directory) = group.v1("memory") {
        let memory = text(&directory, "memory.stat");
        let usage = number(&directory, "memory.usage_in_bytes").unwrap_or(0);
        let keys = ["total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault"];
        fill_memory(&mut stats, usage, &memory, keys);
    }
    Some(stats)
}

fn fill_memory(stats: &mut CgroupStats, usage: u64, text: &str, [inactive, rss, faults, major]: [&str; 4]) {
    stats.memory_usage_bytes = usage;
    stats.memory_working_set_bytes = usage.saturating_sub(field(text, inactive).unwrap_or(0));
    stats.memory_rss_bytes = field(text, rss).unwrap_or(0);
    stats.page_faults = field(text, faults).unwrap_or(0);
    stats.major_page_faults = field(text, major).unwrap_or(0);
}

/// How many processes were killed for want of memory, given the group's directories.
pub fn oom_kills<'a>(directories: impl IntoIterator<Item = &'a Path>) -> u64 {
    let of = |directory: &Path| {
        ["memory.oom_control", "memory.events"]
            .iter()
            .filter_map(|file| field(&text(directory, file), "oom_kill"))
            .max()
    };
    directories.into_iter().filter_map(of).max().unwrap_or(0)
}
