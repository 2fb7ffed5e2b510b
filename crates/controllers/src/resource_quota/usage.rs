//! How much of a quota's resource an object uses.

use kinds::{PERSISTENT_VOLUME_CLAIMS, PODS, SERVICES};
use object::Resource;
use schema::Quantity;
use serde_json::Value;

/// Kinds that a quota may count by their bare name; all others only as `count/<resource>`.
const COUNTED: [&str; 7] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

/// Can an update change what an object uses? Pods end or are resized, Services change their type, claims grow.
pub fn may_change(resource: Resource) -> bool {
    matches!(resource, PODS | SERVICES | PERSISTENT_VOLUME_CLAIMS)
}

/// Does an object of this resource use what the quota calls `name`?
pub fn concerns(resource: Resource, name: &str) -> bool {
    if let Some(counted) = name.strip_prefix("count/") {
        return counted == resource.as_str();
    }
    if COUNTED.contains(&name) {
        return name == resource.as_str();
    }
    match resource {
        PODS => !name.starts_with("services.") && name != "requests.storage" && !name.contains(OF_CLASS),
        SERVICES => name.starts_with("services."),
        PERSISTENT_VOLUME_CLAIMS => name == "requests.storage" || name.contains(OF_CLASS),
        _ => false,
    }
}

pub fn of(resource: Resource, object: &Value, name: &str) -> Option<Quantity> {
    let one = Quantity::from_units(1);
    if name.starts_with("count/") {
        return Some(one);
    }
    match resource {
        PODS if is_over(object) => None,
        PODS if name != "pods" => pod(object, name),
        SERVICES if name != "services" => service(object, name),
        PERSISTENT_VOLUME_CLAIMS if name != "persistentvolumeclaims" => claim(object, name),
        _ => Some(one),
    }
}

fn text<'v>(value: &'v Value, at: &str) -> &'v str {
    value.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

/// Ended, or on its way out past its grace: it uses nothing any more.
fn is_over(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Failed" | "Succeeded")
}

/// `cpu` means `requests.cpu`, and so on.
fn pod(pod: &Value, name: &str) -> Option<Quantity> {
    let (side, resource) = match name.split_once('.') {
        Some(("limits", resource)) => ("limits", resource),
        Some(("requests", resource)) => ("requests", resource),
        _ => ("requests", name),
    };
    effective(pod, side, resource)
}

/// What a pod needs at most at any time: its containers and sidecars together, or an init container beside the sidecars before it.
/// <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers>
fn effective(pod: &Value, side: &str, resource: &str) -> Option<Quantity> {
    let of = |holder: &Value| amount(holder.pointer("/resources")?.get(side)?.get(resource)?);
    if let Some(whole) = pod.get("spec").and_then(of) {
        return Some(whole);
    }
    let list = |field: &str| pod.pointer(field).and_then(Value::as_array).into_iter().flatten();
    let mut sidecars: Option<Quantity> = None;
    let mut peak: Option<Quantity> = None;
    for container in list("/spec/initContainers") {
        let Some(own) = of(container) else { continue };
        if container["restartPolicy"] == "Always" {
            sidecars = Some(sidecars.unwrap_or_default() + own);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(Some(sidecars.unwrap_or_default() + own));
        }
    }
    let running = list("/spec/containers")
        .filter_map(of)
        .fold(sidecars, |sum, own| Some(sum.unwrap_or_default() + own));
    let overhead = pod.pointer("/spec/overhead").and_then(|overhead| amount(overhead.get(resource)?));
    let total = running.max(peak)?;
    Some(total + overhead.unwrap_or_default())
}

fn amount(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

fn service(service: &Value, name: &str) -> Option<Quantity> {
    let kind = text(service, "/spec/type");
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).map_or(0, Vec::len);
    let has_node_ports = kind == "NodePort"
        || kind == "LoadBalancer"
            && service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&false.into());
    match name {
        "services.loadbalancers" => (kind == "LoadBalancer").then(|| Quantity::from_units(1)),
        "services.nodeports" => {
            has_node_ports.then(|| Quantity::from_units(i64::try_from(ports).unwrap_or(0)))
        }
        _ => None,
    }
}

/// `requests.storage`, `<class>.storageclass.storage.k8s.io/requests.storage`, `<class>….k8s.io/persistentvolumeclaims`
fn claim(claim: &Value, name: &str) -> Option<Quantity> {
    let storage = || amount(claim.pointer("/spec/resources/requests/storage")?);
    match name.split_once(OF_CLASS) {
        None => storage(),
        Some((class, _)) if class != text(claim, "/spec/storageClassName") => None,
        Some((_, "persistentvolumeclaims")) => Some(Quantity::from_units(1)),
        Some(_) => storage(),
    }
}

/// <https://kubernetes.io/docs/concepts/policy/resource-quotas/#quota-scopes>
pub fn matches_scope(
    resource: Resource,
    object: &Value,
    scope: &str,
    operator: &str,
    values: &[String],
) -> bool {
    let in_values = |value: &str| match operator {
        "In" => values.iter().any(|one| one == value),
        "NotIn" => !values.iter().any(|one| one == value),
        "DoesNotExist" => value.is_empty(),
        _ => !value.is_empty(),
    };
    if resource == PERSISTENT_VOLUME_CLAIMS && scope == "VolumeAttributesClass" {
        return in_values(text(object, "/spec/volumeAttributesClassName"));
    }
    if resource != PODS {
        return false;
    }
    let ends = object.pointer("/spec/activeDeadlineSeconds").is_some_and(|seconds| !seconds.is_null());
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => is_best_effort(object),
        "NotBestEffort" => !is_best_effort(object),
        "PriorityClass" => in_values(text(object, "/spec/priorityClassName")),
        "CrossNamespacePodAffinity" => crosses_namespaces(object),
        _ => false,
    }
}

fn is_best_effort(pod: &Value) -> bool {
    ["requests", "limits"]
        .iter()
        .all(|side| ["cpu", "memory"].iter().all(|name| effective(pod, side, name).is_none()))
}

fn crosses_namespaces(pod: &Value) -> bool {
    let reaches_out = |term: &Value| {
        let names = term.get("namespaces").and_then(Value::as_array).is_some_and(|names| !names.is_empty());
        names || term.get("namespaceSelector").is_some_and(|selector| !selector.is_null())
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|side| {
        let list = |field: &str| {
            pod.pointer(&format!("/spec/affinity/{side}/{field}"))
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default()
        };
        let required = list("requiredDuringSchedulingIgnoredDuringExecution");
        let preferred = list("preferredDuringSchedulingIgnoredDuringExecution");
        required.iter().any(reaches_out)
            || preferred.iter().filter_map(|weighted| weighted.get("podAffinityTerm")).any(reaches_out)
    })
}
