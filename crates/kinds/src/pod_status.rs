//! What a status of a pod may say: it is told by kubelets, and by others who stand in for them.

use std::net::IpAddr;

use schema::{At, Violation, names, path};
use serde_json::Value;

use crate::spec::check::{Found, Seen, always_one_of, between, follows};

const STATUSES: [&str; 3] = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
/// Upstream's own conditions; those of others have qualified names.
const CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];
const ID_MAX: i64 = i32::MAX as i64;
const HEALTH_MAX_BYTES: usize = 1024;

pub fn validate(new: &Value, old: &Value, found: &mut Found) {
    let (status, before, at) = (&new["status"], &old["status"], At::root("status"));
    let (spec, old_spec) = (&new["spec"], &old["spec"]);
    conditions(path::list(status, "conditions"), at.field("conditions"), found);
    nominated(status, before, old_spec, at, found);
    if path::int(status, "observedGeneration").is_some_and(|generation| generation < 0) {
        let value = &status["observedGeneration"];
        let detail = "must be a non-negative integer";
        found.push(Violation::invalid(at.field("observedGeneration"), value, detail));
    }
    if path::text(status, "qosClass") != path::text(before, "qosClass") {
        found.push(Violation::immutable(at.field("qosClass"), path::text(status, "qosClass")));
    }
    for list in STATUSES {
        ended(path::list(status, list), path::list(before, list), list, old_spec, at.field(list), found);
    }
    claims(status, spec, at, found);
    extended_claim(status, spec, at, found);
    for (list, own) in [("podIPs", None), ("hostIPs", Some("hostIP"))] {
        addresses(status, before, list, own, at, found);
    }
    for list in STATUSES {
        users(path::list(status, list), spec, at.field(list), found);
    }
    for (list, containers) in [(STATUSES[0], "containers"), (STATUSES[1], "initContainers")] {
        allocated(path::list(status, list), path::list(spec, containers), at.field(list), found);
    }
    for (index, one) in path::list(status, STATUSES[2]).iter().enumerate() {
        if !path::list(one, "allocatedResourcesStatus").is_empty() {
            let at = at.field(STATUSES[2]);
            let at = at.index(index);
            let detail = "must not be specified in container status";
            found.push(Violation::forbidden(at.field("allocatedResourcesStatus"), detail));
        }
    }
}

fn conditions(conditions: &[Value], list: At<'_>, found: &mut Found) {
    for (index, condition) in conditions.iter().enumerate() {
        let at = list.index(index);
        if path::int(condition, "observedGeneration").is_some_and(|generation| generation < 0) {
            let value = &condition["observedGeneration"];
            let detail = "must be a non-negative integer";
            found.push(Violation::invalid(at.field("observedGeneration"), value, detail));
        }
        let kind = path::text(condition, "type");
        if !CONDITIONS.contains(&kind) {
            // The path is upstream's.
            found.extend(Violation::all_invalid(at.field("Type"), kind, names::qualified_name(kind)));
        }
    }
}

/// The node where room is made for it; once it is bound, nowhere.
fn nominated(status: &Value, before: &Value, old_spec: &Value, at: At<'_>, found: &mut Found) {
    let name = path::text(status, "nominatedNodeName");
    if name.is_empty() || name == path::text(before, "nominatedNodeName") {
        return;
    }
    follows(status, "nominatedNodeName", names::dns_subdomain, at, found);
    if !path::text(old_spec, "nodeName").is_empty() {
        let detail = "may not be set on pods that are already bound to a node";
        found.push(Violation::forbidden(at.field("nominatedNodeName"), detail));
    }
}

/// A container that has ended and is not to start again has ended for good.
fn ended(new: &[Value], old: &[Value], kind: &str, spec: &Value, list: At<'_>, found: &mut Found) {
    const RESTARTS_ALL: &str = "RestartAllContainers";
    let containers = match kind {
        "containerStatuses" => path::list(spec, "containers"),
        "initContainerStatuses" => path::list(spec, "initContainers"),
        _ => &[],
    };
    let is_ephemeral = kind == "ephemeralContainerStatuses";
    let all = path::list(spec, "containers").iter().chain(path::list(spec, "initContainers"));
    let mut rules = all.flat_map(|one| path::list(one, "restartPolicyRules"));
    if !is_ephemeral && rules.any(|rule| path::text(rule, "action") == RESTARTS_ALL) {
        return;
    }
    for (index, before) in old.iter().enumerate() {
        let Some(ended) = path::get(before, "state.terminated") else { continue };
        let name = path::text(before, "name");
        let Some(now) = new.iter().find(|one| path::text(one, "name") == name) else { continue };
        if path::get(now, "state.terminated").is_some() {
            continue;
        }
        let code = path::int(ended, "exitCode").unwrap_or_default();
        let container = containers.iter().find(|one| path::text(one, "name") == name);
        if !container.is_some_and(|container| starts_again(container, spec, code)) {
            let at = list.index(index);
            let detail = "may not be transitioned to non-terminated state";
            found.push(Violation::forbidden(at.field("state"), detail));
        }
    }
}

