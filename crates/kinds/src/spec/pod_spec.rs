//! The spec of a pod, in pods and in templates.

use std::collections::HashMap;

use schema::{At, Quantity, Violation, metadata, names, path};
use serde_json::{Value, json};

use super::check::{Found, Seen, between, follows, required_one_of};
use super::container::{self, Surroundings};
use super::{affinity, os, resources, scheduling, security_context, volume};

const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCHES_MAX_CHARACTERS: usize = 2048;
const HOSTNAME_MAX_BYTES: usize = 64;
const CONTAINERS: [&str; 3] = ["containers", "ephemeralContainers", "initContainers"];

/// Fills what the table of types cannot say. `spec` is a pod's or a template's.
pub fn default(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    mirror_service_account(spec);
    for list in CONTAINERS {
        if let Some(Value::Array(containers)) = spec.get_mut(list) {
            containers.iter_mut().for_each(container::default);
        }
    }
    if let Some(Value::Array(volumes)) = spec.get_mut("volumes") {
        volumes.iter_mut().for_each(volume::default);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`, which wins.
pub fn mirror_service_account(spec: &mut Value) {
    let name = match path::text(spec, "serviceAccountName") {
        "" => path::text(spec, "serviceAccount").to_owned(),
        name => name.to_owned(),
    };
    if !name.is_empty() {
        spec["serviceAccount"] = name.as_str().into();
        spec["serviceAccountName"] = name.into();
    }
}

/// What is checked of a pod's spec depends on whether a pod is to be made of it now.
pub struct Context<'a> {
    /// The pod's name; empty in templates.
    pub pod_name: &'a str,
    pub is_template: bool,
}

/// In upstream's order, which is that of its messages.
pub fn validate(spec: &Value, context: &Context<'_>, at: At<'_>, found: &mut Found) {
    let volumes =
        volume::validate_all(spec, context.pod_name, context.is_template, at.field("volumes"), found);
    resource_claims(spec, at, found);
    containers(spec, volumes, at, found);
    pod_resources(spec, at, found);
    if path::bool(spec, "hostNetwork") {
        let all = path::list(spec, "containers");
        container::same_host_ports(all, context.is_template, at.field("containers"), found);
    }
    required_one_of(spec, "restartPolicy", &["Always", "OnFailure", "Never"], at, found);
    required_one_of(spec, "dnsPolicy", &DNS_POLICIES, at, found);
    metadata::labels(spec.get("nodeSelector"), at.field("nodeSelector"), found);
    security_context::pod(spec, at.field("securityContext"), found);
    for (index, secret) in path::list(spec, "imagePullSecrets").iter().enumerate() {
        if secret.as_object().is_some_and(|members| members.keys().any(|field| field != "name")) {
            let at = at.field("imagePullSecrets");
            found.push(Violation::invalid(at.index(index), secret, "only name may be set"));
        }
    }
    if let Some(wanted) = spec.get("affinity") {
        affinity::validate(wanted, at.field("affinity"), found);
    }
    dns(spec, at, found);
    for (index, gate) in path::list(spec, "readinessGates").iter().enumerate() {
        let at = at.field("readinessGates");
        let kind = path::text(gate, "conditionType");
        found.extend(Violation::all_invalid(
            at.index(index).field("conditionType"),
            kind,
            names::qualified_name(kind),
        ));
    }
    scheduling_gates(spec, at, found);
    scheduling::topology_spread(
        path::list(spec, "topologySpreadConstraints"),
        at.field("topologySpreadConstraints"),
        found,
    );
    os::host_process(spec, at, found);
    own_users(spec, at, found);
    hostname_override(spec, at, found);
    for field in ["serviceAccountName", "nodeName"] {
        follows(spec, field, names::dns_subdomain, at, found);
    }
    between(spec, "activeDeadlineSeconds", 1, i64::from(i32::MAX), at, found);
    for field in ["hostname", "subdomain"] {
        follows(spec, field, names::dns_label, at, found);
    }
    scheduling::tolerations(path::list(spec, "tolerations"), at.field("tolerations"), found);
    host_aliases(spec, at, found);
    follows(spec, "priorityClassName", names::dns_subdomain, at, found);
    if let Some(name) = spec.get("runtimeClassName").and_then(Value::as_str) {
        found.extend(Violation::all_invalid(at.field("runtimeClassName"), name, names::dns_subdomain(name)));
    }
    if spec.get("preemptionPolicy").is_some() {
        required_one_of(spec, "preemptionPolicy", &["PreemptLowerPriority", "Never"], at, found);
    }
    overhead(spec, at, found);
    os::validate(spec, at, found);
    file_keys(spec, at, found);
}

fn containers<'a>(spec: &'a Value, volumes: HashMap<&'a str, &'a Value>, at: At<'_>, found: &mut Found) {
    let claims = path::list(spec, "resourceClaims").iter().map(|one| path::text(one, "name"));
    let around = Surroundings {
        volumes,
        claims: claims.filter(|name| !name.is_empty()).collect(),
        host_users: spec.get("hostUsers").and_then(Value::as_bool) != Some(false),
        grace_seconds: path::int(spec, "terminationGracePeriodSeconds").unwrap_or_default(),
        restart_policy: path::text(spec, "restartPolicy"),
    };
    let (regular, init) = (path::list(spec, "containers"), path::list(spec, "initContainers"));
    container::validate_regular(regular, &around, at.field("containers"), found);
    container::validate_init(init, regular, &around, at.field("initContainers"), found);
    let ephemeral = path::list(spec, "ephemeralContainers");
    let others = regular.iter().chain(init);
    container::validate_ephemeral(ephemeral, others, &around, at.field("ephemeralContainers"), found);
}

/// Every container with its list and its place in it, in the order in which upstream goes through them.
pub fn each(spec: &Value) -> impl Iterator<Item = (&'static str, usize, &Value)> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |list| {
        path::list(spec, list).iter().enumerate().map(move |(index, container)| (list, index, container))
    })
}

/// A pod with users of its own shares nothing with the host that knows users.
fn own_users(spec: &Value, at: At<'_>, found: &mut Found) {
    const WHEN: &str = "when `hostUsers` is false";
    if spec.get("hostUsers").and_then(Value::as_bool) != Some(false) {
        return;
    }
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if path::bool(spec, field) {
            found.push(Violation::forbidden(at.field(shown), WHEN));
        }
    }
    for (list, index, container) in each(spec) {
        if !path::list(container, "volumeDevices").is_empty() {
            let at = at.field(list);
            found.push(Violation::forbidden(at.index(index).field("volumeDevices"), WHEN));
        }
    }
}

/// Variables are read of files in empty directories only.
fn file_keys(spec: &Value, at: At<'_>, found: &mut Found) {
    let volumes = path::list(spec, "volumes");
    for (list, index, container) in each(spec) {
        for (nth, variable) in path::list(container, "env").iter().enumerate() {
            let Some(reference) = path::get(variable, "valueFrom.fileKeyRef") else { continue };
            let (at, name) = (at.field(list), path::text(reference, "volumeName"));
            let at = at.index(index);
            let at = at.field("env");
            let at = at.index(nth);
            let at = at.field("valueFrom.fileKeyRef.volumeName");
            match volumes.iter().rfind(|one| path::text(one, "name") == name) {
                None => found.push(Violation::not_found(at, name)),
                Some(volume) if volume.get("emptyDir").is_none() => {
                    let detail = "referenced volume must be of type emptyDir";
                    found.push(Violation::invalid(at, name, detail));
                }
                Some(_) => {}
            }
        }
    }
}

fn dns(spec: &Value, at: At<'_>, found: &mut Found) {
    let is_none = path::text(spec, "dnsPolicy") == "None";
    let at = at.field("dnsConfig");
    let Some(config) = spec.get("dnsConfig") else {
        if is_none {
            found.push(Violation::required(at, "must provide `dnsConfig` when `dnsPolicy` is None"));
        }
        return;
    };
    let servers = path::list(config, "nameservers");
    let servers_at = at.field("nameservers");
    if is_none && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        found.push(Violation::required(servers_at, detail));
        return;
    }
    if servers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        found.push(Violation::invalid(servers_at, servers, detail));
    }
    for (index, server) in servers.iter().enumerate() {
        let server = server.as_str().unwrap_or_default();
        found.extend(Violation::all_invalid(servers_at.index(index), server, names::ip(server)));
    }
    let searches: Vec<&str> = path::list(config, "searches").iter().filter_map(Value::as_str).collect();
    let searches_at = at.field("searches");
    if searches.len() > SEARCHES_MAX {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        found.push(Violation::invalid(searches_at, &searches, detail));
    }
    if searches.join(" ").len() > SEARCHES_MAX_CHARACTERS {
        let detail = format!(
            "must not have more than {SEARCHES_MAX_CHARACTERS} characters (including spaces) in the search list"
        );
        found.push(Violation::invalid(searches_at, &searches, detail));
    }
    for (index, search) in searches.iter().enumerate() {
        let plain = search.strip_suffix('.').unwrap_or(search);
        if *search != "." {
            let wrong = names::dns_subdomain_with_underscores(plain);
            found.extend(Violation::all_invalid(searches_at.index(index), search, wrong));
        }
    }
    for (index, option) in path::list(config, "options").iter().enumerate() {
        if path::text(option, "name").is_empty() {
            found.push(Violation::required(at.field("options").index(index), "must not be empty"));
        }
    }
}

fn scheduling_gates(spec: &Value, at: At<'_>, found: &mut Found) {
    let gates = path::list(spec, "schedulingGates");
    let mut seen = Seen::default();
    for (index, gate) in gates.iter().enumerate() {
        let at = at.field("schedulingGates");
        let at = at.index(index);
        let name = path::text(gate, "name");
        found.extend(Violation::all_invalid(at, name, names::qualified_name(name)));
        if seen.repeats(name) {
            found.push(Violation::duplicate(at, name));
        }
    }
}

fn hostname_override(spec: &Value, at: At<'_>, found: &mut Found) {
    let Some(name) = spec.get("hostnameOverride").and_then(Value::as_str) else { return };
    let at = at.field("hostnameOverride");
    for field in ["setHostnameAsFQDN", "hostNetwork"] {
        if path::bool(spec, field) {
            found.push(Violation::forbidden(at, format!("may not be specified when {field} is true")));
        }
    }
    if name.len() > HOSTNAME_MAX_BYTES {
        found.push(Violation::too_long(at, HOSTNAME_MAX_BYTES));
    }
    found.extend(Violation::all_invalid(at, name, names::dns_subdomain(name)));
}

fn host_aliases(spec: &Value, at: At<'_>, found: &mut Found) {
    for (index, alias) in path::list(spec, "hostAliases").iter().enumerate() {
        let at = at.field("hostAliases");
        let at = at.index(index);
        let ip = path::text(alias, "ip");
        found.extend(Violation::all_invalid(at.field("ip"), ip, names::ip(ip)));
        for (index, name) in path::list(alias, "hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let at = at.field("hostnames");
            found.extend(Violation::all_invalid(at.index(index), name, names::dns_subdomain(name)));
        }
    }
}

fn overhead(spec: &Value, at: At<'_>, found: &mut Found) {
    if let Some(overhead) = spec.get("overhead") {
        // As upstream: as if a container were limited so.
        let limited = json!({"limits": overhead});
        resources::validate(&limited, resources::container_name, at.field("overhead"), found);
    }
}

fn resource_claims(spec: &Value, at: At<'_>, found: &mut Found) {
    let mut seen = Seen::default();
    for (index, claim) in path::list(spec, "resourceClaims").iter().enumerate() {
        let at = at.field("resourceClaims");
        let at = at.index(index);
        let name = path::text(claim, "name");
        match name {
            "" => found.push(Violation::required(at.field("name"), "")),
            name if seen.repeats(name) => found.push(Violation::duplicate(at.field("name"), name)),
            _ => follows(claim, "name", names::dns_label, at, found),
        }
        const BY: [&str; 2] = ["resourceClaimName", "resourceClaimTemplateName"];
        match BY.iter().filter(|by| claim.get(**by).is_some()).count() {
            0 => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                found.push(Violation::invalid(at, claim, detail));
            }
            1 => {}
            _ => {
                let detail =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                found.push(Violation::invalid(at, claim, detail));
            }
        }
        for by in BY {
            if let Some(name) = claim.get(by).and_then(Value::as_str) {
                found.extend(Violation::all_invalid(at.field(by), name, names::dns_subdomain(name)));
            }
        }
    }
}

/// Requests and limits of the pod as a whole.
fn pod_resources(spec: &Value, at: At<'_>, found: &mut Found) {
    let Some(own) = spec.get("resources") else { return };
    let at = at.field("resources");
    if path::text(spec, "os.name") == "windows" {
        found.push(Violation::forbidden(at, "may not be set for a windows pod"));
        return;
    }
    if own.get("claims").is_some() {
        let detail = "claims may not be set for Resources at pod-level";
        found.push(Violation::forbidden(at.field("claims"), detail));
    }
    resources::validate(own, resources::pod_name, at, found);
    let known = path::list(spec, "resourceClaims").iter().map(|one| path::text(one, "name"));
    let known = known.filter(|name| !name.is_empty()).collect();
    container::claims(path::list(own, "claims"), &known, at.field("claims"), found);
    let (limits, requests) = (&own["limits"], &own["requests"]);
    for resource in resources::named(spec, "requests") {
        let asked = resources::aggregate(spec, "requests", resource).unwrap_or(Quantity::ZERO);
        if let Some(request) = resources::amount(requests, resource).filter(|request| asked > *request) {
            let detail = format!("must be greater than or equal to aggregate container requests of {asked}");
            found.push(Violation::invalid(at.field("requests").key(resource), request, detail));
        }
    }
    for resource in resources::named(spec, "limits").into_iter().filter(|one| resources::is_hugepages(one)) {
        let used = resources::aggregate(spec, "limits", resource).unwrap_or(Quantity::ZERO);
        if let Some(limit) = resources::amount(limits, resource).filter(|limit| used > *limit) {
            let detail = format!("must be greater than or equal to aggregate container limits of {used}");
            found.push(Violation::invalid(at.field("limits").key(resource), limit, detail));
        }
    }
    for (index, container) in path::list(spec, "containers").iter().enumerate() {
        for (resource, _) in path::members(container, "resources.limits") {
            let own = resources::amount(&container["resources"]["limits"], resource);
            let (Some(own), Some(limit)) = (own, resources::amount(limits, resource)) else { continue };
            if own > limit {
                let detail = format!("must be less than or equal to pod limits of {limit}");
                let at = at.field("containers");
                let at = at.index(index);
                found.push(Violation::invalid(at.key(resource).field("limits"), own, detail));
            }
        }
    }
}
