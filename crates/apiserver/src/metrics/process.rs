//! `process_*`: what the kernel says of this process, under the names that every Prometheus client has.

use ::metrics::Page;

pub(super) fn write(page: &mut Page) {
    let Some(process) = Process::read() else { return };
    for (name, kind, help, value) in [
        (
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            process.cpu_seconds,
        ),
        ("process_max_fds", "gauge", "Maximum number of open file descriptors.", process.max_files),
        (
            "process_network_receive_bytes_total",
            "counter",
            "Number of bytes received by the process over the network.",
            process.network_bytes.0,
        ),
        (
            "process_network_transmit_bytes_total",
            "counter",
            "Number of bytes sent by the process over the network.",
            process.network_bytes.1,
        ),
        ("process_open_fds", "gauge", "Number of open file descriptors.", process.open_files),
        ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", process.resident_bytes),
        (
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            process.started,
        ),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", process.virtual_bytes),
        (
            "process_virtual_memory_max_bytes",
            "gauge",
            "Maximum amount of virtual memory available in bytes.",
            process.most_virtual_bytes,
        ),
    ] {
        page.head(name, kind, help);
        page.sample(name, &[], value);
    }
}

/// Only when it began.
pub(crate) fn write_start(page: &mut Page) {
    if let Some(process) = Process::read() {
        page.gauge(
            "process_start_time_seconds",
            "[ALPHA] Start time of the process since unix epoch in seconds.",
            process.started,
        );
    }
}

/// When it began, in seconds since 1970. None where there is no /proc.
pub(crate) fn started() -> Option<f64> {
    Process::read().map(|process| process.started)
}

#[derive(Debug)]
struct Process {
    cpu_seconds: f64,
    max_files: f64,
    open_files: f64,
    resident_bytes: f64,
    started: f64,
    virtual_bytes: f64,
    most_virtual_bytes: f64,
    /// By IP, in and out of the network namespace that it is in.
    network_bytes: (f64, f64),
}

impl Process {
    /// proc(5). None where there is no /proc.
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name, in brackets, may hold blanks: fields are counted from behind it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let page = rustix::param::page_size() as f64;
        let system = std::fs::read_to_string("/proc/stat").ok()?;
        let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()?;
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let space = rustix::process::getrlimit(rustix::process::Resource::As);
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            max_files: files.current.unwrap_or(u64::MAX) as f64,
            open_files: std::fs::read_dir("/proc/self/fd").ok()?.count() as f64,
            resident_bytes: field(24)? * page,
            started: boot + field(22)? / ticks,
            virtual_bytes: field(23)?,
            network_bytes: network_bytes()?,
            // As Prometheus' client for Go: no limit is the largest number.
            most_virtual_bytes: space.current.unwrap_or(u64::MAX) as f64,
        })
    }
}

/// What Prometheus' client takes for the process's own: each group of counts is a line of names and one of numbers.
fn network_bytes() -> Option<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/self/net/netstat").ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, values) = (lines.next()?.split(' '), lines.next()?.split(' '));
    let counts: Vec<_> = names.zip(values).collect();
    let count = |wanted: &str| counts.iter().find(|(name, _)| *name == wanted)?.1.parse().ok();
    Some((count("InOctets")?, count("OutOctets")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_sensible_things_of_this_process() {
        let process = Process::read().expect("a process");
        assert!(
            process.resident_bytes > 100_000.0 && process.resident_bytes < process.virtual_bytes,
            "{process:?}"
        );
        assert!(process.open_files >= 3.0 && process.open_files <= process.max_files, "{process:?}");
        assert!(process.started > 1_600_000_000.0, "{process:?}");
    }
}
