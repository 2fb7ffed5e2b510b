use object::Resource;
use schema::{At, Kind, Violation, names, path};
use serde_json::Value;

use crate::column::{NAME, column};
use crate::spec::check;
use crate::{row, strategy};

pub const IP_ADDRESSES: Resource = Resource::new("ipaddresses.networking.k8s.io");

pub static KIND: Kind = Kind {
    resource: IP_ADDRESSES,
    group: "networking.k8s.io",
    version: "v1",
    kind: "IPAddress",
    singular: "ipaddress",
    short_names: &["ip"],
    namespaced: false,
    type_name: "networking.v1.IPAddress",
    columns: &[NAME, column("ParentRef", "string", "Who has it.", |object, _| parent(object))],
    strategy: strategy::PLAIN,
    name: names::canonical_ip,
    validate,
    ..row::BASE
};

fn parent(address: &Value) -> Value {
    let Some(parent) = path::get(address, "spec.parentRef") else {
        return "<none>".into();
    };
    let (resource, group) = (path::text(parent, "resource").to_lowercase(), path::text(parent, "group"));
    let resource = if group.is_empty() { resource } else { format!("{resource}.{group}") };
    let parts = [resource.as_str(), path::text(parent, "namespace"), path::text(parent, "name")];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("/").into()
}

fn validate(address: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&address["spec"], At::root("spec"));
    let parent_at = at.field("parentRef");
    match spec.get("parentRef") {
        None => found.push(Violation::required(parent_at, "")),
        Some(parent) => {
            check::follows(parent, "group", names::dns_subdomain, parent_at, &mut found);
            check::required_name(parent, "resource", names::path_segment, parent_at, &mut found);
            check::required_name(parent, "name", names::path_segment, parent_at, &mut found);
            check::follows(parent, "namespace", names::path_segment, parent_at, &mut found);
        }
    }
    if let Some(old) = old {
        check::immutable(spec, &old["spec"], "parentRef", at, &mut found);
    }
    found
}
