//! Keeps the EndpointSlices of Services with a selector: which pods are behind them, and which of those may get traffic.
//!
//! A slice that is there keeps the endpoints it has as far as they are still right, so that a change of one pod rewrites one slice.
//!
//! <https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/>

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kinds::{ENDPOINT_SLICES, NODES, PODS, SERVICES};
use object::{Event, Key, Object, Snapshot, Time};
use plan::{Plan, Write};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::naming::Names;
use crate::ownership::{Kind, own_key};
use crate::service_pods::{Service, address, services_of_pod, target_ref};
use crate::views::Pod;
use crate::writes::{delete, merge};
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "endpoint-slice-controller",
    user: "endpointslice-controller",
    watches: &[
        Watch { resource: ENDPOINT_SLICES, keys: of_slice },
        Watch { resource: PODS, keys: services_of_pod },
        Watch { resource: SERVICES, keys: own_key },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

const KIND: Kind = Kind { api_version: "v1", kind: "Service", resource: SERVICES };
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
pub const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Upstream's `--max-endpoints-per-slice`.
const MOST_ENDPOINTS: usize = 100;

fn of_slice(_: &Snapshot, event: &Event) -> Vec<Key> {
    let slice = &event.object;
    let ours = slice.meta.label(MANAGED_BY) == Some(MANAGER);
    let service = slice.meta.label(SERVICE_NAME).filter(|_| ours);
    service.map(|name| Key::new(SERVICES, slice.key.namespace.clone(), name)).into_iter().collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct View {
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<Value>>,
    #[serde(default)]
    ports: Option<Value>,
}

/// A slice of this Service that is there.
struct Slice<'a> {
    object: &'a Arc<Object>,
    address_type: String,
    endpoints: Vec<Value>,
    ports: Value,
}

/// Endpoints that should be, by who they are.
type Wanted = BTreeMap<Identity, Value>;
/// (address, uid of the pod)
type Identity = (String, String);

fn reconcile(snapshot: &Snapshot, key: &Key, _: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(service) = Service::read(snapshot, key) else { return plan };
    let pods = service.pods(snapshot);
    let mut names = Names::new(snapshot, ENDPOINT_SLICES, &key.namespace);
    let mut held = slices(snapshot, &service);
    for family in service.families() {
        let (mine, others): (Vec<Slice>, Vec<Slice>) =
            held.into_iter().partition(|slice| slice.address_type == family);
        held = others;
        let wanted = wanted(snapshot, &service, &pods, family);
        fit(&service, family, wanted, mine, &mut names, &mut plan);
    }
    // Slices of a family that the Service has no more.
    plan.writes.extend(held.iter().map(|slice| delete(slice.object)));
    plan
}

fn slices<'a>(snapshot: &'a Snapshot, service: &'a Service) -> Vec<Slice<'a>> {
    let name = &*service.object.key.name;
    let is_ours = |slice: &&Arc<Object>| {
        slice.meta.label(SERVICE_NAME) == Some(name)
            && slice.meta.label(MANAGED_BY) == Some(MANAGER)
            && !slice.meta.is_deleting()
    };
    let read = |object: &'a Arc<Object>| {
        let View { address_type, endpoints, ports } = object.decode().ok()?;
        let ports = ports.filter(Value::is_array).unwrap_or_else(|| json!([]));
        Some(Slice { object, address_type, endpoints: endpoints.unwrap_or_default(), ports })
    };
    snapshot.list(ENDPOINT_SLICES, &service.object.key.namespace).filter(is_ours).filter_map(read).collect()
}

/// The endpoints of one address family, grouped by the ports that they have: (ports as text, (ports, endpoints)).
fn wanted(
    snapshot: &Snapshot,
    service: &Service,
    pods: &[Pod],
    family: &str,
) -> BTreeMap<String, (Value, Wanted)> {
    let mut groups: BTreeMap<String, (Value, Wanted)> = BTreeMap::new();
    for pod in pods {
        let Some(ip) = address(pod, family) else { continue };
        let ports = service.ports(pod);
        if ports.is_empty() && !service.spec.ports.is_empty() {
            continue;
        }
        let ports = Value::from(ports);
        let identity = (ip.to_owned(), pod.object.meta.uid.to_string());
        let (_, endpoints) = groups.entry(ports.to_string()).or_insert_with(|| (ports, Wanted::new()));
        endpoints.insert(identity, endpoint(snapshot, service, pod, ip));
    }
    groups
}

fn endpoint(snapshot: &Snapshot, service: &Service, pod: &Pod, ip: &str) -> Value {
    let serving = pod.is_ready();
    let terminating = pod.is_deleting();
    let ready = service.spec.publish_not_ready_addresses || serving && !terminating;
    let mut endpoint = json!({
        "addresses": [ip],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": target_ref(pod),
    });
    if let Some(node) = pod.node() {
        endpoint["nodeName"] = node.into();
        let zone = snapshot.find(NODES, "", node).and_then(|node| node.meta.label(ZONE));
        if let Some(zone) = zone {
            endpoint["zone"] = zone.into();
        }
    }
    if let Some(hostname) = service.hostname(pod) {
        endpoint["hostname"] = hostname.into();
    }
    endpoint
}

