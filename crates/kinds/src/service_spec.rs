//! What a service is and may be.

use schema::{At, Violation, metadata, names, path};
use serde_json::Value;

use crate::spec::addresses;
use crate::spec::check::{self, Found, Seen};

const STICKY_SECONDS: i64 = 10_800;
const STICKY_SECONDS_MAX: i64 = 86_400;
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
fn is_outward(spec: &Value) -> bool {
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
    let is_headless = path::text(spec, "clusterIP") == "None";
    if path::list(spec, "ports").is_empty() && !is_headless && kind != "ExternalName" {
        found.push(Violation::required(at.field("ports"), ""));
    }
    check::one_of(spec, "type", &TYPES, at, &mut found);
    ports(spec, kind, at, &mut found);
    metadata::labels(spec.get("selector"), at.field("selector"), &mut found);
    affinity(spec, at, &mut found);
    cluster_ips(spec, kind, at, &mut found);
    families(spec, kind, at, &mut found);
    if kind == "ExternalName" {
        external_name(spec, at, &mut found);
    }
    for (index, ip) in path::list(spec, "externalIPs").iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        let at = at.field("externalIPs");
        found.extend(Violation::all_invalid(at.index(index), ip, check::outside_ip(ip)));
    }
    traffic(spec, at, &mut found);
    balancer(spec, kind, at, &mut found);
    ingress(service, kind, &mut found);
    if let Some(old) = old {
        changes(spec, &old["spec"], at, &mut found);
    }
    found
}

fn ports(spec: &Value, kind: &str, at: At<'_>, found: &mut Found) {
    let ports = path::list(spec, "ports");
    let list = at.field("ports");
    let (mut names_seen, mut ports_seen, mut node_ports_seen) =
        (Seen::default(), Seen::default(), Seen::default());
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
        check::follows(port, "appProtocol", names::qualified_name, at, found);
        let protocol = path::text(port, "protocol");
        if ports_seen.repeats(format!("{protocol} {number}")) {
            found.push(Violation::duplicate(at, port));
        }
        let node = path::int(port, "nodePort").unwrap_or_default();
        if node == 0 {
            continue;
        }
        let at = at.field("nodePort");
        if kind == "ClusterIP" {
            found.push(Violation::forbidden(at, "may not be used when `type` is 'ClusterIP'"));
        }
        if node_ports_seen.repeats(format!("{protocol} {node}")) {
            found.push(Violation::duplicate(at, node));
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

fn cluster_ips(spec: &Value, kind: &str, at: At<'_>, found: &mut Found) {
    let ips: Vec<&str> = path::list(spec, "clusterIPs").iter().filter_map(Value::as_str).collect();
    let (own, list) = (path::text(spec, "clusterIP"), at.field("clusterIPs"));
    match (own.is_empty(), ips.first()) {
        (true, Some(_)) if kind != "ExternalName" => {
            found.push(Violation::invalid(list, &ips, "must be empty when `clusterIP` is not specified"));
        }
        (false, None) => found.push(Violation::required(list, "")),
        (false, Some(first)) if *first != own => {
            found.push(Violation::invalid(list, &ips, "first value must match `clusterIP`"));
        }
        _ => {}
    }
    if ips.first() == Some(&"None") {
        match kind {
            "LoadBalancer" => {
                let detail = "may not be set to 'None' for LoadBalancer services";
                found.push(Violation::invalid(list.index(0), "None", detail));
            }
            "NodePort" => {
                let detail = "may not be set to 'None' for NodePort services";
                found.push(Violation::invalid(list.index(0), "None", detail));
            }
            _ if ips.len() > 1 => {
                found.push(Violation::invalid(list, &ips, "'None' must be the first and only value"));
            }
            _ => {}
        }
        return;
    }
    if ips.len() > 2 {
        found.push(Violation::invalid(list, &ips, "may only hold up to 2 values"));
    }
    for (index, ip) in ips.iter().enumerate() {
        found.extend(Violation::all_invalid(list.index(index), ip, names::ip(ip)));
        let Some(family) = path::list(spec, "ipFamilies").get(index).and_then(Value::as_str) else {
            continue;
        };
        if (family == "IPv6") != ip.contains(':') {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            found.push(Violation::invalid(list.index(index), ip, detail));
        }
    }
    if let [first, second] = ips[..]
        && first.contains(':') == second.contains(':')
    {
        found.push(Violation::invalid(list, &ips, "may specify no more than one IP for each IP family"));
    }
}

fn families(spec: &Value, kind: &str, at: At<'_>, found: &mut Found) {
    if kind == "ExternalName" {
        for field in ["clusterIPs", "ipFamilies"] {
            if !path::list(spec, field).is_empty() {
                found.push(Violation::forbidden(at.field(field), "may not be set for ExternalName services"));
            }
        }
        if spec.get("ipFamilyPolicy").is_some() {
            found.push(Violation::forbidden(
                at.field("ipFamilyPolicy"),
                "may not be set for ExternalName services",
            ));
        }
        return;
    }
    let families = path::list(spec, "ipFamilies");
    let list = at.field("ipFamilies");
    let mut seen = Seen::default();
    for (index, family) in families.iter().enumerate() {
        if family != "IPv4" && family != "IPv6" {
            found.push(Violation::not_supported(list.index(index), family, &["IPv4", "IPv6"]));
        }
        if seen.repeats(family.to_string()) {
            found.push(Violation::duplicate(list.index(index), family));
        }
    }
    check::one_of(spec, "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"], at, found);
    if path::text(spec, "ipFamilyPolicy") != "SingleStack" {
        return;
    }
    let at = at.field("ipFamilyPolicy");
    for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if path::list(spec, field).len() > 1 {
            let detail =
                format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            found.push(Violation::invalid(at, "SingleStack", detail));
        }
    }
}

