//! Containers of every sort.

use std::collections::{BTreeSet, HashMap, HashSet};

use schema::{At, Violation, names, path};
use serde_json::Value;

use super::check::{
    Found, Seen, always_one_of, between, follows, one_of, relative_path, required, required_name,
    required_one_of,
};
use super::{env, probe, resources, security_context};

const RESTART_RULES_MAX: usize = 20;
const NO_POLICY: &str = "must specify restartPolicy when restart rules are used";
const EXIT_CODES_MAX: usize = 255;

/// What the pod around the containers says that they must fit.
pub struct Surroundings<'a> {
    /// The sound ones of `spec.volumes`, by name.
    pub volumes: HashMap<&'a str, &'a Value>,
    /// The names of `spec.resourceClaims`.
    pub claims: BTreeSet<&'a str>,
    pub host_users: bool,
    pub grace_seconds: i64,
    /// `spec.restartPolicy`
    pub restart_policy: &'a str,
}

/// The fields that an ephemeral container has and may not use, in upstream's order and spelling.
const NOT_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];
const PROBED: [&str; 4] = ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"];

/// `spec.containers`
pub fn validate_regular(containers: &[Value], around: &Surroundings<'_>, list: At<'_>, found: &mut Found) {
    if containers.is_empty() {
        found.push(Violation::required(list, ""));
    }
    let mut taken = Seen::default();
    for (index, container) in containers.iter().enumerate() {
        let at = list.index(index);
        common(container, around, at, found);
        let name = path::text(container, "name");
        if taken.repeats(name) {
            found.push(Violation::duplicate(at.field("name"), name));
        }
        probe::validate(container, around.grace_seconds, at, found);
        restarts(container, at, found);
    }
    host_ports(containers.iter().enumerate(), list, found);
}

/// `spec.initContainers`, some of which go on beside the others.
pub fn validate_init(
    containers: &[Value],
    regular: &[Value],
    around: &Surroundings<'_>,
    list: At<'_>,
    found: &mut Found,
) {
    let mut taken: HashSet<&str> = regular.iter().map(|one| path::text(one, "name")).collect();
    for (index, container) in containers.iter().enumerate() {
        let at = list.index(index);
        common(container, around, at, found);
        if container.get("restartPolicy").is_some() {
            restarts(container, at, found);
        } else if !path::list(container, "restartPolicyRules").is_empty() {
            found.push(Violation::required(at.field("restartPolicy"), NO_POLICY));
        }
        let name = path::text(container, "name");
        if taken.contains(name) {
            found.push(Violation::duplicate(at.field("name"), name));
        } else if !name.is_empty() {
            taken.insert(name);
        }
        // They run one after the other.
        host_ports([(0, container)].into_iter(), list, found);
        if path::text(container, "restartPolicy") == "Always" {
            probe::validate(container, around.grace_seconds, at, found);
            continue;
        }
        for field in PROBED.into_iter().filter(|field| container.get(field).is_some()) {
            let detail = "may not be set for init containers without restartPolicy=Always";
            found.push(Violation::forbidden(at.field(field), detail));
        }
        for (index, policy) in path::list(container, "resizePolicy").iter().enumerate() {
            if path::text(policy, "restartPolicy") == "RestartContainer" {
                let at = at.field("resizePolicy");
                let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                let at = at.index(index);
                found.push(Violation::invalid(at.field("restartPolicy"), "RestartContainer", detail));
            }
        }
    }
}

/// `spec.ephemeralContainers`; `others` are all that are none.
pub fn validate_ephemeral<'a>(
    containers: &'a [Value],
    others: impl Iterator<Item = &'a Value>,
    around: &Surroundings<'_>,
    list: At<'_>,
    found: &mut Found,
) {
    let others: HashSet<&str> = others.map(|one| path::text(one, "name")).collect();
    let mut taken = others.clone();
    for (index, container) in containers.iter().enumerate() {
        let at = list.index(index);
        common(container, around, at, found);
        padded_image(container, at, found);
        let name = path::text(container, "name");
        if !taken.insert(name) {
            found.push(Violation::duplicate(at.field("name"), name));
        }
        let target = path::text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            found.push(Violation::not_found(at.field("targetContainerName"), target));
        }
        not_ephemeral(container, at, found);
    }
}

