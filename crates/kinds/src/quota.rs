//! What ResourceQuotas count: which objects, and how much of which resource each uses up.
//! <https://kubernetes.io/docs/concepts/policy/resource-quotas/>
//!
//! Admission charges what comes and the controller finds what went; both count by this.

use std::collections::BTreeMap;

use object::{Resource, Time};
use schema::{Quantity, path};
use serde::Deserialize;
use serde_json::Value;

use crate::amounts::{Amounts, amounts, effective, quantity};
use crate::spec::qos;
use crate::{
    CONFIG_MAPS, PERSISTENT_VOLUME_CLAIMS, PODS, REPLICATION_CONTROLLERS, RESOURCE_CLAIMS, RESOURCE_QUOTAS,
    SECRETS, SERVICES,
};

/// Kinds that are counted under their plain name too, besides `count/<resource>`.
const COUNTED: [Resource; 7] = [
    CONFIG_MAPS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    REPLICATION_CONTROLLERS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICES,
];

/// `gold.storageclass.storage.k8s.io/requests.storage`
const OF_CLASS: [&str; 2] =
    [".storageclass.storage.k8s.io/persistentvolumeclaims", ".storageclass.storage.k8s.io/requests.storage"];

/// `gpu.deviceclass.resource.k8s.io/devices`
const DEVICES: &str = ".deviceclass.resource.k8s.io/devices";

/// A request for all devices of a class counts as the most that a claim may get.
const MOST_DEVICES: i64 = 32;

/// Could an object of this resource use up what the quota limits under this name?
pub fn concerns(resource: Resource, name: &str) -> bool {
    if name.strip_prefix("count/").is_some_and(|counted| counted == resource.as_str()) {
        return true;
    }
    if COUNTED.contains(&resource) && name == resource.as_str() {
        return true;
    }
    match resource {
        PODS => is_compute(name),
        SERVICES => matches!(name, "services.nodeports" | "services.loadbalancers"),
        PERSISTENT_VOLUME_CLAIMS => {
            name == "requests.storage" || OF_CLASS.iter().any(|suffix| name.ends_with(suffix))
        }
        RESOURCE_CLAIMS => name.ends_with(DEVICES),
        _ => false,
    }
}

fn is_compute(name: &str) -> bool {
    let of_limits = name.strip_prefix("limits.");
    let bare = of_limits.or_else(|| name.strip_prefix("requests.")).unwrap_or(name);
    let is_huge = of_limits.is_none() && bare.starts_with("hugepages-");
    let is_native = !bare.contains('/') || bare.contains("kubernetes.io/");
    matches!(bare, "cpu" | "memory" | "ephemeral-storage")
        || is_huge
        || name.starts_with("requests.") && !is_native
}

/// When a pod that is to go counts no more, whether it is gone or stuck on a lost node.
pub fn freed_at(pod: &Value) -> Option<Time> {
    let since: Time = pod["metadata"]["deletionTimestamp"].as_str()?.parse().ok()?;
    Some(since.plus_secs(pod["metadata"]["deletionGracePeriodSeconds"].as_i64()?))
}

/// All that an object uses up: `count/<resource>`, and what its kind is counted by besides. A pod that has ended, or should
/// long have, is only counted.
pub fn usage(resource: Resource, object: &Value, now: Time) -> Amounts {
    let mut used = Amounts::new();
    let one = Quantity::from_units(1);
    used.insert(format!("count/{resource}"), one);
    let has_ended = || matches!(path::text(object, "status.phase"), "Failed" | "Succeeded");
    let is_late = || freed_at(object).is_some_and(|end| now > end);
    if resource == PODS && (has_ended() || is_late()) {
        return used;
    }
    if COUNTED.contains(&resource) {
        used.insert(resource.as_str().to_owned(), one);
    }
    match resource {
        PODS => {
            used.extend(compute(&effective(object, "requests"), &effective(object, "limits")));
        }
        SERVICES => service(object, &mut used),
        PERSISTENT_VOLUME_CLAIMS => claim(object, &mut used),
        RESOURCE_CLAIMS => devices(object, &mut used),
        _ => {}
    }
    used
}

/// Requests under their own name and with `requests.`, limits with `limits.`, extended resources with `requests.` only.
pub fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::new();
    for (name, amount) in requests {
        let plain =
            matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if plain {
            used.insert(name.clone(), *amount);
        }
        if plain || name.contains('/') {
            used.insert(format!("requests.{name}"), *amount);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            used.insert(format!("limits.{name}"), *amount);
        }
    }
    used
}

fn service(object: &Value, used: &mut Amounts) {
    let kind = path::text(object, "spec.type");
    let ports = i64::try_from(path::list(object, "spec.ports").len()).unwrap_or(i64::MAX);
    let ports = Quantity::from_units(ports);
    match kind {
        "NodePort" => {
            used.insert("services.nodeports".to_owned(), ports);
        }
        "LoadBalancer" => {
            used.insert("services.loadbalancers".to_owned(), Quantity::from_units(1));
            // Ports that somebody chose count although none would be allocated.
            let chosen =
                path::list(object, "spec.ports").iter().filter(|port| port["nodePort"].as_i64() > Some(0));
            let chosen = Quantity::from_units(i64::try_from(chosen.count()).unwrap_or(i64::MAX));
            let is_off = object["spec"]["allocateLoadBalancerNodePorts"] == false;
            used.insert("services.nodeports".to_owned(), if is_off { chosen } else { ports });
        }
        _ => {}
    }
}

