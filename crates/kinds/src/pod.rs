use object::Resource;
use schema::{At, Kind, Strategy, Subresource, Violation, metadata, path};
use serde_json::{Value, json};

use crate::spec::{annotations, container, pod_spec, qos, resources, warnings};
use crate::{pod_columns, pod_resize, pod_status, pod_update, row, strategy, subresource};

pub const PODS: Resource = Resource::new("pods");

pub static KIND: Kind = Kind {
    resource: PODS,
    group: "",
    version: "v1",
    kind: "Pod",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    subresources: &[
        Subresource { name: "attach", gvk: Some(("", "v1", "PodAttachOptions")), verbs: &["create", "get"] },
        Subresource { name: "binding", gvk: Some(("", "v1", "Binding")), verbs: &["create"] },
        Subresource { name: "ephemeralcontainers", gvk: None, verbs: &["get", "patch", "update"] },
        Subresource { name: "eviction", gvk: Some(("policy", "v1", "Eviction")), verbs: &["create"] },
        Subresource { name: "exec", gvk: Some(("", "v1", "PodExecOptions")), verbs: &["create", "get"] },
        Subresource { name: "log", gvk: None, verbs: &["get"] },
        Subresource {
            name: "portforward",
            gvk: Some(("", "v1", "PodPortForwardOptions")),
            verbs: &["create", "get"],
        },
        Subresource {
            name: "proxy",
            gvk: Some(("", "v1", "PodProxyOptions")),
            verbs: subresource::PROXY_VERBS,
        },
        Subresource { name: "resize", gvk: None, verbs: &["get", "patch", "update"] },
        subresource::STATUS,
    ],
    type_name: "core.v1.Pod",
    columns: pod_columns::COLUMNS,
    selectable: &[
        "spec.nodeName",
        "spec.hostNetwork",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.nominatedNodeName",
        "status.phase",
        "status.podIP",
    ],
    selected: |pod, path| if path == "spec.hostNetwork" { row::absent_is("false", pod, path) } else { None },
    strategy: Strategy { grace_seconds: Some(grace_seconds), prepare, ..strategy::SPEC_AND_STATUS },
    default,
    validate,
    validate_part,
    remark: |new, old| if old.is_none() { annotations::apparmor_remarks(new) } else { Vec::new() },
    warn,
    ..row::BASE
};

/// An update of a pod is not worth a look: it is rarely a person who makes it.
fn warn(new: &Value, old: Option<&Value>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let mut found: Vec<String> = warnings::of_name(new, "the Pod's hostname").into_iter().collect();
    found.extend(warnings::of_pod(new, ""));
    found
}

fn validate_part(part: &str, new: &Value, old: &Value) -> Vec<Violation> {
    match part {
        "ephemeralcontainers" => pod_update::ephemeral_containers(new, old),
        "resize" => pod_resize::validate(new, old),
        _ => Vec::new(),
    }
}

fn grace_seconds(pod: &Value) -> i64 {
    let is_over = matches!(path::text(pod, "status.phase"), "Failed" | "Succeeded");
    if is_over || path::text(pod, "spec.nodeName").is_empty() {
        return 0;
    }
    path::int(pod, "spec.terminationGracePeriodSeconds").unwrap_or_default()
}

fn default(pod: &mut Value) {
    if let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) {
        pod_spec::default(spec);
        path::set_default(spec, "enableServiceLinks", true);
        if path::int(spec, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
            spec["terminationGracePeriodSeconds"] = 1.into();
        }
        let host_network = path::bool(spec, "hostNetwork");
        for list in ["containers", "initContainers"] {
            if let Some(Value::Array(containers)) = spec.get_mut(list) {
                for container in containers {
                    resources::default_requests(container);
                    if host_network {
                        host_ports(container);
                    }
                }
            }
        }
        pod_resources(spec);
    }
    addresses(pod);
}

/// On the host's network a port is the host's port.
fn host_ports(container: &mut Value) {
    if let Some(Value::Array(ports)) = container.get_mut("ports") {
        for port in ports.iter_mut().filter(|port| path::int(port, "hostPort").unwrap_or_default() == 0) {
            port["hostPort"] = port["containerPort"].clone();
        }
    }
}

/// A pod with resources of its own has the huge pages of its containers, and requests what they do or else as much as it may use.
fn pod_resources(spec: &mut Value) {
    let has_any = |list: &str, spec: &Value| path::members(&spec["resources"], list).next().is_some();
    if !has_any("limits", spec) && !has_any("requests", spec) {
        return;
    }
    let own = |spec: &Value, list: &str, resource: &str| {
        spec["resources"].get(list).is_some_and(|list| list.get(resource).is_some())
    };
    let mut added: Vec<(String, Value)> = Vec::new();
    for resource in resources::named(spec, "limits").into_iter().filter(|one| resources::is_hugepages(one)) {
        if let Some(limit) = resources::aggregate(spec, "limits", resource)
            && !own(spec, "limits", resource)
        {
            added.push((resource.to_owned(), limit.to_string().into()));
        }
    }
    for (resource, limit) in added.drain(..) {
        spec["resources"]["limits"][resource] = limit;
    }
    if !has_any("limits", spec) {
        return;
    }
    for resource in resources::named(spec, "requests") {
        if let Some(asked) = resources::aggregate(spec, "requests", resource)
            && resources::is_of_pods(resource)
            && resources::can_overcommit(resource)
            && !own(spec, "requests", resource)
        {
            added.push((resource.to_owned(), asked.to_string().into()));
        }
    }
    for (resource, limit) in path::members(spec, "resources.limits") {
        let is_asked = own(spec, "requests", resource) || added.iter().any(|(one, _)| one == resource);
        if resources::is_of_pods(resource) && !is_asked {
            added.push((resource.clone(), limit.clone()));
        }
    }
    for (resource, request) in added {
        spec["resources"]["requests"][resource] = request;
    }
}

