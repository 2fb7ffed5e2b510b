use object::Resource;
use schema::{Kind, Strategy, Subresource, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, labels, text, text_or, wide};
use crate::service_spec;
pub use crate::service_spec::{is_outward, needs_health_port, validate_addresses};
use crate::{column, row, strategy, subresource};

pub const SERVICES: Resource = Resource::new("services");

pub static KIND: Kind = Kind {
    resource: SERVICES,
    group: "",
    version: "v1",
    kind: "Service",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    subresources: &[
        Subresource {
            name: "proxy",
            gvk: Some(("", "v1", "ServiceProxyOptions")),
            verbs: subresource::PROXY_VERBS,
        },
        subresource::STATUS,
    ],
    type_name: "core.v1.Service",
    columns: &[
        NAME,
        column("Type", "string", "How it is reached.", |object, _| text(object, "spec.type")),
        column("Cluster-IP", "string", "Its address within the cluster.", |object, _| {
            match path::list(object, "spec.clusterIPs").first().and_then(Value::as_str) {
                None => text_or(object, "spec.clusterIP", "<none>"),
                Some(ip) => ip.into(),
            }
        }),
        column("External-IP", "string", "Its addresses outside of the cluster.", |object, _| {
            external(object).into()
        }),
        column("Port(s)", "string", "Its ports.", |object, _| ports(object)),
        AGE,
        wide("Selector", "string", "Which pods serve it.", |object, _| labels(object, "spec.selector")),
    ],
    selectable: &["spec.clusterIP", "spec.type"],
    strategy: Strategy { create_on_update: true, main_keeps: &["status"], prepare, ..strategy::PLAIN },
    name: names::dns_label,
    default: service_spec::default,
    validate: service_spec::validate,
    warn: service_spec::warn,
    ..row::BASE
};

/// A name has no traffic that a policy could be about: upstream stores the one that it once gave it, and shows it to nobody.
fn prepare(service: &mut Value, old: Option<&Value>) {
    if path::text(service, "spec.type") == "ExternalName" {
        path::remove(service, "spec.internalTrafficPolicy");
    }
    if old.is_none() {
        service["status"] = json!({"loadBalancer": {}});
    } else if path::text(service, "spec.type") != "LoadBalancer" {
        path::set(service, "status.loadBalancer", json!({}));
    }
}

fn external(service: &Value) -> String {
    let own = column::join(path::list(service, "spec.externalIPs"), |ip| ip.as_str().unwrap_or_default());
    match path::text(service, "spec.type") {
        "ClusterIP" | "NodePort" if own.is_empty() => "<none>".into(),
        "ClusterIP" | "NodePort" => own,
        "ExternalName" => path::text(service, "spec.externalName").into(),
        "LoadBalancer" => {
            let given = column::ingress(path::list(service, "status.loadBalancer.ingress"));
            match (given.is_empty(), own.is_empty()) {
                (true, true) => "<pending>".into(),
                (true, false) => own,
                (false, true) => given,
                (false, false) => format!("{given},{own}"),
            }
        }
        _ => "<unknown>".into(),
    }
}

fn ports(service: &Value) -> Value {
    let texts: Vec<String> = path::list(service, "spec.ports")
        .iter()
        .map(|port| {
            let number = path::int(port, "port").unwrap_or_default();
            let protocol = path::text(port, "protocol");
            match path::int(port, "nodePort").unwrap_or_default() {
                0 => format!("{number}/{protocol}"),
                node => format!("{number}:{node}/{protocol}"),
            }
        })
        .collect();
    if texts.is_empty() { "<none>".into() } else { texts.join(",").into() }
}
