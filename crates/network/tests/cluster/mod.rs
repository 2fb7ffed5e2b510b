//! Snapshots out of JSON.

#![allow(dead_code)] // each test program uses a part

use bytes::Bytes;
use object::{Draft, Key, Object, Resource, Snapshot};
use serde_json::{Value, json};

pub const SERVICES: Resource = Resource::new("services");
pub const SLICES: Resource = Resource::new("endpointslices.discovery.k8s.io");
pub const PODS: Resource = Resource::new("pods");
pub const NODES: Resource = Resource::new("nodes");

pub fn object(resource: Resource, body: &Value, revision: u64) -> Object {
    let text = |field: &str| body["metadata"][field].as_str().unwrap_or_default().to_owned();
    let key = Key::new(resource, text("namespace"), text("name"));
    Draft::read(key, Box::default(), Bytes::from(body.to_string())).unwrap().at(revision)
}

pub fn snapshot(objects: &[(Resource, Value)]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (revision, (resource, body)) in objects.iter().enumerate() {
        snapshot.put(object(*resource, body, revision as u64 + 1));
    }
    snapshot
}

/// A Service `default/<name>` with this spec.
pub fn service(name: &str, spec: Value) -> (Resource, Value) {
    (SERVICES, json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}))
}

/// A slice of `default/<service>`.
pub fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> (Resource, Value) {
    let labels = json!({"kubernetes.io/service-name": service});
    let metadata = json!({"name": name, "namespace": "default", "labels": labels});
    (SLICES, json!({"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints}))
}

pub fn node(name: &str, ip: &str, pod_cidr: &str) -> (Resource, Value) {
    let status =
        json!({"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": ip}]});
    (
        NODES,
        json!({"metadata": {"name": name}, "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]}, "status": status}),
    )
}
