//! What ResourceQuotas count: which objects, and how much of which resource each uses up.
//! <https://kubernetes.io/docs/concepts/policy/resource-quotas/>
//!
//! Admission charges what comes and the controller finds what went; both count by this.

use object::Resource;
use schema::{Quantity, path};
use serde::Deserialize;
use serde_json::Value;

use crate::amounts::{Amounts, amounts, effective};
use crate::spec::qos;
use crate::{
    CONFIG_MAPS, PERSISTENT_VOLUME_CLAIMS, PODS, REPLICATION_CONTROLLERS, RESOURCE_QUOTAS, SECRETS, SERVICES,
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

const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

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
        SERVICES => name.starts_with("services."),
        PERSISTENT_VOLUME_CLAIMS => name == "requests.storage" || name.contains(OF_CLASS),
        _ => false,
    }
}

fn is_compute(name: &str) -> bool {
    let bare = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    let known = matches!(bare, "cpu" | "memory" | "ephemeral-storage") || bare.starts_with("hugepages-");
    let extended = name.starts_with("requests.") && bare.contains('/');
    known || extended
}

/// All that an object uses up: `count/<resource>`, and what its kind is counted by besides. A pod that has ended is only counted.
pub fn usage(resource: Resource, object: &Value) -> Amounts {
    let mut used = Amounts::new();
    let one = Quantity::from_units(1);
    used.insert(format!("count/{resource}"), one);
    let is_over = resource == PODS && matches!(path::text(object, "status.phase"), "Failed" | "Succeeded");
    if is_over {
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
            if object["spec"]["allocateLoadBalancerNodePorts"] != false {
                used.insert("services.nodeports".to_owned(), ports);
            }
        }
        _ => {}
    }
}

fn claim(object: &Value, used: &mut Amounts) {
    let class = match path::text(object, "spec.storageClassName") {
        "" => None,
        class => Some(class),
    };
    if let Some(class) = class {
        used.insert(format!("{class}{OF_CLASS}persistentvolumeclaims"), Quantity::from_units(1));
    }
    if let Some(size) = amounts(&object["spec"], "requests").get("storage") {
        used.insert("requests.storage".to_owned(), *size);
        if let Some(class) = class {
            used.insert(format!("{class}{OF_CLASS}requests.storage"), *size);
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
    match_expressions: Vec<Expression>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Expression {
    scope_name: String,
    operator: String,
    values: Vec<String>,
}

impl Scopes {
    /// Is the object one of those that the quota counts? With scopes, only pods are, and claims by their attributes class.
    pub fn match_object(&self, resource: Resource, object: &Value) -> bool {
        if self.scopes.is_empty() && self.scope_selector.match_expressions.is_empty() {
            return true;
        }
        self.scopes.iter().all(|scope| holds(resource, object, scope, "Exists", &[]))
            && self
                .scope_selector
                .match_expressions
                .iter()
                .all(|term| holds(resource, object, &term.scope_name, &term.operator, &term.values))
    }
}

fn holds(resource: Resource, object: &Value, scope: &str, operator: &str, values: &[String]) -> bool {
    match (resource, scope) {
        (PODS, "Terminating") => path::int(object, "spec.activeDeadlineSeconds").is_some(),
        (PODS, "NotTerminating") => path::int(object, "spec.activeDeadlineSeconds").is_none(),
        (PODS, "BestEffort") => is_best_effort(object),
        (PODS, "NotBestEffort") => !is_best_effort(object),
        (PODS, "PriorityClass") => selects(path::text(object, "spec.priorityClassName"), operator, values),
        (PODS, "CrossNamespacePodAffinity") => crosses_namespaces(object),
        (PERSISTENT_VOLUME_CLAIMS, "VolumeAttributesClass") => {
            selects(path::text(object, "spec.volumeAttributesClassName"), operator, values)
        }
        _ => false,
    }
}

fn is_best_effort(pod: &Value) -> bool {
    qos::class(&pod["spec"]) == "BestEffort"
}

fn selects(held: &str, operator: &str, values: &[String]) -> bool {
    let listed = values.iter().any(|value| value == held);
    match operator {
        "In" => !held.is_empty() && listed,
        "NotIn" => !listed,
        "DoesNotExist" => held.is_empty(),
        _ => !held.is_empty(),
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
