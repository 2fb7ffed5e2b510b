//! How much of which resource an object uses up.

use object::Resource;
use schema::{Quantity, path};
use serde_json::Value;

use crate::pod::{self, Amounts};

/// Kinds that are counted under their plain name too, besides `count/<resource>`.
const COUNTED: [Resource; 7] = [
    kinds::CONFIG_MAPS,
    kinds::PERSISTENT_VOLUME_CLAIMS,
    kinds::PODS,
    kinds::REPLICATION_CONTROLLERS,
    kinds::RESOURCE_QUOTAS,
    kinds::SECRETS,
    kinds::SERVICES,
];

const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

/// Could an object of this resource use up what the quota limits under this name?
pub(super) fn concerns(resource: Resource, name: &str) -> bool {
    if name.strip_prefix("count/").is_some_and(|counted| counted == resource.as_str()) {
        return true;
    }
    if COUNTED.contains(&resource) && name == resource.as_str() {
        return true;
    }
    match resource {
        kinds::PODS => is_compute(name),
        kinds::SERVICES => name.starts_with("services."),
        kinds::PERSISTENT_VOLUME_CLAIMS => name == "requests.storage" || name.contains(OF_CLASS),
        _ => false,
    }
}

fn is_compute(name: &str) -> bool {
    let bare = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    let known = matches!(bare, "cpu" | "memory" | "ephemeral-storage") || bare.starts_with("hugepages-");
    let extended = name.starts_with("requests.") && bare.contains('/');
    known || extended
}

pub(super) fn of(resource: Resource, object: &Value) -> Amounts {
    let mut used = Amounts::new();
    let one = Quantity::from_units(1);
    used.insert(format!("count/{resource}"), one);
    let is_over =
        resource == kinds::PODS && matches!(path::text(object, "status.phase"), "Failed" | "Succeeded");
    if is_over {
        return used;
    }
    if COUNTED.contains(&resource) {
        used.insert(resource.as_str().to_owned(), one);
    }
    match resource {
        kinds::PODS => {
            used.extend(compute(&pod::effective(object, "requests"), &pod::effective(object, "limits")));
        }
        kinds::SERVICES => service(object, &mut used),
        kinds::PERSISTENT_VOLUME_CLAIMS => claim(object, &mut used),
        _ => {}
    }
    used
}

/// Requests under their own name and with `requests.`, limits with `limits.`, extended resources with `requests.` only.
pub(super) fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
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
    if let Some(size) = pod::amounts(&object["spec"], "requests").get("storage") {
        used.insert("requests.storage".to_owned(), *size);
        if let Some(class) = class {
            used.insert(format!("{class}{OF_CLASS}requests.storage"), *size);
        }
    }
}
