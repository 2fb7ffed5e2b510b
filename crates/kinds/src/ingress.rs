use object::Resource;
use schema::{At, Kind, Strategy, Violation, metadata, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, text_or};
use crate::spec::addresses;
use crate::spec::check::{self, Found};
use crate::{column, row, strategy, subresource};

pub const INGRESSES: Resource = Resource::new("ingresses.networking.k8s.io");

pub static KIND: Kind = Kind {
    resource: INGRESSES,
    group: "networking.k8s.io",
    version: "v1",
    kind: "Ingress",
    singular: "ingress",
    short_names: &["ing"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "networking.v1.Ingress",
    columns: &[
        NAME,
        column("Class", "string", "Which controller serves it.", |object, _| {
            text_or(object, "spec.ingressClassName", "<none>")
        }),
        column("Hosts", "string", "The hosts that it routes.", |object, _| hosts(object).into()),
        column("Address", "string", "Where it is reached.", |object, _| {
            column::ingress(path::list(object, "status.loadBalancer.ingress")).into()
        }),
        column("Ports", "string", "The ports that it is reached at.", |object, _| {
            if path::list(object, "spec.tls").is_empty() { "80".into() } else { "80, 443".into() }
        }),
        AGE,
    ],
    strategy: Strategy { prepare, ..strategy::SPEC_AND_STATUS },
    validate,
    warn,
    ..row::BASE
};

fn warn(new: &Value, _old: Option<&Value>) -> Vec<String> {
    let class = "kubernetes.io/ingress.class";
    let is_old_way = new["metadata"]["annotations"].get(class).is_some();
    if !is_old_way || path::get(new, "spec.ingressClassName").is_some() {
        return Vec::new();
    }
    vec![format!("annotation \"{class}\" is deprecated, please use 'spec.ingressClassName' instead")]
}

const SHOWN: usize = 3;
const BALANCED: &str = "status.loadBalancer.ingress";
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];

fn prepare(ingress: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        ingress["status"] = json!({"loadBalancer": {}});
    }
}

fn hosts(ingress: &Value) -> String {
    let rules = path::list(ingress, "spec.rules");
    let named = rules.iter().map(|rule| path::text(rule, "host")).filter(|host| !host.is_empty());
    let hosts: Vec<String> = named.map(str::to_owned).collect();
    column::first(&hosts, SHOWN, "*")
}

fn validate(ingress: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&ingress["spec"], At::root("spec"));
    let rules = path::list(spec, "rules");
    match spec.get("defaultBackend") {
        None if rules.is_empty() => {
            let detail = "either `defaultBackend` or `rules` must be specified";
            found.push(Violation::invalid(at, Value::Null, detail));
        }
        None => {}
        Some(default) => backend(default, at.field("defaultBackend"), &mut found),
    }
    // Rules of wildcards were not looked into once, nor the names of secrets.
    let was_lax = old.is_some_and(|old| path::list(&old["spec"], "rules").iter().any(is_wrong_wildcard));
    for (index, rule) in rules.iter().enumerate() {
        let at = at.field("rules");
        one_rule(rule, was_lax, at.index(index), &mut found);
    }
    let secret_wrong = |entry: &Value| match path::text(entry, "secretName") {
        "" => Vec::new(),
        name => names::dns_subdomain(name),
    };
    let before = old.map(|old| path::list(&old["spec"], "tls")).unwrap_or_default();
    let takes_any_secret = before.iter().any(|entry| !secret_wrong(entry).is_empty());
    for (index, entry) in path::list(spec, "tls").iter().enumerate() {
        let at = at.field("tls");
        let at = at.index(index);
        for (index, host) in path::list(entry, "hosts").iter().enumerate() {
            let at = at.field("hosts");
            host_name(host.as_str().unwrap_or_default(), at.index(index), &mut found);
        }
        if !takes_any_secret {
            let name = path::text(entry, "secretName");
            found.extend(Violation::all_invalid(at.field("secretName"), name, secret_wrong(entry)));
        }
    }
    check::follows_if_set(spec, "ingressClassName", names::dns_subdomain, at, &mut found);
    let annotated =
        path::get(ingress, "metadata.annotations").and_then(|all| all.get(CLASS_ANNOTATION)?.as_str());
    if let (Some(annotated), Some(class)) = (annotated, spec.get("ingressClassName"))
        && class != annotated
        && metadata::is_new(ingress, old)
    {
        let at = At::root("annotations");
        let detail = "must match `ingressClassName` when both are specified";
        found.push(Violation::invalid(at.field(CLASS_ANNOTATION), annotated, detail));
    }
    let held = old.map(|old| path::list(old, BALANCED)).unwrap_or_default();
    addresses::balanced(path::list(ingress, BALANCED), held, false, At::root(BALANCED), &mut found);
    found
}