/// `podIP` is the first of `podIPs`.
fn addresses(pod: &mut Value) {
    let Some(status) = pod.get_mut("status") else { return };
    let first =
        path::list(status, "podIPs").first().map(|one| path::text(one, "ip").to_owned()).unwrap_or_default();
    let own = path::text(status, "podIP").to_owned();
    if !own.is_empty() && own != first {
        status["podIPs"] = json!([{"ip": own}]);
    } else if own.is_empty() && !first.is_empty() {
        status["podIP"] = first.into();
    }
}

fn prepare(pod: &mut Value, old: Option<&Value>) {
    if old.is_some() {
        return;
    }
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let mut status = json!({"phase": "Pending", "qosClass": qos::class(spec)});
    if !path::list(spec, "schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "lastTransitionTime": pod["metadata"]["creationTimestamp"],
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
        if let Some(now) = path::get(pod, "metadata.creationTimestamp") {
            status["conditions"][0]["lastTransitionTime"] = now.clone();
        }
    }
    pod["status"] = status;
    match_label_keys(pod);
    annotations::take_apparmor(pod);
    // Admission may have named an account since.
    if let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) {
        pod_spec::mirror_service_account(spec);
    }
}

/// The labels that a term names by key alone are looked up in the pod once and for all.
fn match_label_keys(pod: &mut Value) {
    let labels = path::get(pod, "metadata.labels").cloned().unwrap_or_default();
    let Some(spec) = pod.get_mut("spec") else { return };
    if let Some(Value::Array(constraints)) = spec.get_mut("topologySpreadConstraints") {
        constraints.iter_mut().for_each(|one| add_expressions(one, &labels));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = path::get_mut(spec, "affinity").and_then(|affinity| affinity.get_mut(kind))
        else {
            continue;
        };
        if let Some(Value::Array(terms)) = affinity.get_mut("requiredDuringSchedulingIgnoredDuringExecution")
        {
            terms.iter_mut().for_each(|term| add_expressions(term, &labels));
        }
        if let Some(Value::Array(terms)) = affinity.get_mut("preferredDuringSchedulingIgnoredDuringExecution")
        {
            terms
                .iter_mut()
                .filter_map(|one| one.get_mut("podAffinityTerm"))
                .for_each(|term| add_expressions(term, &labels));
        }
    }
}

fn add_expressions(term: &mut Value, labels: &Value) {
    if !term.get("labelSelector").is_some_and(Value::is_object) {
        return;
    }
    let mut added = Vec::new();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in path::list(term, field) {
            if let Some(value) = key.as_str().and_then(|key| labels.get(key)) {
                added.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if added.is_empty() {
        return;
    }
    match &mut term["labelSelector"]["matchExpressions"] {
        Value::Array(expressions) => expressions.extend(added),
        other => *other = added.into(),
    }
}

fn validate(pod: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let empty = Value::Null;
    let spec = pod.get("spec").unwrap_or(&empty);
    let at = At::root("spec");
    annotations::validate(pod, At::root("metadata.annotations"), &mut found);
    let name = path::text(pod, "metadata.name");
    pod_spec::validate(spec, &pod_spec::Context { pod_name: name, is_template: false }, at, &mut found);
    tokens_have_accounts(spec, at, &mut found);
    for list in ["containers", "initContainers"] {
        for (index, one) in path::list(spec, list).iter().enumerate() {
            let at = at.field(list);
            container::padded_image(one, at.index(index), &mut found);
        }
    }
    if metadata::is_new(pod, old) {
        if !path::list(spec, "ephemeralContainers").is_empty() {
            found.push(Violation::forbidden(at.field("ephemeralContainers"), "cannot be set on create"));
        }
        if !path::text(spec, "nodeName").is_empty() && !path::list(spec, "schedulingGates").is_empty() {
            let detail = "cannot be set until all schedulingGates have been cleared";
            found.push(Violation::forbidden(at.field("nodeName"), detail));
        }
        annotations::match_fields(pod, at, &mut found);
    }
    if let Some(old) = old {
        pod_update::validate(pod, old, &mut found);
        if pod.get("status") != old.get("status") {
            pod_status::validate(pod, old, &mut found);
        }
    }
    found
}

/// A token is an account's.
fn tokens_have_accounts(spec: &Value, at: At<'_>, found: &mut Vec<Violation>) {
    if !path::text(spec, "serviceAccountName").is_empty() {
        return;
    }
    for (index, volume) in path::list(spec, "volumes").iter().enumerate() {
        for (nth, source) in path::list(volume, "projected.sources").iter().enumerate() {
            if source.get("serviceAccountToken").is_some() {
                let at = at.field("volumes");
                let at = at.index(index);
                let at = at.field("projected.sources");
                let at = at.index(nth);
                let detail = "must not be specified when serviceAccountName is not set";
                found.push(Violation::forbidden(at.field("serviceAccountToken"), detail));
            }
        }
    }
}
