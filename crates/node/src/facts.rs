//! What this node is, read from the system once.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use kubelet::{NodeFacts, OsFacts};
use plan::node::DnsConfig;

use crate::Config;

pub fn gather(config: &Config) -> NodeFacts {
    let kubelet_dir = config.root_dir.join("kubelet");
    let (memory_bytes, cpus) = (memory_bytes(), std::thread::available_parallelism().map_or(1, usize::from));
    NodeFacts {
        name: config.name.clone(),
        ips: vec![config.ip],
        external_ip: config.external_ip,
        pod_cidr: config.pod_cidr.map(|cidr| cidr.to_string()),
        cpu_milli: config.cpu_milli.unwrap_or(cpus as u64 * 1_000),
        memory_bytes: config.memory_bytes.map_or(memory_bytes, |limit| limit.min(memory_bytes)),
        disk_bytes: disk_bytes(&config.root_dir),
        max_pods: config.max_pods,
        only_pod: config.only_pod.clone(),
        cluster_dns: config.cluster_dns,
        cluster_domain: config.cluster_domain.clone(),
        resolver: resolver(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
        pods_dir: kubelet_dir.join("pods"),
        logs_dir: config.logs_dir.clone(),
        seccomp_dir: kubelet_dir.join("seccomp"),
        labels: config.labels.clone(),
        taints: config.taints.clone(),
        provider_id: config.provider_id.clone(),
        kubelet_port: config.kubelet_port,
        version: config.version.clone(),
        os: os_facts(&kubelet_dir),
    }
}

fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = text.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    kilobytes.unwrap_or(0) * 1_024
}

fn disk_bytes(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize))
}

fn os_facts(dir: &Path) -> OsFacts {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release: BTreeMap<String, String> = read("/etc/os-release")
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect();
    // A machine of ours has no id of its own in /etc: it gets one that stays.
    let machine_id =
        Some(read("/etc/machine-id")).filter(|id| !id.is_empty()).unwrap_or_else(|| kept_id(dir));
    OsFacts {
        system_uuid: Some(read("/sys/class/dmi/id/product_uuid"))
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| machine_id.clone()),
        machine_id,
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        os_image: release.get("PRETTY_NAME").cloned().unwrap_or_else(|| "Ekso machine".into()),
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64".into(),
            "aarch64" => "arm64".into(),
            other => other.into(),
        },
    }
}

fn kept_id(dir: &Path) -> String {
    let path = dir.join("machine-id");
    if let Some(id) = fs::read_to_string(&path).ok().filter(|id| id.len() == 32) {
        return id;
    }
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default().trim().replace('-', "");
    if let Err(error) = fs::write(&path, &id) {
        tracing::warn!(path = %path.display(), %error, "the machine's id could not be kept");
    }
    id
}

/// A resolv.conf in its parts.
fn resolver(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => config.servers.extend(words.next()),
            Some("search") => config.searches = words.collect(),
            Some("options") => config.options = words.collect(),
            _ => {}
        }
    }
    config
}

/// The address of the link with the default route, found by asking the kernel which it would use.
pub fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    // Nothing is sent: connecting a datagram socket only chooses a route.
    socket.connect(("192.0.2.1", 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolv_conf_is_read() {
        let config =
            resolver("# x\nnameserver 10.0.0.2\nnameserver fd00::1\nsearch a b\noptions ndots:2 edns0\n");
        assert_eq!(config.servers, ["10.0.0.2", "fd00::1"]);
        assert_eq!(config.searches, ["a", "b"]);
        assert_eq!(config.options, ["ndots:2", "edns0"]);
    }
}
