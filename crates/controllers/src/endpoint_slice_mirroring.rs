//! Mirrors Endpoints that people make by hand into EndpointSlices, because that is what proxies and DNS read.
//!
//! <https://kubernetes.io/docs/concepts/services-networking/service/#endpointslice-mirroring>

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use kinds::{ENDPOINT_SLICES, ENDPOINTS, SERVICES};
use object::{Event, Key, Object, Snapshot, Time};
use plan::{Plan, Write};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::endpoint_slice::SERVICE_NAME;
use crate::naming::Names;
use crate::ownership::{Kind, own_key};
use crate::writes::{delete, difference, merge};
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "endpoint-slice-mirroring-controller",
    user: "endpointslicemirroring-controller",
    watches: &[
        Watch { resource: ENDPOINTS, keys: own_key },
        Watch { resource: ENDPOINT_SLICES, keys: of_slice },
        Watch { resource: SERVICES, keys: of_service },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

const KIND: Kind = Kind { api_version: "v1", kind: "Endpoints", resource: ENDPOINTS };
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER_ELECTION: &str = "control-plane.alpha.kubernetes.io/leader";
/// Addresses of one subset that are mirrored; the rest is left out.
const MOST_ADDRESSES: usize = 1_000;
const MOST_ENDPOINTS: usize = 100;

#[derive(Deserialize)]
struct View {
    #[serde(default)]
    subsets: Option<Vec<Subset>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subset {
    #[serde(default)]
    addresses: Vec<Address>,
    #[serde(default)]
    not_ready_addresses: Vec<Address>,
    #[serde(default)]
    ports: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    ip: String,
    hostname: Option<String>,
    node_name: Option<String>,
    target_ref: Option<Value>,
}

fn of_slice(_: &Snapshot, event: &Event) -> Vec<Key> {
    let slice = &event.object;
    let service = slice.meta.label(SERVICE_NAME).filter(|_| slice.meta.label(MANAGED_BY) == Some(MANAGER));
    service.map(|name| Key::new(ENDPOINTS, slice.key.namespace.clone(), name)).into_iter().collect()
}

fn of_service(_: &Snapshot, event: &Event) -> Vec<Key> {
    let key = event.key();
    vec![Key::new(ENDPOINTS, key.namespace.clone(), key.name.clone())]
}

fn reconcile(snapshot: &Snapshot, key: &Key, _: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let mut held = slices(snapshot, key);
    if let Some(endpoints) = snapshot.get(key).filter(|endpoints| is_mirrored(snapshot, endpoints)) {
        mirror(snapshot, endpoints, &mut held, &mut plan);
    }
    plan.writes.extend(held.into_iter().map(|slice| delete(slice)));
    plan
}

/// Only those of a Service without a selector, and not those that ask to be left alone or serve as a lock.
fn is_mirrored(snapshot: &Snapshot, endpoints: &Object) -> bool {
    #[derive(Deserialize)]
    struct Service {
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        #[serde(default)]
        selector: Option<BTreeMap<String, String>>,
    }
    let service = snapshot.find(SERVICES, &endpoints.key.namespace, &endpoints.key.name);
    let has_selector =
        |service: &Service| service.spec.selector.as_ref().is_some_and(|held| !held.is_empty());
    let fits = service
        .and_then(|service| service.decode::<Service>().ok())
        .is_some_and(|service| !has_selector(&service));
    fits && !endpoints.meta.is_deleting()
        && endpoints.meta.label(SKIP) != Some("true")
        && !crate::views::annotations(endpoints).contains_key(LEADER_ELECTION)
}

fn slices<'a>(snapshot: &'a Snapshot, endpoints: &'a Key) -> Vec<&'a Arc<Object>> {
    let is_ours = |slice: &&Arc<Object>| {
        slice.meta.label(SERVICE_NAME) == Some(&endpoints.name)
            && slice.meta.label(MANAGED_BY) == Some(MANAGER)
            && !slice.meta.is_deleting()
    };
    snapshot.list(ENDPOINT_SLICES, &endpoints.namespace).filter(is_ours).collect()
}

/// One slice for each subset, family and hundred addresses; what is right already stays. Slices that are used leave `held`.
fn mirror(snapshot: &Snapshot, endpoints: &Object, held: &mut Vec<&Arc<Object>>, plan: &mut Plan) {
    let subsets = endpoints.decode::<View>().ok().and_then(|view| view.subsets).unwrap_or_default();
    let mut names = Names::new(snapshot, ENDPOINT_SLICES, &endpoints.key.namespace);
    for (family, ports, part) in subsets.iter().flat_map(parts) {
        let found = held.iter().position(|slice| has(slice, family, &ports));
        match found.map(|index| held.remove(index)) {
            Some(slice) => update(endpoints, slice, part, plan),
            None => plan.write(create(endpoints, family, &ports, part, &mut names)),
        }
    }
}

/// The slices of a subset: (family, ports, endpoints).
fn parts(subset: &Subset) -> Vec<(&'static str, Value, Vec<Value>)> {
    let ready = subset.addresses.iter().map(|address| (address, true));
    let all = ready.chain(subset.not_ready_addresses.iter().map(|address| (address, false)));
    let mut families: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (address, ready) in all.take(MOST_ADDRESSES) {
        // What is no address is left out.
        let Ok(ip) = address.ip.parse::<IpAddr>() else { continue };
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        families.entry(family).or_default().push(endpoint(address, ready));
    }
    let ports: Vec<Value> = subset.ports.iter().map(named).collect();
    let slices = families.into_iter().flat_map(|(family, endpoints)| {
        let ports = ports.clone();
        let chunks: Vec<Vec<Value>> = endpoints.chunks(MOST_ENDPOINTS).map(<[Value]>::to_vec).collect();
        chunks.into_iter().map(move |part| (family, Value::from(ports.clone()), part))
    });
    slices.collect()
}

/// A slice's ports always have a name, if only an empty one.
fn named(port: &Value) -> Value {
    let mut port = port.clone();
    if port.get("name").is_none() {
        port["name"] = "".into();
    }
    port
}

fn endpoint(address: &Address, ready: bool) -> Value {
    let mut endpoint = json!({"addresses": [address.ip], "conditions": {"ready": ready}});
    if let Some(hostname) = &address.hostname {
        endpoint["hostname"] = hostname.as_str().into();
    }
    if let Some(node) = &address.node_name {
        endpoint["nodeName"] = node.as_str().into();
    }
    if let Some(target) = &address.target_ref {
        endpoint["targetRef"] = target.clone();
    }
    endpoint
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceView {
    address_type: String,
    #[serde(default)]
    endpoints: Value,
    #[serde(default)]
    ports: Value,
}

fn has(slice: &Object, family: &str, ports: &Value) -> bool {
    let none = |value: Value| if value.is_null() { json!([]) } else { value };
    slice.decode::<SliceView>().is_ok_and(|view| view.address_type == family && none(view.ports) == *ports)
}

fn labels(endpoints: &Object) -> Map<String, Value> {
    let own = endpoints.meta.labels.iter().map(|(name, value)| (name.to_string(), Value::from(&**value)));
    let mut labels: Map<String, Value> = own.collect();
    labels.insert(SERVICE_NAME.into(), (&*endpoints.key.name).into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

fn update(endpoints: &Object, slice: &Object, part: Vec<Value>, plan: &mut Plan) {
    let mut patch = json!({});
    let labels = difference(&json!(slice.meta.labels), labels(endpoints).into());
    if !labels.is_empty() {
        patch["metadata"] = json!({"labels": labels});
    }
    if slice.decode::<SliceView>().map(|view| view.endpoints).ok() != Some(part.clone().into()) {
        patch["endpoints"] = part.into();
    }
    if patch != json!({}) {
        plan.write(merge(slice, patch));
    }
}

fn create(endpoints: &Object, family: &str, ports: &Value, part: Vec<Value>, names: &mut Names) -> Write {
    let prefix = format!("{}-", endpoints.key.name);
    let name = names.next(&prefix, &endpoints.meta.uid);
    let mut metadata = json!({
        "namespace": &*endpoints.key.namespace, "name": name, "generateName": prefix,
        "labels": labels(endpoints), "ownerReferences": [KIND.controller_ref(endpoints)],
    });
    let mut annotations = crate::views::annotations(endpoints);
    annotations.retain(|name, _| {
        name != "kubectl.kubernetes.io/last-applied-configuration"
            && name != "endpoints.kubernetes.io/last-change-trigger-time"
    });
    if !annotations.is_empty() {
        metadata["annotations"] = json!(annotations);
    }
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": family, "ports": ports, "endpoints": part,
    });
    Write::Create { resource: ENDPOINT_SLICES, object }
}
