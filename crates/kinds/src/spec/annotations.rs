//! Annotations that say of a pod what fields say now.

use schema::{At, Violation, path};
use serde_json::{Value, json};

use super::check::{Found, relative_path};
use super::pod_spec::each;
use super::security_context;

pub const MIRROR: &str = "kubernetes.io/config.mirror";
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
pub const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";
const LOCAL: &str = "localhost/";
const RUNTIME: &str = "runtime/default";

/// What annotations of a pod or of a template must be. `pod` has `metadata` and `spec`.
pub fn validate(pod: &Value, at: At<'_>, found: &mut Found) {
    let spec = &pod["spec"];
    let all = || {
        let members = path::members(pod, "metadata.annotations");
        members.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
    };
    for (key, value) in all() {
        if key == MIRROR && path::text(spec, "nodeName").is_empty() {
            let detail = "must set spec.nodeName if mirror pod annotation is set";
            found.push(Violation::invalid(at.key(key), value, detail));
        }
    }
    for (key, value) in all().filter(|(key, cost)| *key == DELETION_COST && !is_cost(cost)) {
        found.push(Violation::invalid(at.key(key), value, "must be a 32bit integer"));
    }
    for (key, value) in all().filter(|(key, _)| *key == SECCOMP_POD || key.starts_with(SECCOMP)) {
        seccomp(value, at.field(key), found);
    }
    for (key, value) in all() {
        let Some(container) = key.strip_prefix(APPARMOR) else { continue };
        if !each(spec).any(|(_, _, one)| path::text(one, "name") == container) {
            found.push(Violation::invalid(at.key(key), container, "container not found"));
        }
        if !matches!(value, "" | RUNTIME | "unconfined") && !value.starts_with(LOCAL) {
            let detail = format!("invalid AppArmor profile name: {value:?}");
            found.push(Violation::invalid(at.key(key), value, detail));
        }
    }
}

/// Digits as Go reads them, but for a plus and leading zeros.
fn is_cost(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = text == "0" || !digits.starts_with(['0', '+']);
    is_plain && text.parse::<i32>().is_ok()
}

fn seccomp(profile: &str, at: At<'_>, found: &mut Found) {
    match profile.strip_prefix(LOCAL) {
        Some(local) => relative_path(local, at, found),
        None if matches!(profile, RUNTIME | "docker/default" | "unconfined") => {}
        None => found.push(Violation::invalid(at, profile, "must be a valid seccomp profile")),
    }
}

/// Where an annotation and a field both say something, they say the same.
pub fn match_fields(pod: &Value, at: At<'_>, found: &mut Found) {
    let spec = &pod["spec"];
    let annotation = |key: &str| path::get(pod, "metadata.annotations")?.get(key)?.as_str();
    let default_seccomp = [RUNTIME, "docker/default"];
    let of_pod = path::get(spec, "securityContext.seccompProfile");
    if let (Some(said), Some(field)) = (annotation(SECCOMP_POD), of_pod) {
        let at = at.field("securityContext.seccompProfile");
        matches(said, field, "seccomp", &default_seccomp, at, found);
    }
    for (list, index, container) in each(spec) {
        let key = format!("{SECCOMP}{}", path::text(container, "name"));
        let field = path::get(container, "securityContext.seccompProfile");
        if let (Some(said), Some(field)) = (annotation(&key), field) {
            let at = at.field(list);
            let at = at.index(index);
            matches(
                said,
                field,
                "seccomp",
                &default_seccomp,
                at.field("securityContext.seccompProfile"),
                found,
            );
        }
    }
    if path::text(spec, "os.name") == "windows" {
        return;
    }
    let of_pod = path::get(spec, "securityContext.appArmorProfile");
    for (list, index, container) in each(spec) {
        let key = format!("{APPARMOR}{}", path::text(container, "name"));
        let field = path::get(container, "securityContext.appArmorProfile").or(of_pod);
        if let (Some(said), Some(field)) = (annotation(&key), field) {
            let at = at.field(list);
            let at = at.index(index);
            matches(said, field, "apparmor", &[RUNTIME], at.field("securityContext.appArmorProfile"), found);
        }
    }
}

