//! What a pod asks for, and whether Fargate can give it. The words are those of EKS' fargate-scheduler, as its users report them.
//! <https://docs.aws.amazon.com/eks/latest/userguide/fargate.html>

use std::collections::BTreeMap;

use kinds::PERSISTENT_VOLUME_CLAIMS;
use kinds::amounts::effective;
use object::{Object, Snapshot};
use schema::Quantity;
use serde::Deserialize;
use serde_json::Value;

use super::capacity::{Capacity, Wanted};
use crate::ec2::place;

/// The parts of a pod that the scheduler looks at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub spec: Spec,
    pub status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    pub scheduler_name: String,
    pub node_name: String,
    pub runtime_class_name: Option<String>,
    host_network: bool,
    #[serde(rename = "hostPID")]
    host_pid: bool,
    #[serde(rename = "hostIPC")]
    host_ipc: bool,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    resource_claims: Vec<Value>,
    scheduling_gates: Vec<Value>,
    node_selector: BTreeMap<String, String>,
    volumes: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub phase: String,
    pub conditions: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    ports: Vec<Port>,
    resources: Resources,
    security_context: SecurityContext,
    volume_devices: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Port {
    host_port: i64,
    #[serde(rename = "hostIP")]
    host_ip: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    requests: Amounts,
    limits: Amounts,
}

type Amounts = BTreeMap<String, Quantity>;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SecurityContext {
    privileged: bool,
    capabilities: Capabilities,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Capabilities {
    add: Vec<String>,
}

/// Volumes that are made of what the API knows, or of the machine's own disk.
const VOLUMES: &[&str] = &["configMap", "downwardAPI", "emptyDir", "image", "projected", "secret"];
/// Capabilities that a container may add: those of an ordinary container, which it may have dropped before.
/// Of the others Fargate grants none.
const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
    "SYS_PTRACE",
];

impl Pod {
    /// None if it cannot be read, which the API lets nobody write.
    pub fn read(object: &Object) -> Option<Self> {
        object.decode().ok()
    }