fn is_wrong_wildcard(rule: &Value) -> bool {
    let mut found = Vec::new();
    if path::text(rule, "host").contains('*') {
        routes(rule, At::root(""), &mut found);
    }
    !found.is_empty()
}

fn host_name(host: &str, at: At<'_>, found: &mut Found) {
    let rule = if host.contains('*') { names::wildcard_subdomain } else { names::dns_subdomain };
    found.extend(Violation::all_invalid(at, host, rule(host)));
}

fn one_rule(rule: &Value, was_lax: bool, at: At<'_>, found: &mut Found) {
    let host = path::text(rule, "host");
    if !host.is_empty() {
        let at = at.field("host");
        if names::lenient_ip(host).is_some() {
            found.push(Violation::invalid(at, host, "must be a DNS name, not an IP address"));
        }
        host_name(host, at, found);
    }
    if !was_lax || !host.contains('*') {
        routes(rule, at, found);
    }
}

fn routes(rule: &Value, at: At<'_>, found: &mut Found) {
    let Some(http) = rule.get("http") else { return };
    let paths = path::list(http, "paths");
    let list = at.field("http.paths");
    if paths.is_empty() {
        found.push(Violation::required(list, ""));
    }
    for (index, one) in paths.iter().enumerate() {
        let at = list.index(index);
        if one.get("pathType").is_none() {
            found.push(Violation::required(at.field("pathType"), "pathType must be specified"));
            continue;
        }
        one_path(one, at, found);
        backend(&one["backend"], at.field("backend"), found);
    }
}

fn one_path(one: &Value, at: At<'_>, found: &mut Found) {
    let (kind, text) = (path::text(one, "pathType"), path::text(one, "path"));
    let path_at = at.field("path");
    match kind {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                found.push(Violation::invalid(path_at, text, "must be an absolute path"));
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.contains(part) {
                    found.push(Violation::invalid(path_at, text, format!("must not contain '{part}'")));
                }
            }
            for end in ["/..", "/."] {
                if text.ends_with(end) {
                    found.push(Violation::invalid(path_at, text, format!("cannot end with '{end}'")));
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                found.push(Violation::invalid(path_at, text, "must be an absolute path"));
            }
        }
        other => found.push(Violation::not_supported(at.field("pathType"), other, &PATH_TYPES)),
    }
}

fn backend(backend: &Value, at: At<'_>, found: &mut Found) {
    match (backend.get("service"), backend.get("resource")) {
        (Some(_), Some(_)) => {
            found.push(Violation::invalid(at, "", "cannot set both resource and service backends"));
        }
        (None, None) => found.push(Violation::invalid(at, "", "resource or service backend is required")),
        (Some(service), None) => {
            let service_at = at.field("service");
            check::required_name(service, "name", names::dns_label, service_at, found);
            let name = path::text(service, "port.name");
            match (name.is_empty(), path::int(service, "port.number").unwrap_or_default()) {
                (true, 0) => found.push(Violation::required(at, "port name or number is required")),
                (false, 0) => {
                    found.extend(Violation::all_invalid(
                        service_at.field("port.name"),
                        name,
                        names::port_name(name),
                    ));
                }
                (true, number) => {
                    let at = service_at.field("port.number");
                    found.extend(Violation::all_invalid(at, number, names::port_number(number)));
                }
                (false, _) => {
                    found.push(Violation::invalid(at, "", "cannot set both port name & port number"))
                }
            }
        }
        (None, Some(resource)) => {
            let at = at.field("resource");
            check::follows_if_set(resource, "apiGroup", names::dns_subdomain, at, found);
            for field in ["kind", "name"] {
                check::required_name(resource, field, names::path_segment, at, found);
            }
        }
    }
}
