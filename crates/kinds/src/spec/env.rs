//! Environment variables, and references to fields and resources.

use schema::{At, Quantity, Violation, names, path};
use serde_json::Value;

use super::check::{Found, follows, required, required_name};

const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// What a key may be asked of, or the whole of it in a volume.
const MAPS: [&str; 2] = ["metadata.annotations", "metadata.labels"];
/// What upstream knows as a field and does not give away.
const KNOWN: [&str; 4] = [OLD_NODE_NAME, "spec.restartPolicy", "spec.schedulerName", "status.phase"];
/// Of clients of old, who mean `spec.nodeName`.
const OLD_NODE_NAME: &str = "spec.host";
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const SOURCES: [&str; 5] = ["configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef", "secretKeyRef"];
const CPU_DIVISORS: [&str; 2] = ["1", "1m"];
const BYTE_DIVISORS: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// `env` and `envFrom` of a container.
pub fn validate(container: &Value, at: At<'_>, found: &mut Found) {
    for (index, variable) in path::list(container, "env").iter().enumerate() {
        let at = at.field("env");
        let at = at.index(index);
        required_name(variable, "name", names::env_name, at, found);
        if let Some(source) = variable.get("valueFrom") {
            value_from(variable, source, at.field("valueFrom"), found);
        }
    }
    for (index, source) in path::list(container, "envFrom").iter().enumerate() {
        env_from(source, at.field("envFrom"), index, found);
    }
}

fn value_from(variable: &Value, source: &Value, at: At<'_>, found: &mut Found) {
    if let Some(field) = source.get("fieldRef") {
        field_ref(field, &FIELDS, at.field("fieldRef"), found);
    }
    if let Some(resource) = source.get("resourceFieldRef") {
        resource_field_ref(resource, false, at.field("resourceFieldRef"), found);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        if let Some(selector) = source.get(name) {
            let at = at.field(name);
            let name = path::text(selector, "name");
            found.extend(Violation::all_invalid(at.field("name"), name, names::dns_subdomain(name)));
            required_name(selector, "key", names::config_key, at, found);
        }
    }
    if let Some(file) = source.get("fileKeyRef") {
        let at = at.field("fileKeyRef");
        required_name(file, "key", names::env_name, at, found);
        required_name(file, "volumeName", names::dns_label, at, found);
        required(file, "path", at, found);
        super::check::no_backsteps(path::text(file, "path"), at.field("path"), found);
    }
    let count = SOURCES.iter().filter(|one| source.get(**one).is_some()).count();
    if count == 0 {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        found.push(Violation::invalid(at, "", detail));
    } else if !path::text(variable, "value").is_empty() {
        found.push(Violation::invalid(at, "", "may not be specified when `value` is not empty"));
    } else if count > 1 {
        found.push(Violation::invalid(at, "", "may not have more than one field specified at a time"));
    }
}

/// A path of a pod's fields; those that may be asked for are `supported`, besides single labels and annotations.
pub fn field_ref(field: &Value, supported: &[&str], at: At<'_>, found: &mut Found) {
    if !required(field, "apiVersion", at, found) || !required(field, "fieldPath", at, found) {
        return;
    }
    let (version, text) = (path::text(field, "apiVersion"), path::text(field, "fieldPath"));
    let at_path = at.field("fieldPath");
    let wrong = match subscript(text) {
        _ if version != "v1" => Some(format!("unsupported pod version: {version}")),
        Some((map, _)) if !MAPS.contains(&map) => {
            Some(format!("field label does not support subscript: {text}"))
        }
        None if ![&FIELDS[..], &MAPS, &KNOWN].concat().contains(&text) => {
            Some(format!("field label not supported: {text}"))
        }
        _ => None,
    };
    if let Some(wrong) = wrong {
        found.push(Violation::invalid(at_path, text, format!("error converting fieldPath: {wrong}")));
        return;
    }
    match subscript(text) {
        Some((map, key)) => {
            let key = if map == "metadata.annotations" { key.to_ascii_lowercase() } else { key.to_owned() };
            found.extend(Violation::all_invalid(at, key.as_str(), names::qualified_name(&key)));
        }
        None => {
            let text = if text == OLD_NODE_NAME { "spec.nodeName" } else { text };
            if !supported.contains(&text) {
                found.push(Violation::not_supported(at_path, text, supported));
            }
        }
    }
}

/// `metadata.labels['a']` → (`metadata.labels`, `a`)
fn subscript(text: &str) -> Option<(&str, &str)> {
    text.strip_suffix("']")?.split_once("['").filter(|(map, _)| !map.is_empty())
}

/// A resource of a container; a volume must name the container.
pub fn resource_field_ref(reference: &Value, is_volume: bool, at: At<'_>, found: &mut Found) {
    let resource = path::text(reference, "resource");
    let kind = resource.split_once('.').map_or("", |(_, kind)| kind);
    if is_volume && path::text(reference, "containerName").is_empty() {
        found.push(Violation::required(at.field("containerName"), ""));
    } else if resource.is_empty() {
        found.push(Violation::required(at.field("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !super::resources::is_hugepages(kind) {
        found.push(Violation::not_supported(at.field("resource"), resource, &RESOURCES));
    }
    let Some(divisor) =
        path::text(reference, "divisor").parse::<Quantity>().ok().filter(|one| !one.is_zero())
    else {
        return;
    };
    let divisor = divisor.to_string();
    let (allowed, words): (&[&str], _) = match kind {
        "cpu" => (&CPU_DIVISORS, "only divisor's values 1m and 1 are supported with the cpu resource"),
        "memory" => (
            &BYTE_DIVISORS,
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource",
        ),
        "ephemeral-storage" => (
            &BYTE_DIVISORS,
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the local ephemeral storage resource",
        ),
        _ if !super::resources::is_hugepages(kind) => return,
        _ => (
            &BYTE_DIVISORS,
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the hugepages resource",
        ),
    };
    if !allowed.contains(&divisor.as_str()) {
        found.push(Violation::invalid(at.field("divisor"), resource, words));
    }
}

fn env_from(source: &Value, list: At<'_>, index: usize, found: &mut Found) {
    let at = list.index(index);
    follows(source, "prefix", names::env_name, at, found);
    let mut count = 0;
    for name in ["configMapRef", "secretRef"] {
        if let Some(reference) = source.get(name) {
            count += 1;
            required_name(reference, "name", names::dns_subdomain, at.field(name), found);
        }
    }
    match count {
        1 => {}
        0 => found.push(Violation::invalid(list, "", "must specify one of: `configMapRef` or `secretRef`")),
        _ => found.push(Violation::invalid(list, "", "may not have more than one field specified at a time")),
    }
}