fn matches(said: &str, field: &Value, what: &str, defaults: &[&str], at: At<'_>, found: &mut Found) {
    let is_same = match path::text(field, "type") {
        "Unconfined" => said == "unconfined",
        "RuntimeDefault" => defaults.contains(&said),
        "Localhost" => match said.strip_prefix(LOCAL) {
            None => false,
            Some(local) if field.get("localhostProfile").and_then(Value::as_str) == Some(local) => true,
            Some(_) => {
                let detail = format!("{what} profile in annotation and field must match");
                found.push(Violation::forbidden(at.field("localhostProfile"), detail));
                return;
            }
        },
        _ => true,
    };
    if !is_same {
        let detail = format!("{what} type in annotation and field must match");
        found.push(Violation::forbidden(at.field("type"), detail));
    }
}

/// What an annotation says of the AppArmor profile of a container that no field gives one: the profile, or none that a field could say.
/// None: there is no such annotation, or there is a field.
pub fn apparmor_of(pod: &Value, container: &Value) -> Option<Option<Value>> {
    if path::get(container, "securityContext.appArmorProfile").is_some() {
        return None;
    }
    let key = format!("{APPARMOR}{}", path::text(container, "name"));
    Some(apparmor_profile(pod["metadata"]["annotations"].get(&key)?.as_str()?))
}

/// What is told of such an annotation. `base` is empty for a pod and `spec.template.` for a template.
pub fn apparmor_warning(base: &str, container: &str) -> String {
    let told = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
    format!("{base}metadata.annotations[{APPARMOR}{container}]: {told}")
}

/// What is told of a new pod, as its client gave it, before [`take_apparmor`] makes fields of its annotations.
pub fn apparmor_remarks(pod: &Value) -> Vec<String> {
    if path::text(pod, "spec.os.name") == "windows" {
        return Vec::new();
    }
    let of_pod = path::get(pod, "spec.securityContext.appArmorProfile");
    let containers = LISTS.iter().flat_map(|list| path::list(&pod["spec"], list));
    let told = containers.filter(|container| {
        apparmor_of(pod, container).is_some_and(|profile| profile.is_none() || profile.as_ref() != of_pod)
    });
    told.map(|container| apparmor_warning("", path::text(container, "name"))).collect()
}

/// The AppArmor profile that an annotation means; None: it means none that a field could say.
fn apparmor_profile(annotation: &str) -> Option<Value> {
    let profile = match annotation.strip_prefix(LOCAL) {
        Some(local) => json!({"type": "Localhost", "localhostProfile": local}),
        None if annotation == "unconfined" => json!({"type": "Unconfined"}),
        None if annotation == RUNTIME => json!({"type": "RuntimeDefault"}),
        None => return None,
    };
    let mut wrong = Vec::new();
    security_context::apparmor(&profile, At::root(""), &mut wrong);
    wrong.is_empty().then_some(profile)
}

/// Containers that an annotation gives a profile, and no field, have the field from now on.
pub fn take_apparmor(pod: &mut Value) {
    if path::text(pod, "spec.os.name") == "windows" {
        return;
    }
    let of_pod = path::get(pod, "spec.securityContext.appArmorProfile").cloned();
    let annotated = |list: &str| -> Vec<Option<Value>> {
        path::list(&pod["spec"], list).iter().map(|one| apparmor_of(pod, one).flatten()).collect()
    };
    for (list, profiles) in LISTS.map(|list| (list, annotated(list))) {
        let Some(Value::Array(containers)) = pod["spec"].get_mut(list) else { continue };
        for (container, profile) in containers.iter_mut().zip(profiles) {
            if let Some(profile) = profile.filter(|profile| Some(profile) != of_pod.as_ref()) {
                path::set(container, "securityContext.appArmorProfile", profile);
            }
        }
    }
}
