use object::Resource;
use schema::{At, Kind, Strategy, Violation, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column};
use crate::spec::check;
use crate::{row, strategy, subresource};

pub const API_SERVICES: Resource = Resource::new("apiservices.apiregistration.k8s.io");

pub static KIND: Kind = Kind {
    resource: API_SERVICES,
    group: "apiregistration.k8s.io",
    version: "v1",
    kind: "APIService",
    singular: "apiservice",
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[subresource::STATUS],
    type_name: "apiregistration.v1.APIService",
    // That of the core group is "v1.".
    name: names::path_segment,
    columns: &[
        NAME,
        column("Service", "string", "Who serves it.", |object, _| match path::get(object, "spec.service") {
            None => "Local".into(),
            Some(service) => {
                format!("{}/{}", path::text(service, "namespace"), path::text(service, "name")).into()
            }
        }),
        column("Available", "string", "Whether it is served.", |object, _| available(object)),
        AGE,
    ],
    strategy: Strategy { main_keeps: &["status"], prepare, ..strategy::GUARDED },
    validate,
    ..row::BASE
};

fn prepare(service: &mut Value, old: Option<&Value>) {
    if old.is_some() {
        return;
    }
    let is_local = path::get(service, "spec.service").is_none();
    service["status"] = if is_local {
        json!({"conditions": [{
            "type": "Available", "status": "True", "reason": "Local", "message": "Local APIServices are always available",
        }]})
    } else {
        json!({})
    };
}

fn available(service: &Value) -> Value {
    let conditions = path::list(service, "status.conditions");
    let Some(condition) = conditions.iter().find(|one| path::text(one, "type") == "Available") else {
        return "Unknown".into();
    };
    let (status, reason) = (path::text(condition, "status"), path::text(condition, "reason"));
    if status == "True" || reason.is_empty() { status.into() } else { format!("{status} ({reason})").into() }
}

fn validate(service: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&service["spec"], At::root("spec"));
    let (group, version) = (path::text(spec, "group"), path::text(spec, "version"));
    let name = path::text(service, "metadata.name");
    let wanted = format!("{version}.{group}");
    if names::path_segment(name).is_empty() && name != wanted {
        let detail = format!("must be `spec.version+\".\"+spec.group`: \"{wanted}\"");
        found.push(Violation::invalid(At::root("metadata.name"), name, detail));
    }
    if group.is_empty() && version != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        found.push(Violation::required(at.field("group"), detail));
    }
    check::follows(spec, "group", names::dns_subdomain, at, &mut found);
    found.extend(Violation::all_invalid(at.field("version"), version, names::dns_1035_label(version)));
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = path::int(spec, field).unwrap_or_default();
        if !(1..=most).contains(&priority) {
            let detail = format!("must be positive and less than {most}");
            found.push(Violation::invalid(at.field(field), priority, detail));
        }
    }
    let (has_bundle, is_insecure) =
        (!path::text(spec, "caBundle").is_empty(), path::bool(spec, "insecureSkipTLSVerify"));
    match spec.get("service") {
        None => {
            if has_bundle {
                let detail = "local APIServices may not have a caBundle";
                let shown = format!("{} bytes", check::base64_len(&spec["caBundle"]));
                found.push(Violation::invalid(at.field("caBundle"), shown, detail));
            }
            if is_insecure {
                let detail = "local APIServices may not have insecureSkipTLSVerify";
                found.push(Violation::invalid(at.field("insecureSkipTLSVerify"), true, detail));
            }
            return found;
        }
        Some(reference) => {
            let at = at.field("service");
            for field in ["namespace", "name"] {
                check::required(reference, field, at, &mut found);
            }
            let port = path::int(reference, "port").unwrap_or_default();
            for wrong in names::port_number(port) {
                let detail = format!("port is not valid: {wrong}");
                found.push(Violation::invalid(at.field("port"), port, detail));
            }
        }
    }
    if has_bundle && is_insecure {
        let detail = "may not be true if caBundle is present";
        found.push(Violation::invalid(at.field("insecureSkipTLSVerify"), true, detail));
    }
    found
}