fn identity(endpoint: &Value) -> Identity {
    let text = |at: &str| endpoint.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("/addresses/0"), text("/targetRef/uid"))
}

/// Fits the wanted endpoints into the slices that are there, and makes or deletes slices for the rest.
fn fit(
    service: &Service,
    family: &str,
    mut wanted: BTreeMap<String, (Value, Wanted)>,
    slices: Vec<Slice>,
    names: &mut Names,
    plan: &mut Plan,
) {
    // A Service without endpoints has one empty slice, so that readers can tell "none" from "not yet".
    if wanted.is_empty() {
        wanted.insert("[]".into(), (json!([]), Wanted::new()));
    }
    let is_empty = wanted.values().all(|(_, endpoints)| endpoints.is_empty());
    let mut groups: BTreeMap<String, Vec<Slice>> = BTreeMap::new();
    for slice in slices {
        groups.entry(slice.ports.to_string()).or_default().push(slice);
    }
    for (text, (ports, endpoints)) in wanted {
        let held = groups.remove(&text).unwrap_or_default();
        fit_group(service, family, &ports, endpoints, held, is_empty, names, plan);
    }
    plan.writes.extend(groups.values().flatten().map(|slice| delete(slice.object)));
}

#[expect(clippy::too_many_arguments)]
fn fit_group(
    service: &Service,
    family: &str,
    ports: &Value,
    mut endpoints: Wanted,
    slices: Vec<Slice>,
    keep_one: bool,
    names: &mut Names,
    plan: &mut Plan,
) {
    let mut kept: Vec<(Slice, Vec<Value>)> = slices
        .into_iter()
        .map(|slice| {
            let mut seen = BTreeSet::new();
            let known = slice.endpoints.iter().map(identity).filter(|identity| seen.insert(identity.clone()));
            let still: Vec<Value> = known.filter_map(|identity| endpoints.remove(&identity)).collect();
            (slice, still)
        })
        .collect();
    // New ones go first into slices that are rewritten anyway, then into the fullest with room.
    kept.sort_by_key(|(slice, still)| (*still == slice.endpoints, usize::MAX - still.len()));
    let mut rest = endpoints.into_values();
    for (_, still) in &mut kept {
        still.extend(rest.by_ref().take(MOST_ENDPOINTS.saturating_sub(still.len())));
    }
    let mut is_kept = false;
    for (slice, still) in kept {
        if still.is_empty() && (!keep_one || is_kept) {
            plan.write(delete(slice.object));
        } else {
            is_kept = true;
            rewrite(service, &slice, still, plan);
        }
    }
    let rest: Vec<Value> = rest.collect();
    if rest.is_empty() && keep_one && !is_kept {
        plan.write(create(service, family, ports, &[], names));
    }
    for part in rest.chunks(MOST_ENDPOINTS) {
        plan.write(create(service, family, ports, part, names));
    }
}

/// The Service's own labels, and those that say whose the slice is.
fn labels(service: &Service) -> Map<String, Value> {
    let reserved = [SERVICE_NAME, MANAGED_BY, HEADLESS];
    let own = service.object.meta.labels.iter().filter(|(name, _)| !reserved.contains(&&***name));
    let mut labels: Map<String, Value> =
        own.map(|(name, value)| (name.to_string(), Value::from(&**value))).collect();
    labels.insert(SERVICE_NAME.into(), (&*service.object.key.name).into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if service.is_headless() {
        labels.insert(HEADLESS.into(), "".into());
    }
    labels
}

fn rewrite(service: &Service, slice: &Slice, endpoints: Vec<Value>, plan: &mut Plan) {
    let held = json!(slice.object.meta.labels);
    let labels = crate::writes::difference(&held, labels(service).into());
    let mut patch = json!({});
    if !labels.is_empty() {
        patch["metadata"] = json!({"labels": labels});
    }
    if endpoints != slice.endpoints {
        patch["endpoints"] = endpoints.into();
    }
    if patch != json!({}) {
        plan.write(merge(slice.object, patch));
    }
}

fn create(service: &Service, family: &str, ports: &Value, endpoints: &[Value], names: &mut Names) -> Write {
    let prefix = format!("{}-", service.object.key.name);
    let name = names.next(&prefix, &service.object.meta.uid);
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": &*service.object.key.namespace, "name": name, "generateName": prefix,
            "labels": labels(service),
            "ownerReferences": [KIND.controller_ref(&service.object)],
        },
        "addressType": family, "ports": ports, "endpoints": endpoints,
    });
    Write::Create { resource: ENDPOINT_SLICES, object }
}