fn external_name(spec: &Value, at: At<'_>, found: &mut Found) {
    let name = path::text(spec, "externalName");
    let at = at.field("externalName");
    if name.is_empty() {
        found.push(Violation::required(at, ""));
    } else {
        let plain = name.strip_suffix('.').unwrap_or(name);
        found.extend(Violation::all_invalid(at, name, names::dns_subdomain(plain)));
    }
}

fn traffic(spec: &Value, at: At<'_>, found: &mut Found) {
    let outward = path::text(spec, "externalTrafficPolicy");
    if !outward.is_empty() && !is_outward(spec) {
        let detail = "may only be set for externally-accessible services";
        found.push(Violation::invalid(at.field("externalTrafficPolicy"), outward, detail));
    } else if outward.is_empty() && is_outward(spec) {
        found.push(Violation::required(at.field("externalTrafficPolicy"), ""));
    } else if !outward.is_empty() {
        check::one_of(spec, "externalTrafficPolicy", &["Cluster", "Local"], at, found);
    }
    check::one_of(spec, "internalTrafficPolicy", &["Cluster", "Local"], at, found);
    let distributions = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    check::one_of(spec, "trafficDistribution", &distributions, at, found);
    let port = path::int(spec, "healthCheckNodePort").unwrap_or_default();
    if port != 0 && !(path::text(spec, "type") == "LoadBalancer" && outward == "Local") {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        found.push(Violation::invalid(at.field("healthCheckNodePort"), port, detail));
    }
}

fn balancer(spec: &Value, kind: &str, at: At<'_>, found: &mut Found) {
    let detail = "may only be used when `type` is 'LoadBalancer'";
    // Upstream writes this one with a capital letter.
    let ranges_at = at.field("LoadBalancerSourceRanges");
    let ranges = path::list(spec, "loadBalancerSourceRanges");
    if kind != "LoadBalancer" {
        if !ranges.is_empty() {
            found.push(Violation::forbidden(ranges_at, detail));
        }
        for field in ["loadBalancerClass", "allocateLoadBalancerNodePorts"] {
            if spec.get(field).is_some() {
                found.push(Violation::forbidden(at.field(field), detail));
            }
        }
        return;
    }
    for (index, range) in ranges.iter().enumerate() {
        let range = range.as_str().unwrap_or_default().trim();
        found.extend(Violation::all_invalid(ranges_at.index(index), range, names::cidr(range)));
    }
    check::follows(spec, "loadBalancerClass", names::qualified_name, at, found);
}