/// What holds for containers of every sort.
fn common(container: &Value, around: &Surroundings<'_>, at: At<'_>, found: &mut Found) {
    required_name(container, "name", names::dns_label, at, found);
    required(container, "image", at, found);
    required_one_of(container, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"], at, found);
    ports(container, at, found);
    env::validate(container, at, found);
    mounts(container, &around.volumes, at, found);
    devices(container, &around.volumes, at, found);
    required_one_of(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], at, found);
    resources::validate(&container["resources"], resources::container_name, at.field("resources"), found);
    claims(path::list(container, "resources.claims"), &around.claims, at.field("resources.claims"), found);
    resize_policy(container, around.restart_policy, at.field("resizePolicy"), found);
    security_context::container(container, around.host_users, at.field("securityContext"), found);
}

/// A template's image may be padded with white space; a pod's may not.
pub fn padded_image(container: &Value, at: At<'_>, found: &mut Found) {
    let image = path::text(container, "image");
    if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        found.push(Violation::invalid(at.field("image"), image, detail));
    }
}

fn restarts(container: &Value, at: At<'_>, found: &mut Found) {
    let rules = path::list(container, "restartPolicyRules");
    match container.get("restartPolicy") {
        None if rules.is_empty() => return,
        None => {
            found.push(Violation::required(at.field("restartPolicy"), NO_POLICY));
        }
        Some(_) => one_of(container, "restartPolicy", &["Always", "Never", "OnFailure"], at, found),
    }
    let list = at.field("restartPolicyRules");
    if rules.len() > RESTART_RULES_MAX {
        found.push(Violation::too_many(list, rules.len(), RESTART_RULES_MAX));
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = list.index(index);
        always_one_of(rule, "action", &["Restart", "RestartAllContainers"], at, found);
        let Some(codes) = rule.get("exitCodes") else {
            found.push(Violation::required(at.field("exitCodes"), "must be specified"));
            continue;
        };
        let at = at.field("exitCodes");
        always_one_of(codes, "operator", &["In", "NotIn"], at, found);
        let count = path::list(codes, "values").len();
        if count > EXIT_CODES_MAX {
            found.push(Violation::too_many(at.field("values"), count, EXIT_CODES_MAX));
        }
    }
}

fn not_ephemeral(container: &Value, at: At<'_>, found: &mut Found) {
    let is_set = |field: &&&str| match container.get(**field) {
        None => false,
        Some(Value::Object(members)) => !members.is_empty(),
        Some(_) => true,
    };
    for field in NOT_EPHEMERAL.iter().filter(is_set) {
        found.push(Violation::forbidden(at.field(field), "cannot be set for an Ephemeral Container"));
    }
    for (index, mount) in path::list(container, "volumeMounts").iter().enumerate() {
        for field in ["subPath", "subPathExpr"] {
            if !path::text(mount, field).is_empty() {
                let at = at.field("volumeMounts");
                let at = at.index(index);
                found.push(Violation::forbidden(at.field(field), "cannot be set for an Ephemeral Container"));
            }
        }
    }
}

fn ports(container: &Value, at: At<'_>, found: &mut Found) {
    let mut seen = Seen::default();
    for (index, port) in path::list(container, "ports").iter().enumerate() {
        let at = at.field("ports");
        let at = at.index(index);
        let name = path::text(port, "name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if wrong.is_empty() && seen.repeats(name) {
                found.push(Violation::duplicate(at.field("name"), name));
            }
            found.extend(Violation::all_invalid(at.field("name"), name, wrong));
        }
        match path::int(port, "containerPort").unwrap_or_default() {
            0 => found.push(Violation::required(at.field("containerPort"), "")),
            _ => between(port, "containerPort", 1, 65535, at, found),
        }
        if path::int(port, "hostPort").unwrap_or_default() != 0 {
            between(port, "hostPort", 1, 65535, at, found);
        }
        required_one_of(port, "protocol", &["SCTP", "TCP", "UDP"], at, found);
    }
}

/// No two containers that run at once may ask for the same port of the host.
fn host_ports<'a>(containers: impl Iterator<Item = (usize, &'a Value)>, list: At<'_>, found: &mut Found) {
    let mut taken = Seen::default();
    for (index, container) in containers {
        for (port_index, port) in path::list(container, "ports").iter().enumerate() {
            let number = path::int(port, "hostPort").unwrap_or_default();
            if number == 0 {
                continue;
            }
            let place = format!("{}/{}/{number}", path::text(port, "protocol"), path::text(port, "hostIP"));
            if taken.repeats(place.clone()) {
                let at = list.index(index);
                let at = at.field("ports");
                let at = at.index(port_index);
                found.push(Violation::duplicate(at.field("hostPort"), &place));
            }
        }
    }
}