    /// Whether a machine is its scheduler's to find. One that is held back by its gates is not.
    pub fn is_waiting(&self) -> bool {
        self.spec.scheduler_name == super::SCHEDULER
            && self.spec.node_name.is_empty()
            && self.spec.scheduling_gates.is_empty()
            && !matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// A label that the pod asks of its node, and that no node of Fargate in a zone has: `disk=ssd`.
    pub fn unmatched(&self, region: &str, zone: &str) -> Option<String> {
        let (compute_type, fargate) = super::COMPUTE_TYPE;
        let architecture = if place::HOST_IS_ARM { "arm64" } else { "amd64" };
        let own = [
            (compute_type, fargate),
            ("beta.kubernetes.io/arch", architecture),
            ("beta.kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", architecture),
            ("kubernetes.io/os", "linux"),
        ];
        let own = own.map(|(key, value)| (key, value.to_owned()));
        let labels: BTreeMap<&str, String> = place::labels(region, zone).into_iter().chain(own).collect();
        let mut asked = self.spec.node_selector.iter();
        let unmatched = asked.find(|(key, value)| labels.get(key.as_str()) != Some(*value));
        unmatched.map(|(key, value)| format!("{key}={value}"))
    }

    fn containers(&self) -> impl Iterator<Item = &Container> {
        self.spec.init_containers.iter().chain(&self.spec.containers)
    }

    /// What Fargate lacks for it: `fields not supported: HostNetwork, invalid SecurityContext fields: Privileged`.
    pub fn unsupported(&self, objects: &Snapshot, object: &Object) -> Option<String> {
        let mut reasons = Vec::new();
        let spec = &self.spec;
        let fields = [
            (spec.host_network, "HostNetwork"),
            (spec.host_pid, "HostPID"),
            (spec.host_ipc, "HostIPC"),
            (spec.runtime_class_name.is_some(), "RuntimeClassName"),
            (!spec.resource_claims.is_empty(), "ResourceClaims"),
            (self.containers().any(|one| !one.volume_devices.is_empty()), "VolumeDevices"),
        ];
        let fields: Vec<&str> =
            fields.into_iter().filter_map(|(is_set, name)| is_set.then_some(name)).collect();
        push(&mut reasons, "fields not supported: ", &fields);
        if is_of_daemon_set(object) {
            reasons.push("DaemonSet not supported".to_owned());
        }
        reasons.extend(refused_context(self.containers()));
        let volumes: Vec<String> =
            spec.volumes.iter().filter_map(|volume| unsupported_volume(objects, object, volume)).collect();
        push(&mut reasons, "volumes not supported: ", &volumes);
        let has_host_port = |port: &Port| port.host_port != 0 || !port.host_ip.is_empty();
        if self.containers().any(|one| one.ports.iter().any(has_host_port)) {
            reasons.push("port contains HostIP or HostPort".to_owned());
        }
        let mut extended: Vec<&str> = self
            .containers()
            .flat_map(|one| one.resources.requests.keys().chain(one.resources.limits.keys()))
            .filter(|name| !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage"))
            .map(String::as_str)
            .collect();
        extended.sort_unstable();
        extended.dedup();
        push(&mut reasons, "resources not supported: ", &extended);
        (!reasons.is_empty()).then(|| reasons.join(", "))
    }

    /// Whether the pod is told already that it is not scheduled, for this reason.
    pub fn is_told(&self, reason: &str, message: &str) -> bool {
        self.status.conditions.iter().any(|one| {
            one["type"] == "PodScheduled"
                && one["status"] == "False"
                && one["reason"] == reason
                && one["message"] == message
        })
    }
}

fn push<T: AsRef<str>>(reasons: &mut Vec<String>, what: &str, names: &[T]) {
    if !names.is_empty() {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        reasons.push(format!("{what}{}", names.join(", ")));
    }
}

/// Of some containers, what Fargate grants none: `invalid SecurityContext fields: Privileged,Privileged`.
fn refused_context<'a>(containers: impl Iterator<Item = &'a Container>) -> Option<String> {
    let mut fields: Vec<String> = Vec::new();
    for container in containers {
        if container.security_context.privileged {
            fields.push("Privileged".into());
        }
        let added = container.security_context.capabilities.add.iter();
        let refused = added.filter(|name| !CAPABILITIES.contains(&name.trim_start_matches("CAP_")));
        fields.extend(refused.map(|name| format!("Capabilities added: {name}")));
    }
    (!fields.is_empty()).then(|| format!("invalid SecurityContext fields: {}", fields.join(",")))
}

/// What Fargate lacks for a container that joins a pod which runs there already; none if it runs it.
pub fn lacking(container: &Value) -> Option<String> {
    match Container::deserialize(container) {
        Ok(container) => refused_context([&container].into_iter()),
        Err(error) => Some(format!("a container that cannot be read: {error}")),
    }
}

/// The size of the machine that a pod needs; none if there is none so big.
pub fn capacity(pod: &Object) -> Option<Capacity> {
    let requests = effective(&pod.to_value().ok()?, "requests");
    let amount = |name: &str, of: fn(Quantity) -> i64| {
        requests.get(name).map_or(0, |asked| u64::try_from(of(*asked)).unwrap_or(0))
    };
    Capacity::of(Wanted {
        cpu_milli: amount("cpu", Quantity::millis),
        memory_bytes: amount("memory", Quantity::units),
    })
}

fn is_of_daemon_set(pod: &Object) -> bool {
    pod.meta.owner_references.iter().any(|owner| &*owner.kind == "DaemonSet")
}

/// Why a volume is none for Fargate. A claim must be bound; to what, its volume's own driver has to know.
fn unsupported_volume(objects: &Snapshot, pod: &Object, volume: &Value) -> Option<String> {
    let name = volume["name"].as_str().unwrap_or_default();
    if VOLUMES.iter().any(|kind| volume.get(*kind).is_some()) {
        return None;
    }
    let claim = match volume["persistentVolumeClaim"]["claimName"].as_str() {
        Some(claim) => claim.to_owned(),
        None if volume.get("ephemeral").is_some() => format!("{}-{name}", pod.key.name),
        // A volume that names no source is an emptyDir.
        None if volume.as_object().is_some_and(|members| members.len() == 1) => return None,
        None => return Some(format!("{name} is of an unsupported volume Type")),
    };
    let bound = objects.find(PERSISTENT_VOLUME_CLAIMS, &pod.key.namespace, &claim);
    let is_bound = bound
        .and_then(|claim| claim.to_value().ok())
        .is_some_and(|claim| claim["status"]["phase"] == "Bound");
    if !is_bound {
        return Some(format!("{name} not supported because: PVC {claim} not bound"));
    }
    // Only EFS' static volumes work on Fargate, and there is no EFS here: what could be bound is on a node's own disk.
    Some(format!("{name} is of an unsupported volume Type"))
}
