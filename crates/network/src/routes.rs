//! Routes to other nodes' pods, and what a node must know of its own place and pods.

use std::net::Ipv4Addr;

use kinds::{NODES, PODS};
use object::{Object, Snapshot};
use plan::net::{Cidr, HostPort, Protocol, Route};
use serde::Deserialize;

/// One node's place in the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeNetwork {
    pub name: String,
    /// Its label topology.kubernetes.io/zone.
    pub zone: Option<String>,
    /// Of its own pods.
    pub pod_cidrs: Vec<Cidr>,
    /// Of all pods.
    pub cluster_cidrs: Vec<Cidr>,
    /// The nodes' addresses.
    pub node_ips: Vec<Ipv4Addr>,
    /// Cluster IPs that every node serves itself instead of translating them: DNS.
    pub local_service_ips: Vec<Ipv4Addr>,
    /// Ports of the node that its pods ask for.
    pub host_ports: Vec<HostPort>,
}

impl NodeNetwork {
    /// The place of a node of the snapshot.
    pub fn of(
        snapshot: &Snapshot,
        name: &str,
        cluster_cidrs: &[Cidr],
        local_service_ips: &[Ipv4Addr],
    ) -> Self {
        let mut network = Self {
            name: name.to_owned(),
            cluster_cidrs: cluster_cidrs.to_vec(),
            local_service_ips: local_service_ips.to_vec(),
            ..Self::default()
        };
        for object in snapshot.list(NODES, "") {
            let Some(node) = read(object) else { continue };
            network.node_ips.extend(node.internal_ip());
            if &*object.key.name == name {
                network.zone = object.meta.label("topology.kubernetes.io/zone").map(str::to_owned);
                network.pod_cidrs = node.pod_cidrs();
            }
        }
        network.host_ports = snapshot.list_by_field(PODS, name).flat_map(|pod| host_ports(pod)).collect();
        network.host_ports.sort_unstable();
        network
    }
}

/// The routes that `node` needs: one to every other node's pods, by that node's internal address. A node without pod
/// range or address (it has just joined) has none yet.
pub fn routes(snapshot: &Snapshot, node: &str) -> Vec<Route> {
    let others = snapshot.list(NODES, "").filter(|object| &*object.key.name != node);
    let to_pods = |node: NodeView| -> Vec<Route> {
        let Some(via) = node.internal_ip() else { return Vec::new() };
        node.pod_cidrs().into_iter().map(|destination| Route { destination, via }).collect()
    };
    let mut routes: Vec<Route> = others.filter_map(|object| read(object)).flat_map(to_pods).collect();
    routes.sort_unstable();
    routes.dedup_by_key(|route| route.destination);
    routes
}

/// The host ports of a pod that has an address of its own and has not ended.
fn host_ports(pod: &Object) -> Vec<HostPort> {
    let Ok(pod) = pod.decode::<PodView>() else { return Vec::new() };
    let Ok(ip) = pod.status.pod_ip.parse::<Ipv4Addr>() else { return Vec::new() };
    if pod.spec.host_network || matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
        return Vec::new();
    }
    let sidecars = pod.spec.init_containers.iter().filter(|container| container.restart_policy == "Always");
    let ports = pod.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    let host_port = |port: &ContainerPort| {
        let name = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
        Some(HostPort {
            // 0.0.0.0 and an absent address are all addresses; an IPv6 address is none of ours.
            address: match port.host_ip.as_str() {
                "" | "0.0.0.0" => None,
                text => Some(text.parse().ok()?),
            },
            protocol: Protocol::parse(name)?,
            port: Some(port.host_port).filter(|port| *port != 0)?,
            endpoint: (ip, port.container_port),
        })
    };
    ports.filter_map(host_port).collect()
}

#[derive(Deserialize)]
struct PodView {
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    host_network: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    ports: Vec<ContainerPort>,
    restart_policy: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPort {
    container_port: u16,
    host_port: u16,
    #[serde(rename = "hostIP")]
    host_ip: String,
    protocol: String,
}

#[derive(Deserialize)]
struct NodeView {
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    addresses: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    r#type: String,
    address: String,
}

fn read(object: &Object) -> Option<NodeView> {
    object.decode().ok()
}

impl NodeView {
    fn internal_ip(&self) -> Option<Ipv4Addr> {
        let internal = self.status.addresses.iter().filter(|address| address.r#type == "InternalIP");
        internal.filter_map(|address| address.address.parse().ok()).next()
    }

    fn pod_cidrs(&self) -> Vec<Cidr> {
        let mut all: Vec<Cidr> = self.spec.pod_cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect();
        all.extend(self.spec.pod_cidr.parse::<Cidr>());
        all.sort_unstable();
        all.dedup();
        all
    }
}
