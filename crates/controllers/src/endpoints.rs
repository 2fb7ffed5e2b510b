//! Keeps the Endpoints of Services with a selector, for those who still read them instead of EndpointSlices.
//!
//! <https://kubernetes.io/docs/concepts/services-networking/service/#endpoints>

use std::collections::{BTreeMap, BTreeSet};

use kinds::{ENDPOINTS, PODS, SERVICES};
use object::{Event, Key, Object, Snapshot, Time};
use plan::{Plan, Write};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::endpoint_slice::HEADLESS;
use crate::ownership::own_key;
use crate::service_pods::{Service, address, services_of_pod, target_ref};
use crate::views::annotations;
use crate::writes::{delete, difference, merge};
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "endpoint-controller",
    user: "endpoint-controller",
    watches: &[
        Watch { resource: ENDPOINTS, keys: of_endpoints },
        Watch { resource: PODS, keys: services_of_pod },
        Watch { resource: SERVICES, keys: own_key },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// More addresses than this are cut off.
const CAPACITY: usize = 1_000;

fn of_endpoints(_: &Snapshot, event: &Event) -> Vec<Key> {
    let key = event.key();
    vec![Key::new(SERVICES, key.namespace.clone(), key.name.clone())]
}

#[derive(Deserialize)]
struct View {
    #[serde(default)]
    subsets: Option<Vec<Value>>,
}

fn reconcile(snapshot: &Snapshot, key: &Key, _: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let held = snapshot.find(ENDPOINTS, &key.namespace, &key.name);
    let Some(service) = Service::read(snapshot, key) else {
        let ours = held.filter(|held| held.meta.label(MANAGED_BY) == Some(MANAGER));
        if let Some(held) = ours.filter(|held| snapshot.get(key).is_none() && !held.meta.is_deleting()) {
            plan.write(delete(held));
        }
        return plan;
    };
    let (subsets, cut) = subsets(snapshot, &service);
    match held {
        None => plan.write(create(&service, subsets, cut)),
        Some(held) => update(held, &service, subsets, cut, &mut plan),
    }
    plan
}

/// (who: an address object as text, may it get traffic), so that sets of them compare.
type Who = (String, bool);

/// Ports with the same addresses share a subset. True if some were cut off.
fn subsets(snapshot: &Snapshot, service: &Service) -> (Vec<Value>, bool) {
    let families = service.families();
    let Some(family) = families.first() else { return (Vec::new(), false) };
    let mut pods = service.pods(snapshot);
    pods.retain(|pod| service.spec.publish_not_ready_addresses || !pod.is_deleting());
    pods.retain(|pod| address(pod, family).is_some());
    let cut = pods.len() > CAPACITY;
    pods.truncate(CAPACITY);
    let mut by_port: BTreeMap<String, BTreeSet<Who>> = BTreeMap::new();
    for pod in &pods {
        let Some(ip) = address(pod, family) else { continue };
        let mut entry = json!({"ip": ip, "targetRef": target_ref(pod)});
        if let Some(node) = pod.node() {
            entry["nodeName"] = node.into();
        }
        if let Some(hostname) = service.hostname(pod) {
            entry["hostname"] = hostname.into();
        }
        let ready = service.spec.publish_not_ready_addresses || pod.is_ready();
        let who = (entry.to_string(), ready);
        if service.spec.ports.is_empty() {
            by_port.entry(String::new()).or_default().insert(who.clone());
        }
        for port in service.ports(pod) {
            by_port.entry(port.to_string()).or_default().insert(who.clone());
        }
    }
    let mut by_addresses: BTreeMap<BTreeSet<Who>, Vec<String>> = BTreeMap::new();
    for (port, addresses) in by_port {
        by_addresses.entry(addresses).or_default().push(port);
    }
    (by_addresses.iter().map(|(addresses, ports)| subset(addresses, ports)).collect(), cut)
}

fn subset(addresses: &BTreeSet<Who>, ports: &[String]) -> Value {
    let json_of = |text: &String| serde_json::from_str::<Value>(text).ok();
    let ip = |address: &Value| address["ip"].as_str().and_then(|ip| ip.parse::<std::net::IpAddr>().ok());
    let of = |wanted: bool| -> Vec<Value> {
        let chosen = addresses.iter().filter(|(_, ready)| *ready == wanted);
        let mut chosen: Vec<Value> = chosen.filter_map(|(text, _)| json_of(text)).collect();
        chosen.sort_by_key(ip);
        chosen
    };
    let mut ports: Vec<Value> = ports.iter().filter_map(json_of).collect();
    // Here an unnamed port has no name at all.
    for port in ports.iter_mut().filter_map(Value::as_object_mut) {
        port.retain(|_, value| value != "");
    }
    let mut subset = Map::new();
    for (field, value) in [("addresses", of(true)), ("notReadyAddresses", of(false)), ("ports", ports)] {
        if !value.is_empty() {
            subset.insert(field.into(), value.into());
        }
    }
    subset.into()
}

fn labels(service: &Service) -> Map<String, Value> {
    let own = service.object.meta.labels.iter().filter(|(name, _)| ***name != *HEADLESS);
    let mut labels: Map<String, Value> =
        own.map(|(name, value)| (name.to_string(), Value::from(&**value))).collect();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if service.is_headless() {
        labels.insert(HEADLESS.into(), "".into());
    }
    labels
}

fn create(service: &Service, subsets: Vec<Value>, cut: bool) -> Write {
    let key = &service.object.key;
    let mut object = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"namespace": &*key.namespace, "name": &*key.name, "labels": labels(service)},
    });
    if !subsets.is_empty() {
        object["subsets"] = subsets.into();
    }
    if cut {
        object["metadata"]["annotations"] = json!({OVER_CAPACITY: "truncated"});
    }
    Write::Create { resource: ENDPOINTS, object }
}

fn update(held: &Object, service: &Service, subsets: Vec<Value>, cut: bool, plan: &mut Plan) {
    let old = held.decode::<View>().ok().and_then(|view| view.subsets).unwrap_or_default();
    let mut patch = json!({});
    let labels = difference(&json!(held.meta.labels), labels(service).into());
    if !labels.is_empty() {
        patch["metadata"]["labels"] = labels.into();
    }
    let is_cut = annotations(held).get(OVER_CAPACITY).is_some_and(|value| value == "truncated");
    if is_cut != cut {
        let value = if cut { json!("truncated") } else { Value::Null };
        patch["metadata"]["annotations"] = json!({OVER_CAPACITY: value});
    }
    if old != subsets {
        patch["subsets"] = if subsets.is_empty() { Value::Null } else { subsets.into() };
    }
    if patch != json!({}) {
        plan.write(merge(held, patch));
    }
}
