//! Containers of every sort.

use std::collections::{BTreeSet, HashMap, HashSet};

use schema::{At, Violation, names, path};
use serde_json::Value;

use super::check::{Found, Seen, between, follows, one_of, relative_path, required, required_name};
use super::{env, probe, resources, security_context};

/// What a container may be depends on where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Regular,
    Init,
    Ephemeral,
}

/// What the pod around the containers says that they must fit.
pub struct Surroundings<'a> {
    /// `spec.volumes` by name.
    pub volumes: HashMap<&'a str, &'a Value>,
    /// The names of `spec.resourceClaims`.
    pub claims: BTreeSet<&'a str>,
    pub host_network: bool,
    pub host_users: bool,
    pub grace_seconds: i64,
    /// A template's image may be padded with white space; a pod's may not.
    pub is_template: bool,
}

/// The fields that an ephemeral container has and may not use.
const NOT_EPHEMERAL: [&str; 8] = [
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resources",
    "resizePolicy",
    "restartPolicy",
];

/// The containers of a pod with the names that are taken so far.
pub fn validate_all<'a>(
    containers: &'a [Value],
    sort: Sort,
    around: &Surroundings<'_>,
    taken: &mut Seen<'a>,
    list: At<'_>,
    found: &mut Found,
) {
    for (index, container) in containers.iter().enumerate() {
        let at = list.index(index);
        let name = path::text(container, "name");
        if taken.repeats(name) && !name.is_empty() {
            found.push(Violation::duplicate(at.field("name"), name));
        }
        validate(container, sort, around, at, found);
    }
}

fn validate(container: &Value, sort: Sort, around: &Surroundings<'_>, at: At<'_>, found: &mut Found) {
    required_name(container, "name", names::dns_label, at, found);
    let image = path::text(container, "image");
    if image.is_empty() {
        found.push(Violation::required(at.field("image"), ""));
    } else if !around.is_template && image.trim() != image {
        found.push(Violation::invalid(
            at.field("image"),
            image,
            "must not have leading or trailing whitespace",
        ));
    }
    restarts(container, sort, at, found);
    if sort == Sort::Ephemeral {
        not_ephemeral(container, at, found);
    } else {
        ports(container, around.host_network, at, found);
        resources::validate(&container["resources"], at.field("resources"), found);
        claims(container, &around.claims, at, found);
        resize_policy(container, at, found);
    }
    let is_sidecar = path::text(container, "restartPolicy") == "Always";
    if sort == Sort::Init && !is_sidecar {
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container.get(field).is_some() {
                let detail = "may not be set for init containers without restartPolicy=Always";
                found.push(Violation::forbidden(at.field(field), detail));
            }
        }
    } else if sort != Sort::Ephemeral {
        probe::validate(container, around.grace_seconds, at, found);
    }
    one_of(container, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"], at, found);
    one_of(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], at, found);
    env::validate(container, at, found);
    mounts(container, &around.volumes, at, found);
    devices(container, &around.volumes, at, found);
    security_context::container(container, around.host_users, at.field("securityContext"), found);
}