/// On the host's network a port is the host's port. A template may leave it to the pods' defaults.
pub fn same_host_ports(containers: &[Value], is_template: bool, list: At<'_>, found: &mut Found) {
    for (index, container) in containers.iter().enumerate() {
        for (port_index, port) in path::list(container, "ports").iter().enumerate() {
            let number = |field: &str| path::int(port, field).unwrap_or_default();
            let host_port = number("hostPort");
            if host_port != number("containerPort") && !(is_template && host_port == 0) {
                let at = list.index(index);
                let at = at.field("ports");
                let at = at.index(port_index);
                let detail = "must match `containerPort` when `hostNetwork` is true";
                found.push(Violation::invalid(at.field("hostPort"), host_port, detail));
            }
        }
    }
}

/// Claims of the pod that a container uses, whole or one request of each.
pub fn claims(claims: &[Value], known: &BTreeSet<&str>, list: At<'_>, found: &mut Found) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (index, claim) in claims.iter().enumerate() {
        let at = list.index(index);
        let (name, request) = (path::text(claim, "name"), path::text(claim, "request"));
        if name.is_empty() {
            found.push(Violation::required(at, ""));
            continue;
        }
        if seen.contains(name) {
            found.push(Violation::duplicate(at, name));
        } else {
            follows(claim, "request", names::dns_label, at, found);
            let key = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
            if seen.contains(&key) {
                found.push(Violation::duplicate(at, &key));
            } else if request.is_empty() {
                let parts = seen.iter().filter(|one| one.split('/').next() == Some(name)).count();
                found.extend((0..parts).map(|_| Violation::duplicate(at, name)));
            }
            seen.insert(key);
        }
        if !known.contains(name) {
            let mut violation = Violation::not_found(at, name);
            let names: Vec<&str> = known.iter().copied().collect();
            let which =
                if names.is_empty() { " which is empty".into() } else { format!(": {}", names.join(", ")) };
            violation.detail = format!("must be one of the names in pod.spec.resourceClaims{which}");
            found.push(violation);
        }
    }
}

/// Upstream's path does not say which of them is wrong.
fn resize_policy(container: &Value, restart_policy: &str, at: At<'_>, found: &mut Found) {
    const RESOURCES: [&str; 2] = ["cpu", "memory"];
    const POLICIES: [&str; 2] = ["NotRequired", "RestartContainer"];
    let mut seen = Seen::default();
    for (index, policy) in path::list(container, "resizePolicy").iter().enumerate() {
        let (resource, restart) = (path::text(policy, "resourceName"), path::text(policy, "restartPolicy"));
        if seen.repeats(resource) {
            found.push(Violation::duplicate(at.index(index), resource));
        }
        for (text, supported) in [(resource, &RESOURCES), (restart, &POLICIES)] {
            match text {
                "" => found.push(Violation::required(at, "")),
                text if !supported.contains(&text) => {
                    found.push(Violation::not_supported(at, text, supported));
                }
                _ => {}
            }
        }
        if restart_policy == "Never" && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            found.push(Violation::invalid(at, restart, detail));
        }
    }
}

fn mounts(container: &Value, volumes: &HashMap<&str, &Value>, at: At<'_>, found: &mut Found) {
    let mounts = path::list(container, "volumeMounts");
    let devices = path::list(container, "volumeDevices");
    let device_names: HashSet<&str> = devices.iter().map(|one| path::text(one, "name")).collect();
    let device_paths: HashSet<&str> = devices.iter().map(|one| path::text(one, "devicePath")).collect();
    let is_privileged = path::bool(container, "securityContext.privileged");
    let list = at.field("volumeMounts");
    let mut seen = Seen::default();
    for (index, mount) in mounts.iter().enumerate() {
        let at = list.index(index);
        let (name, place) = (path::text(mount, "name"), path::text(mount, "mountPath"));
        required(mount, "name", at, found);
        if !volumes.contains_key(name) {
            found.push(Violation::not_found(at.field("name"), name));
        }
        required(mount, "mountPath", at, found);
        if seen.repeats(place) {
            found.push(Violation::invalid(at.field("mountPath"), place, "must be unique"));
        }
        if device_names.contains(name) {
            found.push(Violation::invalid(at.field("name"), name, "must not already exist in volumeDevices"));
        }
        if device_paths.contains(place) {
            let detail = "must not already exist as a path in volumeDevices";
            found.push(Violation::invalid(at.field("mountPath"), place, detail));
        }
        sub_path(mount, list, at, found);
        propagation(mount, is_privileged, list, found);
    }
}