/// By its own rules, else by its own policy, else by the pod's.
fn starts_again(container: &Value, spec: &Value, code: i64) -> bool {
    let by_policy = |policy: &str| match policy {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    };
    let Some(policy) = container.get("restartPolicy").and_then(Value::as_str) else {
        return by_policy(path::text(spec, "restartPolicy"));
    };
    let mut rules = path::list(container, "restartPolicyRules").iter();
    let is_met = |rule: &&Value| {
        let is_listed = path::list(rule, "exitCodes.values").iter().any(|one| one.as_i64() == Some(code));
        match path::text(rule, "exitCodes.operator") {
            "In" => is_listed,
            "NotIn" => !is_listed,
            _ => false,
        }
    };
    rules.find(is_met).is_some() || by_policy(policy)
}

fn claims(status: &Value, spec: &Value, at: At<'_>, found: &mut Found) {
    let list = at.field("resourceClaimStatuses");
    let mut seen = Seen::default();
    for (index, one) in path::list(status, "resourceClaimStatuses").iter().enumerate() {
        let at = list.index(index);
        let name = path::text(one, "name");
        if !path::list(spec, "resourceClaims").iter().any(|claim| path::text(claim, "name") == name) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            found.push(Violation::invalid(at.field("name"), name, detail));
        }
        if seen.repeats(name) {
            found.push(Violation::duplicate(at.field("name"), name));
        }
        if let Some(claim) = one.get("resourceClaimName").and_then(Value::as_str) {
            let at = at.field("resourceClaimName");
            found.extend(Violation::all_invalid(at, claim, names::dns_subdomain(claim)));
        }
    }
}

/// The claim that was made for resources that devices stand behind.
fn extended_claim(status: &Value, spec: &Value, at: At<'_>, found: &mut Found) {
    let Some(claim) = status.get("extendedResourceClaimStatus") else { return };
    let at = at.field("extendedResourceClaimStatus");
    let mappings = path::list(claim, "requestMappings");
    let list = at.field("requestMappings");
    if mappings.is_empty() {
        found.push(Violation::required(list, "at least one request mapping is required"));
    }
    let mut seen = Seen::default();
    for (index, mapping) in mappings.iter().enumerate() {
        let at_one = list.index(index);
        let text = |field: &str| path::text(mapping, field);
        let mut all = path::list(spec, "initContainers").iter().chain(path::list(spec, "containers"));
        match all.rfind(|one| path::text(one, "name") == text("containerName")) {
            None => {
                let detail =
                    "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                let at = at_one.field("containerName");
                found.push(Violation::invalid(at, text("containerName"), detail));
            }
            Some(container) if container["resources"]["requests"].get(text("resourceName")).is_none() => {
                let detail = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests";
                let at = at_one.field("resourceName");
                found.push(Violation::invalid(at, text("resourceName"), detail));
            }
            Some(_) => {}
        }
        let request = text("requestName");
        found.extend(Violation::all_invalid(at.field("requestName"), request, names::dns_label(request)));
        const KEY: [&str; 3] = ["containerName", "resourceName", "requestName"];
        if seen.repeats(KEY.map(text).join("\n")) {
            found.extend(KEY.map(|field| Violation::duplicate(at_one.field(field), text(field))));
        }
    }
    match path::text(claim, "resourceClaimName") {
        "" => found.push(Violation::required(at.field("resourceClaimName"), "")),
        _ => follows(claim, "resourceClaimName", names::dns_subdomain, at, found),
    }
}

