//! The spec of a pod, in pods and in templates.

use std::collections::HashSet;

use schema::{At, Quantity, Violation, metadata, names, path};
use serde_json::Value;

use super::check::{Found, Seen, between, follows, one_of, required, required_name};
use super::container::{self, Sort, Surroundings};
use super::{affinity, resources, scheduling, security_context, volume};

const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCHES_MAX_CHARACTERS: usize = 2048;
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

pub fn validate(spec: &Value, context: &Context<'_>, at: At<'_>, found: &mut Found) {
    volume::validate_all(spec, context.pod_name, context.is_template, at.field("volumes"), found);
    containers(spec, context, at, found);
    one_of(spec, "restartPolicy", &["Always", "OnFailure", "Never"], at, found);
    one_of(spec, "dnsPolicy", &DNS_POLICIES, at, found);
    metadata::labels(spec.get("nodeSelector"), at.field("nodeSelector"), found);
    host(spec, at, found);
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
    for field in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        follows(spec, field, names::dns_subdomain, at, found);
    }
    between(spec, "activeDeadlineSeconds", 1, i64::from(i32::MAX), at, found);
    for field in ["hostname", "subdomain"] {
        follows(spec, field, names::dns_label, at, found);
    }
    hostname_override(spec, at, found);
    scheduling::tolerations(path::list(spec, "tolerations"), at.field("tolerations"), found);
    host_aliases(spec, at, found);
    one_of(spec, "preemptionPolicy", &["PreemptLowerPriority", "Never"], at, found);
    overhead(spec, at, found);
    resource_claims(spec, at, found);
    os(spec, at, found);
    pod_resources(spec, at, found);
}

fn containers(spec: &Value, context: &Context<'_>, at: At<'_>, found: &mut Found) {
    let around = Surroundings {
        volumes: path::list(spec, "volumes").iter().map(|one| (path::text(one, "name"), one)).collect(),
        claims: path::list(spec, "resourceClaims").iter().map(|one| path::text(one, "name")).collect(),
        host_network: path::bool(spec, "hostNetwork"),
        host_users: spec.get("hostUsers").and_then(Value::as_bool) != Some(false),
        grace_seconds: path::int(spec, "terminationGracePeriodSeconds").unwrap_or_default(),
        is_template: context.is_template,
    };
    let regular = path::list(spec, "containers");
    let mut taken = Seen::default();
    if regular.is_empty() {
        found.push(Violation::required(at.field("containers"), ""));
    }
    container::validate_all(regular, Sort::Regular, &around, &mut taken, at.field("containers"), found);
    container::host_ports(regular, at.field("containers"), found);
    let init = path::list(spec, "initContainers");
    container::validate_all(init, Sort::Init, &around, &mut taken, at.field("initContainers"), found);
    let ephemeral = path::list(spec, "ephemeralContainers");
    let list = at.field("ephemeralContainers");
    let targets: HashSet<&str> = regular.iter().chain(init).map(|one| path::text(one, "name")).collect();
    container::validate_all(ephemeral, Sort::Ephemeral, &around, &mut taken, list, found);
    for (index, one) in ephemeral.iter().enumerate() {
        let target = path::text(one, "targetContainerName");
        if !target.is_empty() && !targets.contains(target) {
            found.push(Violation::not_found(list.index(index).field("targetContainerName"), target));
        }
    }
}

fn host(spec: &Value, at: At<'_>, found: &mut Found) {
    if path::bool(spec, "shareProcessNamespace") && path::bool(spec, "hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        found.push(Violation::invalid(at.field("shareProcessNamespace"), true, detail));
    }
    if spec.get("hostUsers").and_then(Value::as_bool) == Some(false) {
        for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
        {
            if path::bool(spec, field) {
                found.push(Violation::forbidden(at.field(shown), "when `hostUsers` is false"));
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
    let name = path::text(spec, "hostnameOverride");
    if name.is_empty() {
        return;
    }
    for field in ["setHostnameAsFQDN", "hostNetwork"] {
        if path::bool(spec, field) {
            let detail = format!("may not be specified when {field} is true");
            found.push(Violation::forbidden(at.field("hostnameOverride"), detail));
        }
    }
    if name.len() > 64 {
        found.push(Violation::too_long(at.field("hostnameOverride"), 64));
    }
    follows(spec, "hostnameOverride", names::dns_subdomain, at, found);
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
    let Some(overhead) = spec.get("overhead") else { return };
    for (resource, _) in overhead.as_object().into_iter().flatten() {
        if let Some(amount) = resources::amount(overhead, resource) {
            resources::validate_amount(resource, amount, at.field("overhead").key(resource), found);
        }
    }
}

fn resource_claims(spec: &Value, at: At<'_>, found: &mut Found) {
    let claims = path::list(spec, "resourceClaims");
    let mut seen = Seen::default();
    for (index, claim) in claims.iter().enumerate() {
        let at = at.field("resourceClaims");
        let at = at.index(index);
        let name = path::text(claim, "name");
        required_name(claim, "name", names::dns_label, at, found);
        if seen.repeats(name) {
            found.push(Violation::duplicate(at.field("name"), name));
        }
        match (claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName")) {
            (Some(_), Some(_)) => {
                let detail =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                found.push(Violation::invalid(at, claim, detail));
            }
            (None, None) => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                found.push(Violation::invalid(at, claim, detail));
            }
            _ => {}
        }
    }
}

fn os(spec: &Value, at: At<'_>, found: &mut Found) {
    let Some(os) = spec.get("os") else { return };
    let at = at.field("os");
    match path::text(os, "name") {
        "" => {
            required(os, "name", at, found);
        }
        "linux" => {
            if path::get(spec, "securityContext.windowsOptions").is_some() {
                let detail = "windows options cannot be set for a linux pod";
                found.push(Violation::forbidden(at, detail));
            }
        }
        "windows" => {}
        other => found.push(Violation::not_supported(at, other, &["linux", "windows"])),
    }
}

/// Requests and limits of the pod as a whole.
fn pod_resources(spec: &Value, at: At<'_>, found: &mut Found) {
    let Some(own) = spec.get("resources") else { return };
    let at = at.field("resources");
    resources::validate(own, at, found);
    if !path::list(own, "claims").is_empty() {
        found.push(Violation::forbidden(
            at.field("claims"),
            "claims may not be set for Resources at pod-level",
        ));
    }
    for list in ["limits", "requests"] {
        for (resource, _) in path::members(own, list) {
            if !matches!(resource.as_str(), "cpu" | "memory") && !resources::is_hugepages(resource) {
                let at = at.field(list);
                found.push(Violation::not_supported(
                    at.key(resource),
                    resource,
                    &["cpu", "hugepages-", "memory"],
                ));
            }
        }
    }
    for (resource, _) in path::members(own, "requests") {
        let Some(request) = resources::amount(&own["requests"], resource) else { continue };
        let asked = path::list(spec, "containers")
            .iter()
            .filter_map(|one| resources::amount(&one["resources"]["requests"], resource));
        let asked: Quantity = asked.sum();
        if request < asked {
            let detail = format!("must be greater than or equal to aggregate container requests of {asked}");
            found.push(Violation::invalid(at.field("requests").key(resource), request, detail));
        }
    }
}
