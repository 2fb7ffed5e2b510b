//! Makes the IPAddress of each cluster IP what its Service says: one that is lost is made again, one that nobody has goes.
//!
//! Both are written in one transaction, so that they part only when somebody touches an IPAddress, or a store of another server's making is
//! taken over. Upstream's `repairip`, with its words.

use std::net::IpAddr;
use std::sync::Arc;

use kinds::{IP_ADDRESSES, SERVICE_CIDRS, SERVICES};
use object::{Event, Key, Object, Snapshot, Time};
use plan::{Plan, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ownership::{Kind, own_key};
use crate::service_cidr::{self, ALLOCATOR, MANAGED_BY};
use crate::writes::{delete, event};
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "ipallocator-repair-controller",
    user: "ipallocator-repair-controller",
    watches: &[
        Watch { resource: IP_ADDRESSES, keys: of_address },
        Watch { resource: SERVICE_CIDRS, keys: every_service },
        Watch { resource: SERVICES, keys: own_key },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

const SERVICE: Kind = Kind { api_version: "v1", kind: "Service", resource: SERVICES };
const ADDRESS: Kind = Kind { api_version: "networking.k8s.io/v1", kind: "IPAddress", resource: IP_ADDRESSES };
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// An address whose Service is not there is left alone for so long: who gave it out may be about to make the Service.
const LEAK_SECONDS: i64 = 60;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Service {
    spec: ServiceSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Address {
    spec: AddressSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AddressSpec {
    parent_ref: Parent,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Parent {
    group: String,
    resource: String,
    namespace: String,
    name: String,
}

impl Parent {
    fn is_a_service(&self) -> bool {
        self.group.is_empty() && self.resource == "services"
    }

    fn is(&self, key: &Key) -> bool {
        self.is_a_service() && self.namespace == *key.namespace && self.name == *key.name
    }

    /// The Service that it names, if there is one.
    fn service<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Arc<Object>> {
        snapshot.find(SERVICES, &self.namespace, &self.name).filter(|_| self.is_a_service())
    }
}

fn parent(address: &Object) -> Parent {
    address.decode::<Address>().unwrap_or_default().spec.parent_ref
}

/// The addresses of a Service: none if it has none of its own.
fn cluster_ips(service: &Object) -> Vec<IpAddr> {
    let ServiceSpec { cluster_ips, kind } = service.decode::<Service>().unwrap_or_default().spec;
    if kind == "ExternalName" {
        return Vec::new();
    }
    cluster_ips.iter().filter_map(|text| text.parse().ok()).collect()
}

/// The address itself, and the Services that it was and is of.
fn of_address(_: &Snapshot, event: &Event) -> Vec<Key> {
    let states = [Some(&event.object), event.previous.as_ref()];
    let parents = states.into_iter().flatten().map(|address| parent(address)).filter(Parent::is_a_service);
    let services = parents.map(|parent| Key::new(SERVICES, parent.namespace, parent.name));
    services.chain([event.key().clone()]).collect()
}

/// A range that comes or goes decides which addresses may be.
fn every_service(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    if event.change == object::Change::Updated {
        return Vec::new();
    }
    snapshot.list(SERVICES, "").map(|service| service.key.clone()).collect()
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    match snapshot.get(key) {
        Some(service) if key.resource == SERVICES => {
            // A range that is not published yet says nothing about what is out of it.
            let has_ranges = snapshot.list(SERVICE_CIDRS, "").next().is_some();
            for ip in cluster_ips(service).into_iter().filter(|_| has_ranges) {
                repair(snapshot, service, ip, &mut plan);
            }
        }
        Some(address) if address.meta.label(MANAGED_BY) == Some(ALLOCATOR) => {
            clean_up(snapshot, address, now, &mut plan);
        }
        _ => {}
    }
    plan
}

/// Makes the address of a Service what it should be.
fn repair(snapshot: &Snapshot, service: &Object, ip: IpAddr, plan: &mut Plan) {
    let family = family(ip);
    let mut tell = |reason, message: String| event(plan, service, &SERVICE, true, reason, message);
    if !service_cidr::is_within(snapshot, ip) {
        let message = format!(
            "Cluster IP [{family}]: {ip} is not within any configured Service CIDR; please recreate service"
        );
        return tell("ClusterIPOutOfRange", message);
    }
    let Some(address) = snapshot.find(IP_ADDRESSES, "", &ip.to_string()) else {
        tell("ClusterIPNotAllocated", format!("Cluster IP [{family}]: {ip} is not allocated; repairing"));
        plan.write(Write::Create { resource: IP_ADDRESSES, object: address_of(service, ip) });
        return;
    };
    let parent = parent(address);
    let labels = (address.meta.label(MANAGED_BY), address.meta.label(FAMILY));
    if parent.is(&service.key) && labels == (Some(ALLOCATOR), Some(family)) {
        return;
    }
    let other = parent.service(snapshot).filter(|other| other.key != service.key);
    if other.is_some_and(|other| cluster_ips(other).contains(&ip)) {
        let message =
            format!("Cluster IP [{family}]:{ip} was assigned to multiple services; please recreate service");
        return tell("ClusterIPAlreadyAllocated", message);
    }
    if !parent.is(&service.key) {
        let Key { namespace, name, .. } = &service.key;
        let message = format!(
            "the ClusterIP [{family}]: {ip} for Service {namespace}/{name} has a wrong reference; repairing"
        );
        tell("ClusterIPNotAllocated", message);
    }
    plan.write(delete(address));
    plan.write(Write::Create { resource: IP_ADDRESSES, object: address_of(service, ip) });
}

/// Takes away an address that no Service has.
fn clean_up(snapshot: &Snapshot, address: &Object, now: Time, plan: &mut Plan) {
    let (parent, ip) = (parent(address), &address.key.name);
    if !parent.is_a_service() {
        let Parent { group, resource, namespace, name } = parent;
        let message = format!(
            "IPAddress {ip} appears to have been modified, not referencing a Service &ParentReference{{Group:{group},Resource:{resource},Namespace:{namespace},Name:{name},}}: cleaning up"
        );
        event(plan, address, &ADDRESS, true, "IPAddressNotAllocated", message);
        return plan.write(delete(address));
    }
    let Parent { namespace, name, .. } = &parent;
    match parent.service(snapshot) {
        None => {
            let leaked = address.meta.creation_timestamp.map_or(now, |made| made.plus_secs(LEAK_SECONDS));
            if leaked > now {
                return plan.wake(leaked);
            }
            let message =
                format!("IPAddress: {ip} for Service {namespace}/{name} appears to have leaked: cleaning up");
            event(plan, address, &ADDRESS, true, "IPAddressNotAllocated", message);
            plan.write(delete(address));
        }
        Some(service) if cluster_ips(service).iter().any(|own| own.to_string() == **ip) => {}
        Some(_) => {
            let message =
                format!("IPAddress: {ip} for Service {namespace}/{name} has a wrong reference; cleaning up");
            event(plan, address, &ADDRESS, true, "IPAddressWrongReference", message);
            plan.write(delete(address));
        }
    }
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn address_of(service: &Object, ip: IpAddr) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": ip.to_string(), "labels": {FAMILY: family(ip), MANAGED_BY: ALLOCATOR}},
        "spec": {"parentRef": {
            "group": "", "resource": "services", "namespace": &*service.key.namespace, "name": &*service.key.name,
        }},
    })
}

#[cfg(test)]
mod tests {
    use object::{Draft, body};

    use super::*;

    /// What is told of a Service whose address is 10.0.0.9, beside these objects; and nothing is written, for nobody can mend it.
    fn check(objects: &[(Key, Value)], expected: &[(&str, &str)]) {
        let mut snapshot = Snapshot::default();
        snapshot.advance(1);
        let key = Key::new(SERVICES, "default", "a");
        let own = (key.clone(), json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.0.0.9"]}}));
        for (key, object) in objects.iter().chain([&own]) {
            let draft = Draft::read(key.clone(), Box::default(), body::encode(object)).expect("a draft");
            drop(snapshot.put(draft.at(1)));
        }
        let plan = reconcile(&snapshot, &key, Time::from_secs(0), &Settings::default());
        let told: Vec<_> = plan.events.iter().map(|event| (event.reason, &*event.message)).collect();
        assert_eq!((told.as_slice(), plan.writes.len()), (expected, 0));
    }

    #[test]
    fn what_only_people_can_mend_is_told() {
        let range =
            |cidr: &str| (Key::cluster(SERVICE_CIDRS, "kubernetes"), json!({"spec": {"cidrs": [cidr]}}));
        let parent = json!({"group": "", "resource": "services", "namespace": "default", "name": "b"});
        let labels = json!({MANAGED_BY: ALLOCATOR, FAMILY: "IPv4"});
        let address = json!({"metadata": {"labels": labels}, "spec": {"parentRef": parent}});
        let of_other = (Key::cluster(IP_ADDRESSES, "10.0.0.9"), address);
        let other = json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.0.0.9"]}});
        let other = (Key::new(SERVICES, "default", "b"), other);
        check(&[], &[]);
        check(
            &[range("10.1.0.0/16")],
            &[(
                "ClusterIPOutOfRange",
                "Cluster IP [IPv4]: 10.0.0.9 is not within any configured Service CIDR; please recreate service",
            )],
        );
        check(
            &[range("10.0.0.0/24"), of_other, other],
            &[(
                "ClusterIPAlreadyAllocated",
                "Cluster IP [IPv4]:10.0.0.9 was assigned to multiple services; please recreate service",
            )],
        );
    }
}