/// Addresses of a pod or of its host, at most one of each family. `own`: the field that says the first of them too.
fn addresses(status: &Value, before: &Value, list: &str, own: Option<&str>, at: At<'_>, found: &mut Found) {
    let of = |status: &Value| -> Vec<String> {
        path::list(status, list).iter().map(|one| path::text(one, "ip").to_owned()).collect()
    };
    let (ips, old, at) = (of(status), of(before), at.field(list));
    if let (Some(own), Some(first)) = (own, ips.first())
        && path::text(status, own) != first
    {
        let detail = format!("must be equal to `{own}`");
        let at = at.index(0);
        found.push(Violation::invalid(at.field("ip"), first, detail));
    }
    for (index, ip) in ips.iter().enumerate().filter(|(_, ip)| !old.contains(ip)) {
        found.extend(Violation::all_invalid(at.index(index), ip, names::ip(ip)));
    }
    if ips.len() < 2 {
        return;
    }
    if let Some(place) = ips.iter().position(|ip| ip.parse::<IpAddr>().is_err()) {
        let detail = format!("failed to check for dual stack with error:invalid IP[{place}]: {}", ips[place]);
        found.push(Violation::internal(at, detail));
    }
    let families: Vec<bool> =
        ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok().map(|ip| ip.is_ipv6())).collect();
    let is_pair = families.len() == 2 && ips.len() == 2 && families[0] != families[1];
    if !is_pair {
        let detail = "may specify no more than one IP for each IP family";
        found.push(Violation::invalid(at, &status[list], detail));
    }
}

fn users(statuses: &[Value], spec: &Value, list: At<'_>, found: &mut Found) {
    let os = path::text(spec, "os.name");
    for (index, status) in statuses.iter().enumerate() {
        let Some(user) = path::get(status, "user.linux") else { continue };
        let at = list.index(index);
        let at = at.field("user.linux");
        if os == "windows" {
            found.push(Violation::forbidden(at, "cannot be set for a windows pod"));
            continue;
        }
        between(user, "uid", 0, ID_MAX, at, found);
        between(user, "gid", 0, ID_MAX, at, found);
        for (index, group) in path::list(user, "supplementalGroups").iter().enumerate() {
            let group = group.as_i64().unwrap_or_default();
            let at = at.field("supplementalGroups");
            found.extend(Violation::all_invalid(at.index(index), group, names::between(group, 0, ID_MAX)));
        }
    }
}

/// The health of devices that a container was given.
fn allocated(statuses: &[Value], containers: &[Value], list: At<'_>, found: &mut Found) {
    for (index, status) in statuses.iter().enumerate() {
        let at = list.index(index);
        let name = path::text(status, "name");
        let container = containers.iter().find(|one| path::text(one, "name") == name);
        for (nth, resource) in path::list(status, "allocatedResourcesStatus").iter().enumerate() {
            let at = at.field("allocatedResourcesStatus");
            let at = at.index(nth);
            if let Some(wrong) = container.and_then(|container| unasked(container, resource)) {
                found.push(Violation::invalid(at.field("name"), path::text(resource, "name"), wrong));
            }
            let mut seen = Seen::default();
            for (nth, one) in path::list(resource, "resources").iter().enumerate() {
                let at = at.field("resources");
                let at = at.index(nth);
                always_one_of(one, "health", &["Healthy", "Unhealthy", "Unknown"], at, found);
                match one.get("message").and_then(Value::as_str) {
                    Some("") => {
                        found
                            .push(Violation::required(at.field("message"), "must be non-empty if specified"));
                    }
                    Some(text) if text.len() > HEALTH_MAX_BYTES => {
                        found.push(Violation::too_long(at.field("message"), HEALTH_MAX_BYTES));
                    }
                    _ => {}
                }
                let id = path::text(one, "resourceID");
                if seen.repeats(id) {
                    found.push(Violation::duplicate(at.field("resourceID"), id));
                }
            }
        }
    }
}

/// Why a container has no such resource.
fn unasked(container: &Value, resource: &Value) -> Option<&'static str> {
    let name = path::text(resource, "name");
    let Some(wanted) = name.strip_prefix("claim:") else {
        let is_asked = container["resources"]["requests"].get(name).is_some();
        return (!is_asked).then_some("must match one of the container's resource requests");
    };
    let is_it = |claim: &Value| match (path::text(claim, "name"), path::text(claim, "request")) {
        (name, "") => name == wanted,
        (name, request) => wanted.split_once('/') == Some((name, request)),
    };
    let is_asked = path::list(container, "resources.claims").iter().any(is_it);
    let told = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty";
    (!is_asked).then_some(told)
}
