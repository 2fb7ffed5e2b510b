//! What the two endpoint controllers both need to know: the pods behind a Service, and where they listen.

use std::net::IpAddr;
use std::sync::Arc;

use kinds::{PODS, SERVICES};
use object::{Change, Event, Key, LabelSelector, Object, Snapshot};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::views::{Labels, Pod};

#[derive(Deserialize)]
struct View {
    spec: Spec,
}

/// `v1.ServiceSpec`, as far as endpoints follow from it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    pub selector: Option<Labels>,
    pub ports: Vec<Port>,
    pub ip_families: Vec<String>,
    pub publish_not_ready_addresses: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    pub name: String,
    pub protocol: String,
    pub port: i64,
    pub target_port: Option<TargetPort>,
    pub app_protocol: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub enum TargetPort {
    Number(i64),
    Name(String),
}

/// A Service whose endpoints come from its selector.
pub struct Service {
    pub object: Arc<Object>,
    pub spec: Spec,
}

impl Service {
    /// None if others look after its endpoints: no selector, a name for somewhere else, or it is going away.
    pub fn read(snapshot: &Snapshot, key: &Key) -> Option<Self> {
        let object = snapshot.get(key).filter(|found| !found.meta.is_deleting())?;
        let spec = object.decode::<View>().ok()?.spec;
        let has_selector = spec.selector.as_ref().is_some_and(|selector| !selector.is_empty());
        (has_selector && spec.kind != "ExternalName").then(|| Self { object: object.clone(), spec })
    }

    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip == "None"
    }

    /// `IPv4`, `IPv6`, or both; the first is the primary one.
    pub fn families(&self) -> Vec<&str> {
        if self.spec.ip_families.is_empty() {
            return vec![if self.spec.cluster_ip.contains(':') { "IPv6" } else { "IPv4" }];
        }
        self.spec.ip_families.iter().map(String::as_str).collect()
    }

    /// The pods that the selector finds and that could answer, in the order of their names.
    pub fn pods(&self, snapshot: &Snapshot) -> Vec<Pod> {
        let labels = self.spec.selector.iter().flatten();
        let selector = LabelSelector::of_labels(labels.map(|(name, value)| (&**name, &**value)));
        snapshot
            .select(PODS, &self.object.key.namespace, &selector)
            .map(Pod::read)
            .filter(|pod| !pod.is_finished() && !pod.status.pod_ip.is_empty())
            .collect()
    }

    /// The ports of one pod: `{name, protocol, port, appProtocol?}`. A named target that the pod does not have is left out.
    pub fn ports(&self, pod: &Pod) -> Vec<Value> {
        self.spec.ports.iter().filter_map(|port| Some(endpoint_port(port, target(port, pod)?))).collect()
    }

    /// Is the pod's hostname a name below the Service's? Only then do its endpoints carry it.
    pub fn hostname<'p>(&self, pod: &'p Pod) -> Option<&'p str> {
        let named = !pod.spec.hostname.is_empty() && pod.spec.subdomain == *self.object.key.name;
        named.then_some(pod.spec.hostname.as_str())
    }
}

fn endpoint_port(port: &Port, number: i64) -> Value {
    let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
    let mut value = json!({"name": port.name, "protocol": protocol, "port": number});
    if let Some(application) = &port.app_protocol {
        value["appProtocol"] = application.as_str().into();
    }
    value
}

fn target(port: &Port, pod: &Pod) -> Option<i64> {
    let name = match &port.target_port {
        None | Some(TargetPort::Number(0)) => return Some(port.port),
        Some(TargetPort::Number(number)) => return Some(*number),
        Some(TargetPort::Name(name)) => name,
    };
    let sidecars =
        pod.spec.init_containers.iter().filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let protocol = |text: &str| if text.is_empty() { "TCP".to_owned() } else { text.to_owned() };
    pod.spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| &container.ports)
        .find(|known| known.name == *name && protocol(&known.protocol) == protocol(&port.protocol))
        .map(|known| known.container_port)
}

/// The pod's address of a family.
pub fn address<'p>(pod: &'p Pod, family: &str) -> Option<&'p str> {
    let all = pod.status.pod_ips.iter().map(|one| one.ip.as_str());
    all.chain([pod.status.pod_ip.as_str()]).find(|ip| family_of(ip) == Some(family))
}

fn family_of(ip: &str) -> Option<&'static str> {
    match ip.parse().ok()? {
        IpAddr::V4(_) => Some("IPv4"),
        IpAddr::V6(_) => Some("IPv6"),
    }
}

pub fn target_ref(pod: &Pod) -> Value {
    json!({
        "kind": "Pod", "namespace": &*pod.object.key.namespace, "name": pod.name(), "uid": pod.object.meta.uid,
    })
}

/// The Services that a pod's change concerns: those that select it now or did before, if anything that shows in endpoints changed.
pub fn services_of_pod(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let new = &event.object;
    let Some(old) = event.previous.as_ref().filter(|_| event.change == Change::Updated) else {
        return selecting(snapshot, &new.key.namespace, &[&new.meta.labels]);
    };
    if old.meta.labels == new.meta.labels && facts(old) == facts(new) {
        return Vec::new();
    }
    selecting(snapshot, &new.key.namespace, &[&old.meta.labels, &new.meta.labels])
}

/// What endpoints show of a pod, beside its labels.
fn facts(object: &Arc<Object>) -> impl PartialEq + use<> {
    let pod = Pod::read(object);
    let ips: Vec<String> = pod.status.pod_ips.iter().map(|one| one.ip.clone()).collect();
    let states = (pod.is_ready(), pod.is_deleting(), pod.is_finished());
    (states, pod.status.pod_ip, ips, pod.spec.node_name)
}

fn selecting(snapshot: &Snapshot, namespace: &str, label_sets: &[&Labels]) -> Vec<Key> {
    let matches = |service: &&Arc<Object>| {
        let Ok(View { spec }) = service.decode() else { return false };
        let Some(selector) = spec.selector.filter(|selector| !selector.is_empty()) else { return false };
        label_sets.iter().any(|labels| selector.iter().all(|(name, value)| labels.get(name) == Some(value)))
    };
    snapshot.list(SERVICES, namespace).filter(matches).map(|service| service.key.clone()).collect()
}