fn restarts(container: &Value, sort: Sort, at: At<'_>, found: &mut Found) {
    if sort == Sort::Ephemeral {
        return;
    }
    one_of(container, "restartPolicy", &["Always", "Never", "OnFailure"], at, found);
    let rules = path::list(container, "restartPolicyRules");
    if !rules.is_empty() && container.get("restartPolicy").is_none() {
        let detail = "must specify restartPolicy when restart rules are used";
        found.push(Violation::required(at.field("restartPolicy"), detail));
    }
    if rules.len() > 20 {
        found.push(Violation::too_many(at.field("restartPolicyRules"), rules.len(), 20));
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = at.field("restartPolicyRules");
        let at = at.index(index);
        one_of(rule, "action", &["Restart", "RestartAllContainers"], at, found);
        match rule.get("exitCodes") {
            None => found.push(Violation::required(at.field("exitCodes"), "must be specified")),
            Some(codes) => {
                one_of(codes, "operator", &["In", "NotIn"], at.field("exitCodes"), found);
                let count = path::list(codes, "values").len();
                if count > 255 {
                    found.push(Violation::too_many(at.field("exitCodes.values"), count, 255));
                }
            }
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

fn ports(container: &Value, host_network: bool, at: At<'_>, found: &mut Found) {
    let ports = path::list(container, "ports");
    let mut seen = Seen::default();
    for (index, port) in ports.iter().enumerate() {
        let at = at.field("ports");
        let at = at.index(index);
        let name = path::text(port, "name");
        if !name.is_empty() {
            let wrong = names::port_name(name);
            let is_taken = seen.repeats(name);
            if wrong.is_empty() && is_taken {
                found.push(Violation::duplicate(at.field("name"), name));
            }
            found.extend(Violation::all_invalid(at.field("name"), name, wrong));
        }
        match path::int(port, "containerPort").unwrap_or_default() {
            0 => found.push(Violation::required(at.field("containerPort"), "")),
            _ => between(port, "containerPort", 1, 65535, at, found),
        }
        let host_port = path::int(port, "hostPort").unwrap_or_default();
        if host_port != 0 {
            between(port, "hostPort", 1, 65535, at, found);
        }
        if host_network && host_port != 0 && host_port != path::int(port, "containerPort").unwrap_or_default()
        {
            let detail = "must match `containerPort` when `hostNetwork` is true";
            found.push(Violation::invalid(at.field("hostPort"), host_port, detail));
        }
        one_of(port, "protocol", &["SCTP", "TCP", "UDP"], at, found);
        follows(port, "hostIP", names::ip, at, found);
    }
}

/// No two containers may ask for the same port of the host.
pub fn host_ports(containers: &[Value], list: At<'_>, found: &mut Found) {
    let mut taken = Seen::default();
    for (index, container) in containers.iter().enumerate() {
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

fn claims(container: &Value, known: &BTreeSet<&str>, at: At<'_>, found: &mut Found) {
    let claims = path::list(container, "resources.claims");
    let mut seen = Seen::default();
    for (index, claim) in claims.iter().enumerate() {
        let at = at.field("resources.claims");
        let at = at.index(index);
        if !required(claim, "name", at, found) {
            continue;
        }
        let name = path::text(claim, "name");
        if seen.repeats(claim.to_string()) {
            found.push(Violation::duplicate(at, name));
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

fn resize_policy(container: &Value, at: At<'_>, found: &mut Found) {
    let policies = path::list(container, "resizePolicy");
    let mut seen = Seen::default();
    for (index, policy) in policies.iter().enumerate() {
        let at = at.field("resizePolicy");
        let at = at.index(index);
        let resource = path::text(policy, "resourceName");
        if seen.repeats(resource) {
            found.push(Violation::duplicate(at, resource));
        }
        one_of(policy, "resourceName", &["cpu", "memory"], at, found);
        one_of(policy, "restartPolicy", &["NotRequired", "RestartContainer"], at, found);
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
        if required(mount, "name", at, found) && !volumes.contains_key(name) {
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
        propagation(mount, is_privileged, list, at, found);
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

fn propagation(mount: &Value, is_privileged: bool, list: At<'_>, at: At<'_>, found: &mut Found) {
    one_of(mount, "mountPropagation", &["Bidirectional", "HostToContainer", "None"], list, found);
    let propagation = path::text(mount, "mountPropagation");
    if propagation == "Bidirectional" && !is_privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        found.push(Violation::forbidden(list.field("mountPropagation"), detail));
    }
    let read_only = path::text(mount, "recursiveReadOnly");
    if matches!(read_only, "" | "Disabled") {
        return;
    }
    one_of(mount, "recursiveReadOnly", &["Disabled", "Enabled", "IfPossible"], at, found);
    let at = at.field("recursiveReadOnly");
    if !path::bool(mount, "readOnly") {
        found.push(Violation::forbidden(at, "may only be specified when readOnly is true"));
    }
    if !matches!(propagation, "" | "None") {
        let detail = "may only be specified when mountPropagation is None or not specified";
        found.push(Violation::forbidden(at, detail));
    }
}

fn devices(container: &Value, volumes: &HashMap<&str, &Value>, at: At<'_>, found: &mut Found) {
    let devices = path::list(container, "volumeDevices");
    let mut names_seen = Seen::default();
    let mut places_seen = Seen::default();
    for (index, device) in devices.iter().enumerate() {
        let at = at.field("volumeDevices");
        let at = at.index(index);
        let (name, place) = (path::text(device, "name"), path::text(device, "devicePath"));
        let volume = volumes.get(name);
        if required(device, "name", at, found) {
            let is_block =
                |volume: &Value| volume.get("persistentVolumeClaim").or(volume.get("ephemeral")).is_some();
            match volume {
                None => found.push(Violation::not_found(at.field("name"), name)),
                Some(volume) if !is_block(volume) => {
                    let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                    found.push(Violation::invalid(at.field("name"), name, detail));
                }
                Some(_) => {}
            }
            if names_seen.repeats(name) {
                found.push(Violation::invalid(at.field("name"), name, "must be unique"));
            }
        }
        if required(device, "devicePath", at, found) {
            if place.split('/').any(|part| part == "..") {
                found.push(Violation::invalid(
                    at.field("devicePath"),
                    place,
                    "can not contain backsteps ('..')",
                ));
            }
            if places_seen.repeats(place) {
                found.push(Violation::invalid(at.field("devicePath"), place, "must be unique"));
            }
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