fn ingress(service: &Value, kind: &str, found: &mut Found) {
    let given = path::list(service, "status.loadBalancer.ingress");
    let list = At::root("status.loadBalancer.ingress");
    if !given.is_empty() && kind != "LoadBalancer" {
        found.push(Violation::forbidden(list, "may only be used when `spec.type` is 'LoadBalancer'"));
        return;
    }
    for (index, one) in given.iter().enumerate() {
        let at = list.index(index);
        check::follows(one, "ip", names::ip, at, found);
        let has_ip = !path::text(one, "ip").is_empty();
        match (has_ip, one.get("ipMode")) {
            (true, None) => {
                found.push(Violation::required(at.field("ipMode"), "must be specified when `ip` is set"))
            }
            (false, Some(_)) => {
                let detail = "may not be specified when `ip` is not set";
                found.push(Violation::forbidden(at.field("ipMode"), detail));
            }
            _ => check::one_of(one, "ipMode", &["Proxy", "VIP"], at, found),
        }
        let name = path::text(one, "hostname");
        if name.parse::<std::net::IpAddr>().is_ok() {
            found.push(Violation::invalid(
                at.field("hostname"),
                name,
                "must be a DNS name, not an IP address",
            ));
        } else {
            check::follows(one, "hostname", names::dns_subdomain, at, found);
        }
    }
}

fn changes(spec: &Value, before: &Value, at: At<'_>, found: &mut Found) {
    let (kind, old_kind) = (path::text(spec, "type"), path::text(before, "type"));
    if kind != "ExternalName" && old_kind != "ExternalName" {
        primary(spec, before, "clusterIPs", "primary clusterIP can not be unset", at, found);
        primary(spec, before, "ipFamilies", "primary ipFamily can not be unset", at, found);
        let releases =
            |field: &str| path::list(before, field).len() == 2 && path::list(spec, field).len() == 1;
        if releases("clusterIPs") && path::text(spec, "ipFamilyPolicy") != "SingleStack" {
            let detail = "must be 'SingleStack' to release the secondary cluster IP";
            found.push(Violation::invalid(at.field("ipFamilyPolicy"), &spec["ipFamilyPolicy"], detail));
        }
    }
    let stays = kind == "LoadBalancer" && old_kind == "LoadBalancer";
    if stays && spec["loadBalancerClass"] != before["loadBalancerClass"] {
        let class = &spec["loadBalancerClass"];
        found.push(Violation::invalid(at.field("loadBalancerClass"), class, "may not change once set"));
    }
    let port = path::int(before, "healthCheckNodePort").unwrap_or_default();
    let is_local = |spec: &Value| path::text(spec, "externalTrafficPolicy") == "Local";
    if stays
        && port != 0
        && is_local(spec)
        && is_local(before)
        && path::int(spec, "healthCheckNodePort") != Some(port)
    {
        found.push(Violation::forbidden(at.field("healthCheckNodePort"), "field is immutable"));
    }
}

/// The first of a list stays what it is once it is there.
fn primary(spec: &Value, before: &Value, field: &str, unset: &str, at: At<'_>, found: &mut Found) {
    let at = at.field(field);
    match (path::list(before, field).first(), path::list(spec, field).first()) {
        (Some(_), None) => found.push(Violation::invalid(at.index(0), &spec[field], unset)),
        (Some(old), Some(new)) if old != new => {
            // The message shows the whole list.
            found.push(Violation::invalid(at.index(0), &spec[field], "may not change once set"));
        }
        _ => {}
    }
}

/// What has no effect, is read otherwise than it looks, or will go.
pub fn warn(service: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    let old_hints = "service.kubernetes.io/topology-aware-hints";
    if service["metadata"]["annotations"].get(old_hints).is_some() {
        found.push(format!(
            "annotation {old_hints} is deprecated, please use service.kubernetes.io/topology-mode instead"
        ));
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
