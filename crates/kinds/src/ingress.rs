use object::Resource;
use schema::{At, Kind, Strategy, Violation, metadata, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, text_or};
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
    for (index, entry) in path::list(spec, "tls").iter().enumerate() {
        let at = at.field("tls");
        let at = at.index(index);
        for (index, host) in path::list(entry, "hosts").iter().enumerate() {
            let at = at.field("hosts");
            host_name(host.as_str().unwrap_or_default(), at.index(index), &mut found);
        }
        check::follows(entry, "secretName", names::dns_subdomain, at, &mut found);
    }
    match spec.get("defaultBackend") {
        None if rules.is_empty() => {
            let detail = "either `defaultBackend` or `rules` must be specified";
            found.push(Violation::invalid(at, rules, detail));
        }
        None => {}
        Some(default) => backend(default, at.field("defaultBackend"), &mut found),
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = at.field("rules");
        one_rule(rule, at.index(index), &mut found);
    }
    check::follows(spec, "ingressClassName", names::dns_subdomain, at, &mut found);
    let annotated =
        path::get(ingress, "metadata.annotations").and_then(|all| all.get(CLASS_ANNOTATION)?.as_str());
    let class = path::text(spec, "ingressClassName");
    if let Some(annotated) =
        annotated.filter(|one| !class.is_empty() && *one != class && metadata::is_new(ingress, old))
    {
        let at = At::root("annotations");
        let detail = "must match `ingressClassName` when both are specified";
        found.push(Violation::invalid(at.field(CLASS_ANNOTATION), annotated, detail));
    }
    found
}

fn host_name(host: &str, at: At<'_>, found: &mut Found) {
    if host.parse::<std::net::IpAddr>().is_ok() {
        found.push(Violation::invalid(at, host, "must be a DNS name, not an IP address"));
    } else if host.contains('*') {
        found.extend(Violation::all_invalid(at, host, names::wildcard_subdomain(host)));
    } else {
        found.extend(Violation::all_invalid(at, host, names::dns_subdomain(host)));
    }
}

fn one_rule(rule: &Value, at: At<'_>, found: &mut Found) {
    let host = path::text(rule, "host");
    if !host.is_empty() {
        host_name(host, at.field("host"), found);
    }
    let Some(http) = rule.get("http") else { return };
    let paths = path::list(http, "paths");
    let list = at.field("http.paths");
    if paths.is_empty() {
        found.push(Violation::required(list, ""));
    }
    for (index, one) in paths.iter().enumerate() {
        let at = list.index(index);
        one_path(one, at, found);
        backend(&one["backend"], at.field("backend"), found);
    }
}

fn one_path(one: &Value, at: At<'_>, found: &mut Found) {
    let (kind, text) = (path::text(one, "pathType"), path::text(one, "path"));
    let path_at = at.field("path");
    match kind {
        "" => found.push(Violation::required(at.field("pathType"), "pathType must be specified")),
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
        (None, None) => found.push(Violation::required(at, "resource or service backend is required")),
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
            check::follows(resource, "apiGroup", names::dns_subdomain, at, found);
            for field in ["kind", "name"] {
                check::required_name(resource, field, names::path_segment, at, found);
            }
        }
    }
}
