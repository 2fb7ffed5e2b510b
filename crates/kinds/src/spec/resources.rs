//! Requests and limits.

use std::collections::BTreeSet;

use schema::{At, Quantity, Violation, names, path};
use serde_json::Value;

use super::check::Found;

const STANDARD: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
/// What an unprefixed name may be besides, in quotas.
const COUNTED: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

/// The quantity of a resource in a list of them.
pub fn amount(list: &Value, resource: &str) -> Option<Quantity> {
    list.get(resource)?.as_str()?.parse().ok()
}

pub fn is_hugepages(resource: &str) -> bool {
    resource.starts_with("hugepages-")
}

fn is_native(resource: &str) -> bool {
    !resource.contains('/')
        || resource.split('/').next().is_some_and(|domain| domain.ends_with("kubernetes.io"))
}

/// `example.com/gpu`: a name of another domain.
pub fn is_extended(resource: &str) -> bool {
    let is_request = resource.starts_with("requests.");
    !is_native(resource) && !is_request && names::qualified_name(&format!("requests.{resource}")).is_empty()
}

fn is_whole(resource: &str) -> bool {
    COUNTED.contains(&resource) || is_extended(resource)
}

pub fn can_overcommit(resource: &str) -> bool {
    is_native(resource) && !is_hugepages(resource)
}

fn is_standard(resource: &str) -> bool {
    let plain = resource.strip_prefix("requests.").or(resource.strip_prefix("limits.")).unwrap_or(resource);
    STANDARD.contains(&plain) || COUNTED.contains(&resource) || is_hugepages(plain) || plain == "storage"
}

/// What is asked of a resource's name.
pub type NameRule = fn(resource: &str, at: At<'_>, found: &mut Found);

/// A resource's name, wherever it stands.
pub fn validate_name(resource: &str, at: At<'_>, found: &mut Found) {
    let wrong = names::qualified_name(resource);
    let is_formed = wrong.is_empty();
    found.extend(Violation::all_invalid(at, resource, wrong));
    if is_formed && !resource.contains('/') && !is_standard(resource) {
        found.push(Violation::invalid(at, resource, "must be a standard resource type or fully qualified"));
    }
}

/// Of a container.
pub fn container_name(resource: &str, at: At<'_>, found: &mut Found) {
    validate_name(resource, at, found);
    if !resource.contains('/') {
        if !STANDARD.contains(&resource) && !is_hugepages(resource) {
            found.push(Violation::invalid(at, resource, "must be a standard resource for containers"));
        }
    } else if !is_native(resource) && !is_extended(resource) {
        found.push(Violation::invalid(at, resource, "doesn't follow extended resource name standard"));
    }
}

/// Of a pod as a whole.
pub fn pod_name(resource: &str, at: At<'_>, found: &mut Found) {
    let before = found.len();
    validate_name(resource, at, found);
    if found.len() == before && !is_of_pods(resource) {
        found.push(Violation::not_supported(at, resource, &["cpu", "hugepages-", "memory"]));
    }
}

/// Whether a pod as a whole may have an amount of it.
pub fn is_of_pods(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory") || is_hugepages(resource)
}

/// An amount of a resource: not negative, whole if the resource is counted.
pub fn validate_amount(resource: &str, amount: Quantity, at: At<'_>, found: &mut Found) {
    if amount.is_negative() {
        found.push(Violation::invalid(at, amount, "must be greater than or equal to 0"));
    }
    if is_whole(resource) && !amount.is_whole() {
        found.push(Violation::invalid(at, amount, "must be an integer"));
    }
}

fn hugepages_fit(resource: &str, amount: Quantity) -> bool {
    let size: Option<Quantity> = resource.strip_prefix("hugepages-").and_then(|size| size.parse().ok());
    size.is_some_and(|size| size.units() > 0 && amount.units() % size.units() == 0)
}

/// `ResourceRequirements`, but for the claims.
pub fn validate(resources: &Value, name: NameRule, at: At<'_>, found: &mut Found) {
    let (limits_at, requests_at) = (at.field("limits"), at.field("requests"));
    let (mut has_hugepages, mut has_base) = (false, false);
    let mut one = |resource: &str, held: Quantity| {
        has_hugepages |= is_hugepages(resource);
        has_base |= resource == "cpu" || resource == "memory";
        is_hugepages(resource) && !hugepages_fit(resource, held)
    };
    let odd = |resource: &str, held: Quantity, at: At<'_>| {
        Violation::invalid(at, held, format!("{held} is not positive integer multiple of {resource}"))
    };
    for (resource, _) in path::members(resources, "limits") {
        let at = limits_at.key(resource);
        name(resource, at, found);
        let Some(held) = amount(&resources["limits"], resource) else { continue };
        validate_amount(resource, held, at, found);
        if one(resource, held) {
            found.push(odd(resource, held, at));
        }
    }
    for (resource, _) in path::members(resources, "requests") {
        let at = requests_at.key(resource);
        name(resource, at, found);
        let Some(request) = amount(&resources["requests"], resource) else { continue };
        validate_amount(resource, request, at, found);
        let limit = resources.get("limits").and_then(|limits| amount(limits, resource));
        match limit {
            Some(limit) if request != limit && !can_overcommit(resource) => {
                let detail = format!("must be equal to {resource} limit of {limit}");
                found.push(Violation::invalid(requests_at, request, detail));
            }
            Some(limit) if request > limit => {
                let detail = format!("must be less than or equal to {resource} limit of {limit}");
                found.push(Violation::invalid(requests_at, request, detail));
            }
            None if !can_overcommit(resource) => {
                let detail = "Limit must be set for non overcommitable resources";
                found.push(Violation::required(limits_at, detail));
            }
            _ => {}
        }
        if one(resource, request) {
            found.push(odd(resource, request, at));
        }
    }
    if has_hugepages && !has_base {
        found.push(Violation::forbidden(at, "HugePages require cpu or memory"));
    }
}

