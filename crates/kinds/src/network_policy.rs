use std::collections::HashSet;

use object::Resource;
use schema::{At, Kind, Violation, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column};
use crate::spec::{
    addresses,
    check::{self, Found},
    label_selector, template,
};
use crate::{row, strategy};

pub const NETWORK_POLICIES: Resource = Resource::new("networkpolicies.networking.k8s.io");

pub static KIND: Kind = Kind {
    resource: NETWORK_POLICIES,
    group: "networking.k8s.io",
    version: "v1",
    kind: "NetworkPolicy",
    singular: "networkpolicy",
    short_names: &["netpol"],
    namespaced: true,
    type_name: "networking.v1.NetworkPolicy",
    columns: &[
        NAME,
        column("Pod-Selector", "string", "Which pods it is about.", |object, _| {
            template::selector_text(path::get(object, "spec.podSelector"))
        }),
        AGE,
    ],
    strategy: strategy::SPEC,
    default,
    validate,
    warn,
    ..row::BASE
};

fn warn(new: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in path::list(&new["spec"], rules).iter().enumerate() {
            for (nested, peer) in path::list(rule, peers).iter().enumerate() {
                let at = format!("spec.{rules}[{index}].{peers}[{nested}].ipBlock");
                let block = &peer["ipBlock"];
                found.extend(addresses::warn_of_cidr(&format!("{at}.cidr"), path::text(block, "cidr")));
                for (last, range) in path::list(block, "except").iter().enumerate() {
                    let at = format!("{at}.except[{last}]");
                    found.extend(addresses::warn_of_cidr(&at, range.as_str().unwrap_or_default()));
                }
            }
        }
    }
    found
}

/// It is about what comes in, and about what goes out if it has rules for it.
fn default(policy: &mut Value) {
    let Some(spec) = policy.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    if path::list(spec, "policyTypes").is_empty() {
        let has_egress = !path::list(spec, "egress").is_empty();
        spec["policyTypes"] = if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    }
}

/// The ranges that a policy names, anywhere.
fn ranges(policy: &Value) -> HashSet<&str> {
    let mut found = HashSet::new();
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for peer in path::list(&policy["spec"], rules).iter().flat_map(|rule| path::list(rule, peers)) {
            found.insert(path::text(peer, "ipBlock.cidr"));
            found.extend(path::list(peer, "ipBlock.except").iter().filter_map(Value::as_str));
        }
    }
    found
}

fn validate(policy: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&policy["spec"], At::root("spec"));
    // Upstream cannot tell which is which after a change, and takes every range that was there before.
    let before = old.map(ranges).unwrap_or_default();
    if let Some(selector) = spec.get("podSelector") {
        label_selector::validate(selector, at.field("podSelector"), &mut found);
    }
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in path::list(spec, list).iter().enumerate() {
            let at = at.field(list);
            let at = at.index(index);
            for (index, port) in path::list(rule, "ports").iter().enumerate() {
                let at = at.field("ports");
                one_port(port, at.index(index), &mut found);
            }
            for (index, peer) in path::list(rule, peers).iter().enumerate() {
                let at = at.field(peers);
                one_peer(peer, &before, at.index(index), &mut found);
            }
        }
    }
    let types = path::list(spec, "policyTypes");
    let list = at.field("policyTypes");
    if types.len() > 2 {
        found.push(Violation::invalid(list, types, "may not specify more than two policyTypes"));
        return found;
    }
    for (index, one) in types.iter().enumerate() {
        if one != "Ingress" && one != "Egress" {
            found.push(Violation::not_supported(list.index(index), one, &["Ingress", "Egress"]));
        }
    }
    found
}

fn one_port(port: &Value, at: At<'_>, found: &mut Found) {
    check::one_of(port, "protocol", &["TCP", "UDP", "SCTP"], at, found);
    let (end, end_at) = (path::int(port, "endPort"), at.field("endPort"));
    match (&port["port"], end) {
        (Value::Null, Some(end)) => {
            found.push(Violation::invalid(end_at, end, "may not be specified when `port` is not specified"));
        }
        (Value::Null, None) => {}
        (Value::Number(start), Some(end)) => {
            check::port(port, "port", at, found);
            if start.as_i64().is_some_and(|start| end < start) {
                // Upstream shows the first port, not the last.
                found.push(Violation::invalid(end_at, start, "must be greater than or equal to `port`"));
            }
            found.extend(Violation::all_invalid(end_at, end, names::port_number(end)));
        }
        (_, end) => {
            if let Some(end) = end {
                let detail = "may not be specified when `port` is non-numeric";
                found.push(Violation::invalid(end_at, end, detail));
            }
            check::port(port, "port", at, found);
        }
    }
}

fn one_peer(peer: &Value, before: &HashSet<&str>, at: At<'_>, found: &mut Found) {
    let mut count = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = peer.get(field) {
            count += 1;
            label_selector::validate(selector, at.field(field), found);
        }
    }
    let Some(block) = peer.get("ipBlock") else {
        if count == 0 {
            found.push(Violation::required(at, "must specify a peer"));
        }
        return;
    };
    ip_block(block, before, at.field("ipBlock"), found);
    if count > 0 {
        found.push(Violation::forbidden(at, "may not specify both ipBlock and another peer"));
    }
}

fn ip_block(block: &Value, before: &HashSet<&str>, at: At<'_>, found: &mut Found) {
    let wrong = |range: &str| if before.contains(range) { Vec::new() } else { names::cidr(range) };
    let cidr = path::text(block, "cidr");
    if cidr.is_empty() {
        found.push(Violation::required(at.field("cidr"), ""));
        return;
    }
    found.extend(Violation::all_invalid(at.field("cidr"), cidr, wrong(cidr)));
    if !check::is_range(cidr) {
        return;
    }
    for (index, except) in path::list(block, "except").iter().enumerate() {
        let at = at.field("except");
        let at = at.index(index);
        let except = except.as_str().unwrap_or_default();
        found.extend(Violation::all_invalid(at, except, wrong(except)));
        if check::is_range(except) && !check::is_strict_subnet(except, cidr) {
            found.push(Violation::invalid(at, except, "must be a strict subset of `cidr`"));
        }
    }
}