fn sub_path(mount: &Value, list: At<'_>, at: At<'_>, found: &mut Found) {
    let (plain, expression) = (path::text(mount, "subPath"), path::text(mount, "subPathExpr"));
    if !plain.is_empty() {
        relative_path(plain, list.field("subPath"), found);
    }
    if !expression.is_empty() {
        if !plain.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            found.push(Violation::invalid(at.field("subPathExpr"), expression, detail));
        }
        relative_path(expression, list.field("subPathExpr"), found);
    }
}

fn propagation(mount: &Value, is_privileged: bool, list: At<'_>, found: &mut Found) {
    one_of(mount, "mountPropagation", &["Bidirectional", "HostToContainer", "None"], list, found);
    let propagation = path::text(mount, "mountPropagation");
    if propagation == "Bidirectional" && !is_privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        found.push(Violation::forbidden(list.field("mountPropagation"), detail));
    }
    let read_only = path::text(mount, "recursiveReadOnly");
    let at = list.field("recursiveReadOnly");
    match read_only {
        "" | "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !path::bool(mount, "readOnly") {
                found.push(Violation::forbidden(at, "may only be specified when readOnly is true"));
            }
            if !matches!(propagation, "" | "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                found.push(Violation::forbidden(at, detail));
            }
        }
        other => {
            let supported = ["Disabled", "Enabled", "IfPossible"];
            found.push(Violation::not_supported(at, other, &supported));
        }
    }
}

fn devices(container: &Value, volumes: &HashMap<&str, &Value>, at: At<'_>, found: &mut Found) {
    let mounts = path::list(container, "volumeMounts");
    let mounted: HashSet<&str> = mounts.iter().map(|one| path::text(one, "name")).collect();
    let mount_paths: HashSet<&str> = mounts.iter().map(|one| path::text(one, "mountPath")).collect();
    let is_block = |volume: &Value| volume.get("persistentVolumeClaim").or(volume.get("ephemeral")).is_some();
    let (mut names_seen, mut places_seen) = (HashSet::new(), HashSet::new());
    for (index, device) in path::list(container, "volumeDevices").iter().enumerate() {
        let at = at.field("volumeDevices");
        let at = at.index(index);
        let (name, place) = (path::text(device, "name"), path::text(device, "devicePath"));
        let (at_name, at_path) = (at.field("name"), at.field("devicePath"));
        required(device, "name", at, found);
        if names_seen.contains(name) {
            found.push(Violation::invalid(at_name, name, "must be unique"));
        }
        match volumes.get(name) {
            None => found.push(Violation::not_found(at_name, name)),
            Some(volume) if !is_block(volume) => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                found.push(Violation::invalid(at_name, name, detail));
            }
            Some(_) => {}
        }
        required(device, "devicePath", at, found);
        if places_seen.contains(place) {
            found.push(Violation::invalid(at_path, place, "must be unique"));
        }
        if place.split('/').any(|part| part == "..") {
            found.push(Violation::invalid(at_path, place, "can not contain backsteps ('..')"));
        } else {
            places_seen.insert(place);
        }
        if mounted.contains(name) {
            found.push(Violation::invalid(at_name, name, "must not already exist in volumeMounts"));
        }
        if mount_paths.contains(place) {
            let detail = "must not already exist as a path in volumeMounts";
            found.push(Violation::invalid(at_path, place, detail));
        }
        if !name.is_empty() {
            names_seen.insert(name);
        }
    }
}

/// The pull policy of an image that names none.
pub fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit_once('/').map_or(name, |(_, last)| last);
    let (repository, tag) = match last.rsplit_once(':') {
        Some((_, tag)) => (&name[..name.len() - tag.len() - 1], Some(tag)),
        None => (name, None),
    };
    let path =
        repository.split_once('/').filter(|(host, _)| host.contains(['.', ':']) || *host == "localhost");
    let is_name = !repository.is_empty()
        && !path.map_or(repository, |(_, path)| path).contains(|c: char| c.is_ascii_uppercase());
    match (tag, digest) {
        _ if !is_name => "IfNotPresent",
        (Some("latest"), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

/// The defaults of a container that the table of types cannot say.
pub fn default(container: &mut Value) {
    if path::text(container, "imagePullPolicy").is_empty() {
        let policy = pull_policy(path::text(container, "image"));
        container["imagePullPolicy"] = policy.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_is_always_pulled() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:latest@sha256:abc", "Always"),
            ("Nginx", "IfNotPresent"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
