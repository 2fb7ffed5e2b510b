//! Services and their endpoints, as the proxy and DNS see them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use kinds::{ENDPOINT_SLICES, NAMESPACES, SERVICES};
use object::{Change, Event, Object, Snapshot};
use plan::net::Protocol;
use serde::Deserialize;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Namespace and name.
pub(crate) type Name = (Arc<str>, Arc<str>);

/// Services, EndpointSlices and the names of Namespaces. Other resources' events are ignored.
#[derive(Clone, Debug, Default)]
pub struct Index {
    services: BTreeMap<Name, Service>,
    /// By the Service's name, then the slice's.
    slices: BTreeMap<Name, BTreeMap<Arc<str>, Slice>>,
    /// Which Service a slice was last counted under, by the slice's name.
    slice_owner: HashMap<Name, Name>,
    namespaces: BTreeSet<Arc<str>>,
    by_cluster_ip: HashMap<Ipv4Addr, BTreeSet<Name>>,
    /// How many endpoints of a Service have an address.
    by_endpoint: HashMap<Ipv4Addr, BTreeMap<Name, usize>>,
}

impl Index {
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut index = Self::default();
        for resource in [SERVICES, ENDPOINT_SLICES, NAMESPACES] {
            snapshot.list(resource, "").for_each(|object| index.put(object));
        }
        index
    }

    /// Takes in what a commit did to one object. True if the object is one that the index knows about.
    pub fn apply(&mut self, event: &Event) -> bool {
        if !matches!(event.object.key.resource, SERVICES | ENDPOINT_SLICES | NAMESPACES) {
            return false;
        }
        match event.change {
            Change::Created | Change::Updated => self.put(&event.object),
            Change::Deleted => self.remove(&event.object),
        }
        true
    }

    /// An object that does not decode (which validation rules out) counts as absent.
    fn put(&mut self, object: &Object) {
        self.remove(object);
        let name = (object.key.namespace.clone(), object.key.name.clone());
        match object.key.resource {
            NAMESPACES => {
                self.namespaces.insert(name.1);
            }
            SERVICES => {
                if let Ok(mut service) = object.decode::<Service>() {
                    service.other_proxy =
                        object.meta.label("service.kubernetes.io/service-proxy-name").is_some();
                    for ip in service.cluster_ips() {
                        self.by_cluster_ip.entry(ip).or_default().insert(name.clone());
                    }
                    self.services.insert(name, service);
                }
            }
            _ => {
                let Some(service) = object.meta.label(SERVICE_NAME) else { return };
                let Ok(slice) = object.decode::<Slice>() else { return };
                if slice.address_type != "IPv4" {
                    return;
                }
                let owner: Name = (name.0.clone(), service.into());
                for ip in slice.addresses() {
                    *self.by_endpoint.entry(ip).or_default().entry(owner.clone()).or_default() += 1;
                }
                self.slices.entry(owner.clone()).or_default().insert(name.1.clone(), slice);
                self.slice_owner.insert(name, owner);
            }
        }
    }

    fn remove(&mut self, object: &Object) {
        let name = (object.key.namespace.clone(), object.key.name.clone());
        match object.key.resource {
            NAMESPACES => {
                self.namespaces.remove(&name.1);
            }
            SERVICES => {
                let Some(service) = self.services.remove(&name) else { return };
                for ip in service.cluster_ips() {
                    remove_from(&mut self.by_cluster_ip, ip, |names| {
                        names.remove(&name);
                        names.is_empty()
                    });
                }
            }
            _ => self.remove_slice(&name),
        }
    }

    fn remove_slice(&mut self, name: &Name) {
        let Some(owner) = self.slice_owner.remove(name) else { return };
        let Some(slices) = self.slices.get_mut(&owner) else { return };
        let slice = slices.remove(&name.1);
        if slices.is_empty() {
            self.slices.remove(&owner);
        }
        for ip in slice.iter().flat_map(Slice::addresses) {
            remove_from(&mut self.by_endpoint, ip, |owners| {
                if let Some(count) = owners.get_mut(&owner) {
                    *count -= 1;
                }
                owners.retain(|_, count| *count > 0);
                owners.is_empty()
            });
        }
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = (&Name, &Service)> {
        self.services.iter()
    }

    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<(&Name, &Service)> {
        self.services.get_key_value(&(namespace.into(), name.into()))
    }

    pub(crate) fn slices(&self, service: &Name) -> impl Iterator<Item = &Slice> {
        self.slices.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// The first Service with a cluster IP.
    pub(crate) fn of_cluster_ip(&self, ip: Ipv4Addr) -> Option<&Name> {
        self.by_cluster_ip.get(&ip)?.first()
    }

    /// The Services with an endpoint at an address.
    pub(crate) fn of_endpoint(&self, ip: Ipv4Addr) -> impl Iterator<Item = &Name> {
        self.by_endpoint.get(&ip).into_iter().flat_map(BTreeMap::keys)
    }

    /// Whether a namespace exists; where Namespaces are not mirrored, every name may be one.
    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(name)
    }
}