/// What a pod's containers come to together, of its `limits` or `requests`: those that run at once added, and init containers that need
/// more than them while they run. None of them names it: None.
pub fn aggregate(spec: &Value, list: &str, resource: &str) -> Option<Quantity> {
    let held = |container: &Value| amount(container["resources"].get(list)?, resource);
    let regular: Vec<Quantity> = path::list(spec, "containers").iter().filter_map(held).collect();
    let mut is_named = !regular.is_empty();
    let (mut beside, mut most) = (Quantity::ZERO, Quantity::ZERO);
    for container in path::list(spec, "initContainers") {
        let own = held(container);
        is_named |= own.is_some();
        let sum = beside + own.unwrap_or(Quantity::ZERO);
        if path::text(container, "restartPolicy") == "Always" {
            beside = sum;
        }
        most = most.max(sum);
    }
    is_named.then(|| most.max(beside + regular.into_iter().sum::<Quantity>()))
}

/// Every resource that a container of a pod names in its `limits` or `requests`, sorted.
pub fn named<'a>(spec: &'a Value, list: &str) -> BTreeSet<&'a str> {
    let containers = path::list(spec, "containers").iter().chain(path::list(spec, "initContainers"));
    let lists = containers.filter_map(|one| one["resources"].get(list)?.as_object());
    lists.flat_map(|list| list.keys().map(String::as_str)).collect()
}

/// What is limited and not requested is requested as much as it is limited.
pub fn default_requests(container: &mut Value) {
    let Some(limits) = path::get(container, "resources.limits").and_then(Value::as_object) else {
        return;
    };
    let requests = path::get(container, "resources.requests");
    let is_asked = |resource: &String| requests.and_then(|list| list.get(resource)).is_some();
    let missing: Vec<(String, Value)> = limits
        .iter()
        .filter(|(resource, _)| !is_asked(resource))
        .map(|(resource, limit)| (resource.clone(), limit.clone()))
        .collect();
    for (resource, limit) in missing {
        container["resources"]["requests"][resource.as_str()] = limit;
    }
}
