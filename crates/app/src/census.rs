//! What runs of a cluster, and how big it is.

use std::path::{Path, PathBuf};

use aws::control::ready::is_ready;
use kinds::{NODES, PODS};
use object::Object;
use serde::Deserialize;

use crate::admin::{ClusterStatus, NodeStatus};
use crate::cluster::Cluster;
use crate::shape;
use crate::site::{self, ClusterSpec, Site};

/// `memory_bytes`: of the whole site, see [`memory_bytes`]; asking for it takes a while, once for all clusters.
pub fn status(
    site: &Site,
    memory_bytes: u64,
    spec: &ClusterSpec,
    cluster: Option<&Cluster>,
) -> ClusterStatus {
    let mut status = ClusterStatus {
        name: spec.name.clone(),
        state: if cluster.is_some() { "Running".into() } else { "Stopped".into() },
        endpoint: format!("https://127.0.0.1:{}", spec.api_port),
        context: site::context_name(&spec.name),
        version: shape::git_version(spec.shape().minor),
        data_dir: site.cluster_dir(&spec.name).display().to_string(),
        ..ClusterStatus::default()
    };
    let Some(cluster) = cluster else { return status };
    let store = cluster.gate.store();
    let (snapshot, usage) = (store.snapshot(), store.usage());
    status.nodes = snapshot.list(NODES, "").map(|node| node_status(node)).collect();
    status.pods = snapshot.table(PODS).map_or(0, object::Table::len);
    status.objects = snapshot.tables().map(|(_, table)| table.len()).sum();
    status.revision = usage.revision;
    status.store_disk_bytes = usage.disk_bytes;
    status.store_live_bytes = usage.live_bytes;
    status.memory_bytes = memory_bytes;
    status
}

/// A node as it says of itself.
pub fn node_status(node: &Object) -> NodeStatus {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct View {
        status: Status,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Status {
        addresses: Vec<Address>,
    }
    #[derive(Deserialize)]
    struct Address {
        r#type: String,
        address: String,
    }
    let view: View = node.decode().unwrap_or_default();
    let address = |kind: &str| {
        let found = view.status.addresses.iter().find(|one| one.r#type == kind);
        found.map(|one| one.address.clone()).unwrap_or_default()
    };
    NodeStatus {
        name: node.key.name.to_string(),
        ready: is_ready(node),
        internal_ip: address("InternalIP"),
        external_ip: address("ExternalIP"),
    }
}

/// The proportional set size of this process and of everything in the site's machines.
pub fn memory_bytes(site_id: &str) -> u64 {
    let group = format!("ekso-{site_id}");
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"];
    let found = roots.iter().map(|root| Path::new(root).join(&group)).find(|path| path.is_dir());
    let mut pids = vec![std::process::id()];
    if let Some(group) = found {
        collect_pids(&group, &mut pids);
    }
    pids.sort_unstable();
    pids.dedup();
    pids.into_iter().map(pss_bytes).sum()
}

fn collect_pids(group: &PathBuf, pids: &mut Vec<u32>) {
    let listed = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    pids.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_pids(&entry.path(), pids);
        }
    }
}

fn pss_bytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1_024
}
