//! Requests and limits.

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

fn can_overcommit(resource: &str) -> bool {
    is_native(resource) && !is_hugepages(resource)
}

fn is_standard(resource: &str) -> bool {
    let plain = resource.strip_prefix("requests.").or(resource.strip_prefix("limits.")).unwrap_or(resource);
    STANDARD.contains(&plain) || COUNTED.contains(&resource) || is_hugepages(plain) || plain == "storage"
}

/// A resource's name, wherever it stands.
pub fn validate_name(resource: &str, at: At<'_>, found: &mut Found) {
    let wrong = names::qualified_name(resource);
    let is_formed = wrong.is_empty();
    found.extend(Violation::all_invalid(at, resource, wrong));
    if is_formed && !resource.contains('/') && !is_standard(resource) {
        found.push(Violation::invalid(at, resource, "must be a standard resource type or fully qualified"));
    }
}

fn validate_container_name(resource: &str, at: At<'_>, found: &mut Found) {
    validate_name(resource, at, found);
    if !resource.contains('/') {
        if !STANDARD.contains(&resource) && !is_hugepages(resource) {
            found.push(Violation::invalid(at, resource, "must be a standard resource for containers"));
        }
    } else if !is_native(resource) && !is_extended(resource) {
        found.push(Violation::invalid(at, resource, "doesn't follow extended resource name standard"));
    }
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

/// `ResourceRequirements` of a container.
pub fn validate(resources: &Value, at: At<'_>, found: &mut Found) {
    let (empty, limits_at, requests_at) = (Value::Null, at.field("limits"), at.field("requests"));
    let limits = resources.get("limits").unwrap_or(&empty);
    let requests = resources.get("requests").unwrap_or(&empty);
    let (mut has_hugepages, mut has_base) = (false, false);
    for (list, at) in [(limits, limits_at), (requests, requests_at)] {
        for (resource, _) in list.as_object().into_iter().flatten() {
            let at = at.key(resource);
            validate_container_name(resource, at, found);
            let Some(held) = amount(list, resource) else { continue };
            validate_amount(resource, held, at, found);
            has_base |= resource == "cpu" || resource == "memory";
            if is_hugepages(resource) {
                has_hugepages = true;
                if !hugepages_fit(resource, held) {
                    let detail = format!("{held} is not positive integer multiple of {resource}");
                    found.push(Violation::invalid(at, held, detail));
                }
            }
        }
    }
    for (resource, _) in requests.as_object().into_iter().flatten() {
        let Some(request) = amount(requests, resource) else { continue };
        match amount(limits, resource) {
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
    }
    if has_hugepages && !has_base {
        found.push(Violation::forbidden(at, "HugePages require cpu or memory"));
    }
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