fn remove_from<V>(map: &mut HashMap<Ipv4Addr, V>, ip: Ipv4Addr, remove: impl FnOnce(&mut V) -> bool) {
    if map.get_mut(&ip).is_some_and(remove) {
        map.remove(&ip);
    }
}

/// What the network needs of a Service.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Service {
    #[serde(default)]
    pub spec: ServiceSpec,
    #[serde(default)]
    pub status: ServiceStatus,
    /// It asks for another proxy than ours.
    #[serde(skip)]
    pub other_proxy: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceSpec {
    pub r#type: String,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<String>,
    pub external_name: String,
    pub ports: Vec<Port>,
    pub session_affinity: String,
    pub session_affinity_config: Option<AffinityConfig>,
    pub internal_traffic_policy: String,
    pub external_traffic_policy: String,
    pub load_balancer_source_ranges: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AffinityConfig {
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIp>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClientIp {
    pub timeout_seconds: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Port {
    pub name: String,
    pub protocol: String,
    pub port: u16,
    pub node_port: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceStatus {
    pub load_balancer: LoadBalancer,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LoadBalancer {
    pub ingress: Vec<Ingress>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Ingress {
    pub ip: String,
    pub ip_mode: String,
}

impl Service {
    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip == "None"
    }

    pub fn is_external_name(&self) -> bool {
        self.spec.r#type == "ExternalName"
    }

    /// IPv4 only.
    pub fn cluster_ips(&self) -> impl Iterator<Item = Ipv4Addr> {
        let all = std::iter::once(&self.spec.cluster_ip).chain(&self.spec.cluster_ips);
        let unique: BTreeSet<Ipv4Addr> = all.filter_map(|ip| ip.parse().ok()).collect();
        unique.into_iter()
    }
}

impl Port {
    /// TCP unless it says otherwise.
    pub fn protocol(&self) -> Option<Protocol> {
        protocol(&self.protocol)
    }
}

fn protocol(name: &str) -> Option<Protocol> {
    if name.is_empty() { Some(Protocol::Tcp) } else { Protocol::parse(name) }
}

/// What the network needs of an EndpointSlice. `null` stands for "none" in its lists.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Slice {
    pub address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<EndpointPort>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Endpoint {
    addresses: Vec<String>,
    pub conditions: Conditions,
    pub hostname: Option<String>,
    pub node_name: Option<String>,
    pub hints: Option<Hints>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Hints {
    pub for_zones: Vec<Hint>,
    pub for_nodes: Vec<Hint>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Hint {
    pub name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct EndpointPort {
    pub name: Option<String>,
    protocol: Option<String>,
    pub port: Option<u16>,
}

impl Slice {
    pub fn endpoints(&self) -> &[Endpoint] {
        self.endpoints.as_deref().unwrap_or_default()
    }

    pub fn ports(&self) -> &[EndpointPort] {
        self.ports.as_deref().unwrap_or_default()
    }

    fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.endpoints().iter().filter_map(Endpoint::address)
    }
}

impl Endpoint {
    /// The first address is the one that counts (discovery/v1: consumers may ignore the rest).
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.addresses.first()?.parse().ok()
    }
}

impl Conditions {
    /// Unknown counts as ready.
    pub fn ready(self) -> bool {
        self.ready.unwrap_or(true)
    }

    /// Unknown counts as `ready` does.
    pub fn serving(self) -> bool {
        self.serving.unwrap_or_else(|| self.ready())
    }

    pub fn terminating(self) -> bool {
        self.terminating.unwrap_or(false)
    }
}

impl EndpointPort {
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    pub fn protocol(&self) -> Option<Protocol> {
        protocol(self.protocol.as_deref().unwrap_or_default())
    }
}
