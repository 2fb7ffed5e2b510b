//! What a service is and may be.

use schema::{At, Violation, metadata, names, path};
use serde_json::Value;

use crate::spec::addresses;
use crate::spec::check::{self, Found, Seen};

const STICKY_SECONDS: i64 = 10_800;
const STICKY_SECONDS_MAX: i64 = 86_400;
const OLD_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

pub fn default(service: &mut Value) {
    if let Some(spec) = service.get_mut("spec").filter(|spec| spec.is_object()) {
        default_spec(spec);
    }
    let is_balanced = path::text(service, "spec.type") == "LoadBalancer";
    if let Some(Value::Array(given)) =
        path::get_mut(service, "status.loadBalancer.ingress").filter(|_| is_balanced)
    {
        for one in given.iter_mut().filter(|one| !path::text(one, "ip").is_empty()) {
            path::set_default(one, "ipMode", "VIP");
        }
    }
}

fn default_spec(spec: &mut Value) {
    match path::text(spec, "sessionAffinity") {
        "ClientIP" => {
            path::set_default(spec, "sessionAffinityConfig.clientIP.timeoutSeconds", STICKY_SECONDS)
        }
        "None" => {
            path::remove(spec, "sessionAffinityConfig");
        }
        _ => {}
    }
    if let Some(Value::Array(ports)) = spec.get_mut("ports") {
        for port in ports {
            if matches!(&port["targetPort"], Value::Null)
                || port["targetPort"] == 0
                || port["targetPort"] == ""
            {
                port["targetPort"] = port["port"].clone();
            }
        }
    }
    let kind = path::text(spec, "type").to_owned();
    if is_outward(spec) && path::text(spec, "externalTrafficPolicy").is_empty() {
        spec["externalTrafficPolicy"] = "Cluster".into();
    }
    if matches!(kind.as_str(), "ClusterIP" | "LoadBalancer" | "NodePort") {
        path::set_default(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        path::set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Whether it is reached from outside of the cluster.
pub fn is_outward(spec: &Value) -> bool {
    match path::text(spec, "type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !path::list(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

pub fn validate(service: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&service["spec"], At::root("spec"));
    let kind = path::text(spec, "type");
    if let Some(old) = old {
        changes(spec, &old["spec"], at, &mut found);
    }
    topology_annotations(service, &mut found);
    if path::list(spec, "ports").is_empty() && !is_headless(spec) && kind != "ExternalName" {
        found.push(Violation::required(at.field("ports"), ""));
    }
    if matches!(kind, "LoadBalancer" | "NodePort") && is_headless(spec) {
        let at = at.field("clusterIPs");
        let detail = format!("may not be set to 'None' for {kind} services");
        found.push(Violation::invalid(at.index(0), "None", detail));
    }
    if kind == "ExternalName" {
        external_name(spec, at, &mut found);
    }
    ports(spec, at.field("ports"), &mut found);
    metadata::labels(spec.get("selector"), at.field("selector"), &mut found);
    affinity(spec, at, &mut found);
    found.extend(validate_addresses(service, old));
    let before = old.map(|old| path::list(old, "spec.externalIPs")).unwrap_or_default();
    for (index, ip) in path::list(spec, "externalIPs").iter().enumerate() {
        let (ip, at) = (ip.as_str().unwrap_or_default(), at.field("externalIPs"));
        found.extend(Violation::all_invalid(at.index(index), ip, check::outside_ip(ip, before)));
    }
    check::one_of(spec, "type", &TYPES, at, &mut found);
    port_numbers(spec, kind, at.field("ports"), &mut found);
    balancer(service, old, at, &mut found);
    traffic(spec, at, &mut found);
    status(service, old, &mut found);
    found
}

/// Whether its name stands for its endpoints rather than for an address.
pub fn is_headless(spec: &Value) -> bool {
    matches!(path::list(spec, "clusterIPs"), [one] if one == "None")
}

fn topology_annotations(service: &Value, found: &mut Found) {
    let of = |key: &str| service["metadata"]["annotations"].get(key);
    if let (Some(hints), Some(mode)) = (of(OLD_HINTS), of(TOPOLOGY_MODE))
        && hints != mode
    {
        let detail = format!("must match annotations[{OLD_HINTS}] when both are specified");
        let at = At::root("metadata.annotations");
        found.push(Violation::invalid(at.key(TOPOLOGY_MODE), mode, detail));
    }
}

fn external_name(spec: &Value, at: At<'_>, found: &mut Found) {
    for field in ["clusterIPs", "ipFamilies"] {
        if !path::list(spec, field).is_empty() {
            found.push(Violation::forbidden(at.field(field), "may not be set for ExternalName services"));
        }
    }
    if spec.get("ipFamilyPolicy").is_some() {
        let at = at.field("ipFamilyPolicy");
        found.push(Violation::forbidden(at, "may not be set for ExternalName services"));
    }
    let (name, at) = (path::text(spec, "externalName"), at.field("externalName"));
    match name.strip_suffix('.').unwrap_or(name) {
        "" => found.push(Violation::required(at, "")),
        plain => found.extend(Violation::all_invalid(at, plain, names::dns_subdomain(plain))),
    }
}

fn ports(spec: &Value, list: At<'_>, found: &mut Found) {
    let ports = path::list(spec, "ports");
    let mut names_seen = Seen::default();
    for (index, port) in ports.iter().enumerate() {
        let at = list.index(index);
        let name = path::text(port, "name");
        if ports.len() > 1 && name.is_empty() {
            found.push(Violation::required(at.field("name"), ""));
        }
        check::follows(port, "name", names::dns_label, at, found);
        if !name.is_empty() && names_seen.repeats(name) {
            found.push(Violation::duplicate(at.field("name"), name));
        }
        let number = path::int(port, "port").unwrap_or_default();
        found.extend(Violation::all_invalid(at.field("port"), number, names::port_number(number)));
        check::one_of(port, "protocol", &["SCTP", "TCP", "UDP"], at, found);
        check::port(port, "targetPort", at, found);
        check::follows_if_set(port, "appProtocol", names::qualified_name, at, found);
    }
}

/// What the ports' numbers must be among each other, protocol by protocol.
fn port_numbers(spec: &Value, kind: &str, list: At<'_>, found: &mut Found) {
    let ports = path::list(spec, "ports");
    let node = |port: &Value| path::int(port, "nodePort").unwrap_or_default();
    let with_node = || ports.iter().enumerate().filter(|(_, port)| node(port) != 0);
    if kind == "ClusterIP" {
        for (index, _) in with_node() {
            let at = list.index(index);
            let detail = "may not be used when `type` is 'ClusterIP'";
            found.push(Violation::forbidden(at.field("nodePort"), detail));
        }
    }
    let mut seen = Seen::default();
    for (index, port) in with_node() {
        let (number, at) = (node(port), list.index(index));
        if seen.repeats(format!("{} {number}", path::text(port, "protocol"))) {
            found.push(Violation::duplicate(at.field("nodePort"), number));
        }
    }
    let mut seen = Seen::default();
    for (index, port) in ports.iter().enumerate() {
        let number = path::int(port, "port").unwrap_or_default();
        if seen.repeats(format!("{} {number}", path::text(port, "protocol"))) {
            found.push(Violation::duplicate(list.index(index), port));
        }
    }
}

fn affinity(spec: &Value, at: At<'_>, found: &mut Found) {
    check::one_of(spec, "sessionAffinity", &["ClientIP", "None"], at, found);
    let config_at = at.field("sessionAffinityConfig");
    match path::text(spec, "sessionAffinity") {
        "ClientIP" => {
            let at = config_at.field("clientIP.timeoutSeconds");
            match path::int(spec, "sessionAffinityConfig.clientIP.timeoutSeconds") {
                None => found.push(Violation::required(at, "when session affinity type is ClientIP")),
                Some(seconds) if !(1..=STICKY_SECONDS_MAX).contains(&seconds) => {
                    let detail = format!("must be greater than 0 and less than {STICKY_SECONDS_MAX}");
                    found.push(Violation::invalid(at, seconds, detail));
                }
                Some(_) => {}
            }
        }
        "None" if spec.get("sessionAffinityConfig").is_some() => {
            found.push(Violation::forbidden(config_at, "must not be set when session affinity is None"));
        }
        _ => {}
    }
}

/// What is wrong with a Service's addresses and their families: asked before they are allocated, and again with the rest.
pub fn validate_addresses(service: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&service["spec"], At::root("spec"));
    if path::text(spec, "type") == "ExternalName" {
        return found;
    }
    let ips = path::list(spec, "clusterIPs");
    let (own, list) = (path::text(spec, "clusterIP"), at.field("clusterIPs"));
    match (own.is_empty(), ips.first()) {
        (true, Some(_)) => {
            found.push(Violation::invalid(list, ips, "must be empty when `clusterIP` is not specified"));
        }
        (false, None) => found.push(Violation::required(list, "")),
        (false, Some(first)) if *first != own => {
            found.push(Violation::invalid(list, ips, "first value must match `clusterIP`"));
        }
        _ => {}
    }
    let (families, families_at) = (path::list(spec, "ipFamilies"), at.field("ipFamilies"));
    let mut seen = Seen::default();
    for (index, family) in families.iter().enumerate() {
        if family != "IPv4" && family != "IPv6" {
            found.push(Violation::not_supported(families_at.index(index), family, &["IPv4", "IPv6"]));
        }
        if seen.repeats(family.to_string()) {
            found.push(Violation::duplicate(families_at.index(index), family));
        }
    }
    check::one_of(
        spec,
        "ipFamilyPolicy",
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
        at,
        &mut found,
    );
    let before = old.map(|old| path::list(old, "spec.clusterIPs")).unwrap_or_default();
    let mut is_wrong = false;
    for (index, ip) in ips.iter().enumerate() {
        if index == 0 && ip == "None" {
            if ips.len() > 1 {
                is_wrong = true;
                found.push(Violation::invalid(list, ips, "'None' must be the first and only value"));
            }
            continue;
        }
        let text = ip.as_str().unwrap_or_default();
        let wrong = if before.contains(ip) { Vec::new() } else { names::ip(text) };
        is_wrong |= !wrong.is_empty();
        found.extend(Violation::all_invalid(list.index(index), text, wrong));
    }
    if ips.len() > 2 {
        found.push(Violation::invalid(list, ips, "may only hold up to 2 values"));
    }
    // What follows would only confuse.
    if !is_wrong {
        of_their_families(ips, families, list, &mut found);
    }
    found
}

fn of_their_families(ips: &[Value], families: &[Value], list: At<'_>, found: &mut Found) {
    let is_v6 = |ip: &Value| ip.as_str().is_some_and(|ip| ip.contains(':'));
    let sixes = ips.iter().filter(|ip| is_v6(ip)).count();
    if ips.len() > 1 && (sixes == 0 || sixes == ips.len()) {
        found.push(Violation::invalid(list, ips, "may specify no more than one IP for each IP family"));
    }
    for (index, (ip, family)) in ips.iter().zip(families).enumerate().filter(|(_, (ip, _))| *ip != "None") {
        if (family == "IPv4" && is_v6(ip)) || (family == "IPv6" && !is_v6(ip)) {
            let family = family.as_str().unwrap_or_default();
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            found.push(Violation::invalid(list.index(index), ip, detail));
        }
    }
}

fn balancer(service: &Value, old: Option<&Value>, at: At<'_>, found: &mut Found) {
    const DETAIL: &str = "may only be used when `type` is 'LoadBalancer'";
    let spec = &service["spec"];
    let is_balanced = path::text(spec, "type") == "LoadBalancer";
    // Upstream writes this one with a capital letter.
    let ranges_at = at.field("LoadBalancerSourceRanges");
    let ranges = path::list(spec, "loadBalancerSourceRanges");
    let annotation =
        |service: &Value| service["metadata"]["annotations"][SOURCE_RANGES].as_str().map(str::to_owned);
    if !ranges.is_empty() {
        if !is_balanced {
            found.push(Violation::forbidden(ranges_at, DETAIL));
        }
        let before = old.map(|old| path::list(old, "spec.loadBalancerSourceRanges")).unwrap_or_default();
        let before: Vec<&str> = before.iter().filter_map(Value::as_str).map(str::trim).collect();
        for (index, range) in ranges.iter().enumerate() {
            let range = range.as_str().unwrap_or_default().trim();
            let wrong = if before.contains(&range) { Vec::new() } else { names::cidr(range) };
            found.extend(Violation::all_invalid(ranges_at.index(index), range, wrong));
        }
    } else if let Some(ranges) = annotation(service) {
        let at = At::root("metadata.annotations");
        let at = at.key(SOURCE_RANGES);
        if !is_balanced {
            found.push(Violation::forbidden(at, DETAIL));
        }
        if old.and_then(annotation).as_ref() != Some(&ranges) && !ranges.trim().is_empty() {
            for range in ranges.split(',').map(str::trim) {
                found.extend(Violation::all_invalid(at, range, names::cidr(range)));
            }
        }
    }
    if spec.get("allocateLoadBalancerNodePorts").is_some() && !is_balanced {
        found.push(Violation::forbidden(at.field("allocateLoadBalancerNodePorts"), DETAIL));
    }
    class(spec, at, found);
}

fn class(spec: &Value, at: At<'_>, found: &mut Found) {
    if path::text(spec, "type") == "LoadBalancer" {
        check::follows_if_set(spec, "loadBalancerClass", names::qualified_name, at, found);
    } else if spec.get("loadBalancerClass").is_some() {
        let at = at.field("loadBalancerClass");
        found.push(Violation::forbidden(at, "may only be used when `type` is 'LoadBalancer'"));
    }
}

/// Whether a port of each node tells if it has endpoints.
pub fn needs_health_port(spec: &Value) -> bool {
    path::text(spec, "type") == "LoadBalancer" && path::text(spec, "externalTrafficPolicy") == "Local"
}

fn traffic(spec: &Value, at: At<'_>, found: &mut Found) {
    let outward = path::text(spec, "externalTrafficPolicy");
    let outward_at = at.field("externalTrafficPolicy");
    if !is_outward(spec) {
        if !outward.is_empty() {
            let detail = "may only be set for externally-accessible services";
            found.push(Violation::invalid(outward_at, outward, detail));
        }
    } else if outward.is_empty() {
        found.push(Violation::required(outward_at, ""));
    } else {
        check::one_of(spec, "externalTrafficPolicy", &["Cluster", "Local"], at, found);
    }
    let (port, port_at) =
        (path::int(spec, "healthCheckNodePort").unwrap_or_default(), at.field("healthCheckNodePort"));
    match (needs_health_port(spec), port) {
        (false, 0) => {}
        (false, _) => {
            let detail =
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            found.push(Violation::invalid(port_at, port, detail));
        }
        (true, 0) => found.push(Violation::required(port_at, "")),
        (true, _) => found.extend(Violation::all_invalid(port_at, port, names::port_number(port))),
    }
    check::one_of(spec, "internalTrafficPolicy", &["Cluster", "Local"], at, found);
    let distributions = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    check::one_of(spec, "trafficDistribution", &distributions, at, found);
}

fn status(service: &Value, old: Option<&Value>, found: &mut Found) {
    const AT: &str = "status.loadBalancer.ingress";
    let (given, list) = (path::list(service, AT), At::root(AT));
    if !given.is_empty() && path::text(service, "spec.type") != "LoadBalancer" {
        found.push(Violation::forbidden(list, "may only be used when `spec.type` is 'LoadBalancer'"));
        return;
    }
    let held = old.map(|old| path::list(old, AT)).unwrap_or_default();
    addresses::balanced(given, held, true, list, found);
}

fn changes(spec: &Value, before: &Value, at: At<'_>, found: &mut Found) {
    let (kind, old_kind) = (path::text(spec, "type"), path::text(before, "type"));
    if kind != "ExternalName" && old_kind != "ExternalName" {
        changed_addresses(spec, before, at, found);
        changed_families(spec, before, at, found);
    }
    if kind == "LoadBalancer"
        && old_kind == "LoadBalancer"
        && spec.get("loadBalancerClass") != before.get("loadBalancerClass")
    {
        let class = &spec["loadBalancerClass"];
        found.push(Violation::invalid(at.field("loadBalancerClass"), class, "may not change once set"));
    }
    class(spec, at, found);
    let port = |spec: &Value| path::int(spec, "healthCheckNodePort").unwrap_or_default();
    if needs_health_port(spec) && needs_health_port(before) && port(spec) != port(before) {
        found.push(Violation::forbidden(at.field("healthCheckNodePort"), "field is immutable"));
    }
}

const SET: &str = "may not change once set";

/// The first address stays; the second may come, and go by itself with the policy that says so.
fn changed_addresses(spec: &Value, before: &Value, at: At<'_>, found: &mut Found) {
    if is_headless(spec) && is_headless(before) {
        return;
    }
    let (new, old) = (path::list(spec, "clusterIPs"), path::list(before, "clusterIPs"));
    let list = at.field("clusterIPs");
    if new.len() == old.len() {
        let changed = (0..new.len()).filter(|&index| new[index] != old[index]);
        found.extend(changed.map(|index| Violation::invalid(list.index(index), new, SET)));
        return;
    }
    if new.is_empty() {
        found.push(Violation::invalid(list.index(0), Value::Null, "primary clusterIP can not be unset"));
    }
    if let (Some(now), Some(was)) = (new.first(), old.first())
        && now != was
    {
        found.push(Violation::invalid(list.index(0), new, SET));
    }
    if new.len() == 1 && old.len() > 1 {
        released(spec, "must be set to 'SingleStack' when releasing the secondary clusterIP", at, found);
    }
}

/// As of addresses; a headless one may change its families.
fn changed_families(spec: &Value, before: &Value, at: At<'_>, found: &mut Found) {
    if is_headless(spec) || is_headless(before) {
        return;
    }
    let (new, old) = (path::list(spec, "ipFamilies"), path::list(before, "ipFamilies"));
    let list = at.field("ipFamilies");
    let first = list.index(0);
    if new.len() == old.len() {
        let changed = (0..new.len()).filter(|&index| new[index] != old[index]);
        found.extend(changed.map(|_| Violation::invalid(first, new, SET)));
        return;
    }
    let addresses = path::list(spec, "clusterIPs");
    if new.len() < old.len() && addresses.is_empty() {
        found.push(Violation::invalid(first, new, "primary ipFamily can not be unset"));
    }
    if let (Some(now), Some(was)) = (new.first(), old.first())
        && now != was
    {
        found.push(Violation::invalid(first, addresses, SET));
    }
    if new.len() == 1 && old.len() > 1 {
        released(spec, "must be set to 'SingleStack' when releasing the secondary ipFamily", at, found);
    }
}

fn released(spec: &Value, detail: &str, at: At<'_>, found: &mut Found) {
    if path::text(spec, "ipFamilyPolicy") != "SingleStack" {
        found.push(Violation::invalid(at.field("ipFamilyPolicy"), &spec["ipFamilyPolicy"], detail));
    }
}

/// What has no effect, is read otherwise than it looks, or will go.
pub fn warn(service: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    if service["metadata"]["annotations"].get(OLD_HINTS).is_some() {
        found.push(format!("annotation {OLD_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"));
    }
    let spec = &service["spec"];
    let kind = path::text(spec, "type");
    let is_headless = kind == "ClusterIP" && path::text(spec, "clusterIP") == "None";
    let externals = path::list(spec, "externalIPs");
    let of_list = |list: &str, warn: fn(&str, &str) -> Option<String>| -> Vec<String> {
        let all = path::list(spec, list).iter().enumerate();
        all.filter_map(|(index, value)| warn(&format!("spec.{list}[{index}]"), value.as_str()?)).collect()
    };
    if !matches!(path::text(spec, "clusterIP"), "" | "None") {
        found.extend(of_list("clusterIPs", addresses::warn_of_ip));
    }
    if is_headless {
        let ignored = [
            ("loadBalancerIP", !path::text(spec, "loadBalancerIP").is_empty()),
            ("externalIPs", !externals.is_empty()),
            ("SessionAffinity", path::text(spec, "sessionAffinity") != "None"),
        ];
        let ignored = ignored.iter().filter(|(_, is_set)| *is_set);
        found.extend(ignored.map(|(field, _)| format!("spec.{field} is ignored for headless services")));
    }
    found.extend(of_list("externalIPs", addresses::warn_of_ip));
    if !externals.is_empty() && !is_headless && kind != "ExternalName" {
        found.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".into());
    }
    found.extend(addresses::warn_of_ip("spec.loadBalancerIP", path::text(spec, "loadBalancerIP")));
    found.extend(of_list("loadBalancerSourceRanges", addresses::warn_of_cidr));
    if kind == "ExternalName" && !externals.is_empty() {
        found.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if kind != "ExternalName" && !path::text(spec, "externalName").is_empty() {
        found.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
    if path::text(spec, "trafficDistribution") == "PreferClose" {
        found.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into());
    }
    found
}
