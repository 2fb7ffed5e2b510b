//! The node's own objects: Node and Lease.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use object::Time;
use plan::node::DnsConfig;
use schema::quantity::Quantity;
use serde_json::{Value, json};

/// What a node is: read once when it starts.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    pub name: String,
    pub ips: Vec<IpAddr>,
    /// The address by which the host reaches the node's ports; none on a machine of its own.
    pub external_ip: Option<IpAddr>,
    /// A block for its pods that the machine brings along; none if the cluster is to give one.
    pub pod_cidr: Option<String>,
    pub cpu_milli: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub max_pods: u32,
    /// The UID of the only pod that may run here; any may without.
    pub only_pod: Option<String>,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    /// Of pods that do not ask the cluster's DNS.
    pub resolver: DnsConfig,
    /// `/var/lib/kubelet/pods`
    pub pods_dir: PathBuf,
    /// `/var/log/pods`
    pub logs_dir: PathBuf,
    /// `/var/lib/kubelet/seccomp`
    pub seccomp_dir: PathBuf,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Value>,
    pub provider_id: String,
    pub kubelet_port: u16,
    pub version: String,
    pub os: OsFacts,
}

#[derive(Clone, Debug, Default)]
pub struct OsFacts {
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
    /// `amd64`, `arm64`
    pub architecture: String,
}

impl NodeFacts {
    pub fn volumes_dir(&self, pod_uid: &str) -> PathBuf {
        self.pods_dir.join(pod_uid).join("volumes")
    }

    /// A resource of the node in thousandths, for the downward API.
    pub fn allocatable_milli(&self, resource: &str) -> i64 {
        let whole = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX).saturating_mul(1_000);
        match resource {
            "cpu" => i64::try_from(self.cpu_milli).unwrap_or(i64::MAX),
            "memory" => whole(self.memory_bytes),
            "ephemeral-storage" => whole(self.disk_bytes),
            _ => 0,
        }
    }

    fn resources(&self) -> Value {
        json!({
            "cpu": Quantity::from_millis(i64::try_from(self.cpu_milli).unwrap_or(i64::MAX)).to_string(),
            "memory": format!("{}Ki", self.memory_bytes / 1_024),
            "ephemeral-storage": format!("{}Ki", self.disk_bytes / 1_024),
            "hugepages-1Gi": "0",
            "hugepages-2Mi": "0",
            "pods": self.max_pods.to_string(),
        })
    }
}

/// What of a node's health is observed each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    pub memory_pressure: bool,
    pub disk_pressure: bool,
    pub pid_pressure: bool,
    pub runtime_is_up: bool,
    pub network_is_up: bool,
}

/// The Node object that a node creates of itself; an existing one gets these labels and this status.
pub fn registration(facts: &NodeFacts, health: Heartbeat, now: Time) -> Value {
    // The beta names as upstream's kubelet still sets them.
    let mut labels = BTreeMap::from([
        ("beta.kubernetes.io/arch".to_owned(), facts.os.architecture.clone()),
        ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), facts.os.architecture.clone()),
        ("kubernetes.io/hostname".to_owned(), facts.name.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
    ]);
    labels.extend(facts.labels.clone());
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": facts.name, "labels": labels},
        "spec": {},
        "status": heartbeat(facts, health, &[], now),
    });
    if !facts.provider_id.is_empty() {
        node["spec"]["providerID"] = facts.provider_id.as_str().into();
    }
    if let Some(cidr) = &facts.pod_cidr {
        node["spec"]["podCIDR"] = cidr.as_str().into();
    }
    if !facts.taints.is_empty() {
        node["spec"]["taints"] = facts.taints.clone().into();
    }
    node
}

/// The status of the Node; `known` are the conditions as they are stored, whose transition times stay.
pub fn heartbeat(facts: &NodeFacts, health: Heartbeat, known: &[Value], now: Time) -> Value {
    let mut addresses: Vec<Value> =
        facts.ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.extend(facts.external_ip.map(|ip| json!({"type": "ExternalIP", "address": ip})));
    addresses.push(json!({"type": "Hostname", "address": facts.name}));
    json!({
        "addresses": addresses,
        "capacity": facts.resources(),
        "allocatable": facts.resources(),
        "conditions": conditions(health, known, now),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.kubelet_port}},
        "nodeInfo": {
            "machineID": facts.os.machine_id, "systemUUID": facts.os.system_uuid, "bootID": facts.os.boot_id,
            "kernelVersion": facts.os.kernel, "osImage": facts.os.os_image,
            "containerRuntimeVersion": format!("ekso://{}", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": facts.version, "kubeProxyVersion": facts.version,
            "operatingSystem": "linux", "architecture": facts.os.architecture,
        },
    })
}

fn conditions(health: Heartbeat, known: &[Value], now: Time) -> Vec<Value> {
    let pressure = |holds, bad, good, bad_words, good_words| {
        if holds { (true, bad, bad_words) } else { (false, good, good_words) }
    };
    let memory = pressure(
        health.memory_pressure,
        "KubeletHasInsufficientMemory",
        "KubeletHasSufficientMemory",
        "kubelet has insufficient memory available",
        "kubelet has sufficient memory available",
    );
    let disk = pressure(
        health.disk_pressure,
        "KubeletHasDiskPressure",
        "KubeletHasNoDiskPressure",
        "kubelet has disk pressure",
        "kubelet has no disk pressure",
    );
    let pids = pressure(
        health.pid_pressure,
        "KubeletHasInsufficientPID",
        "KubeletHasSufficientPID",
        "kubelet has insufficient PID available",
        "kubelet has sufficient PID available",
    );
    let ready = match (health.runtime_is_up, health.network_is_up) {
        (true, true) => (true, "KubeletReady", "kubelet is posting ready status"),
        (false, _) => (false, "KubeletNotReady", "container runtime is down"),
        (true, false) => (
            false,
            "KubeletNotReady",
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: node has no podCIDR yet",
        ),
    };
    [("MemoryPressure", memory), ("DiskPressure", disk), ("PIDPressure", pids), ("Ready", ready)]
        .into_iter()
        .map(|(name, (holds, reason, message))| {
            let status = if holds { "True" } else { "False" };
            let since = known
                .iter()
                .find(|held| held["type"] == name && held["status"] == status)
                .and_then(|held| held.get("lastTransitionTime").cloned());
            json!({
                "type": name, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": now, "lastTransitionTime": since.unwrap_or_else(|| json!(now)),
            })
        })
        .collect()
}

/// The node's Lease in kube-node-lease: renewed every ten seconds, it is the heartbeat that is cheap.
pub fn lease(facts: &NodeFacts, node_uid: &str, now: Time) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": facts.name, "namespace": "kube-node-lease",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": facts.name, "uid": node_uid}],
        },
        "spec": {"holderIdentity": facts.name, "leaseDurationSeconds": 40, "renewTime": now.micro()},
    })
}