fn claim(object: &Value, used: &mut Amounts) {
    let annotated = object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    let class = annotated.unwrap_or_else(|| path::text(object, "spec.storageClassName"));
    let [claims_of_class, storage_of_class] = OF_CLASS;
    if !class.is_empty() {
        used.insert(format!("{class}{claims_of_class}"), Quantity::from_units(1));
    }
    let Some(asked) = amounts(&object["spec"], "requests").get("storage").copied() else { return };
    let given = quantity(&object["status"]["allocatedResources"]["storage"]);
    let size = given.filter(|given| *given > asked).unwrap_or(asked).round_up();
    used.insert("requests.storage".to_owned(), size);
    if !class.is_empty() {
        used.insert(format!("{class}{storage_of_class}"), size);
    }
}

/// Devices by their class; of alternatives the most that one of them would take.
fn devices(object: &Value, used: &mut Amounts) {
    for request in path::list(object, "spec.devices.requests") {
        let mut most: BTreeMap<String, i64> = BTreeMap::new();
        let alternatives = path::list(request, "firstAvailable").iter();
        for choice in path::get(request, "exactly").into_iter().chain(alternatives) {
            let class = path::text(choice, "deviceClassName");
            let count = match path::text(choice, "allocationMode") {
                "All" => MOST_DEVICES,
                _ => path::int(choice, "count").unwrap_or(1),
            };
            let held = most.entry(format!("{class}{DEVICES}")).or_insert(count);
            *held = count.max(*held);
        }
        for (name, count) in most {
            *used.entry(name).or_insert(Quantity::ZERO) += Quantity::from_units(count);
        }
    }
}

/// Which objects a quota is about: the scopes of its spec, all of which must hold.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scopes {
    scopes: Vec<String>,
    scope_selector: Selector,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    match_expressions: Vec<ScopeTerm>,
}

/// `ScopedResourceSelectorRequirement`. Printed as Go prints it: `{PriorityClass In [high]}`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScopeTerm {
    pub scope_name: String,
    operator: String,
    values: Vec<String>,
}

impl ScopeTerm {
    pub fn holds(&self, resource: Resource, object: &Value) -> bool {
        holds(resource, object, &self.scope_name, &self.operator, &self.values)
    }
}

impl std::fmt::Display for ScopeTerm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{{{} {} [{}]}}", self.scope_name, self.operator, self.values.join(" "))
    }
}

impl Scopes {
    /// Is the object one of those that the quota counts? With scopes, only pods are, and claims by their attributes class.
    pub fn match_object(&self, resource: Resource, object: &Value) -> bool {
        if self.scopes.is_empty() && self.scope_selector.match_expressions.is_empty() {
            return true;
        }
        self.scopes.iter().all(|scope| holds(resource, object, scope, "Exists", &[]))
            && self.scope_selector.match_expressions.iter().all(|term| term.holds(resource, object))
    }

    /// The names of those that hold for an object, whether or not all do.
    pub fn held<'a>(&'a self, resource: Resource, object: &'a Value) -> impl Iterator<Item = &'a str> {
        let plain = self.scopes.iter().filter(move |scope| holds(resource, object, scope, "Exists", &[]));
        let terms = self.scope_selector.match_expressions.iter();
        let terms = terms.filter(move |term| term.holds(resource, object)).map(|term| &*term.scope_name);
        plain.map(String::as_str).chain(terms)
    }
}

fn holds(resource: Resource, object: &Value, scope: &str, operator: &str, values: &[String]) -> bool {
    match (resource, scope) {
        (PODS, "Terminating") => path::int(object, "spec.activeDeadlineSeconds").is_some(),
        (PODS, "NotTerminating") => path::int(object, "spec.activeDeadlineSeconds").is_none(),
        (PODS, "BestEffort") => is_best_effort(object),
        (PODS, "NotBestEffort") => !is_best_effort(object),
        (PODS, "PriorityClass") => selects(&[path::text(object, "spec.priorityClassName")], operator, values),
        (PODS, "CrossNamespacePodAffinity") => crosses_namespaces(object),
        (PERSISTENT_VOLUME_CLAIMS, "VolumeAttributesClass") => {
            // While a claim goes from one class to another it is of both.
            let classes = [
                path::text(object, "spec.volumeAttributesClassName"),
                path::text(object, "status.currentVolumeAttributesClassName"),
                path::text(object, "status.modifyVolumeStatus.targetVolumeAttributesClassName"),
            ];
            selects(&classes, operator, values)
        }
        _ => false,
    }
}

fn is_best_effort(pod: &Value) -> bool {
    qos::class(&pod["spec"]) == "BestEffort"
}

/// Is one of the names what the scope asks for? Empty ones are no names.
fn selects(names: &[&str], operator: &str, values: &[String]) -> bool {
    let names: Vec<&&str> = names.iter().filter(|name| !name.is_empty()).collect();
    let is_listed = |name: &&&str| values.iter().any(|value| value == **name);
    match operator {
        "In" => names.iter().any(is_listed),
        "NotIn" => names.is_empty() || !names.iter().all(is_listed),
        "DoesNotExist" => names.is_empty(),
        _ => !names.is_empty(),
    }
}

fn crosses_namespaces(object: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let affinity = &object["spec"]["affinity"][kind];
        let required = path::list(affinity, "requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = path::list(affinity, "preferredDuringSchedulingIgnoredDuringExecution");
        required
            .chain(preferred.iter().map(|held| &held["podAffinityTerm"]))
            .any(|term| !path::list(term, "namespaces").is_empty() || term["namespaceSelector"].is_object())
    })
}
