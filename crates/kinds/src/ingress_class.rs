use object::Resource;
use schema::{At, Cell, Column, Kind, Violation, names, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, text};
use crate::spec::check;
use crate::spec::storage;
use crate::{row, strategy};

pub const INGRESS_CLASSES: Resource = Resource::new("ingressclasses.networking.k8s.io");

pub static KIND: Kind = Kind {
    resource: INGRESS_CLASSES,
    group: "networking.k8s.io",
    version: "v1",
    kind: "IngressClass",
    singular: "ingressclass",
    namespaced: false,
    type_name: "networking.v1.IngressClass",
    columns: &[
        NAME_OR_DEFAULT,
        column("Controller", "string", "Who serves its ingresses.", |object, _| {
            text(object, "spec.controller")
        }),
        column("Parameters", "string", "Where it is configured.", |object, _| parameters(object)),
        AGE,
    ],
    strategy: strategy::SPEC,
    validate,
    ..row::BASE
};

const NAME_OR_DEFAULT: Column = Column {
    cell: Cell::Compiled(|class, _| {
        storage::name_or_default(class, &["ingressclass.kubernetes.io/is-default-class"])
    }),
    ..NAME
};
const CONTROLLER_MAX_BYTES: usize = 250;

fn parameters(class: &Value) -> Value {
    let Some(parameters) = path::get(class, "spec.parameters") else {
        return "<none>".into();
    };
    let (kind, name) = (path::text(parameters, "kind"), path::text(parameters, "name"));
    match path::text(parameters, "apiGroup") {
        "" => format!("{kind}/{name}").into(),
        group => format!("{kind}.{group}/{name}").into(),
    }
}

fn validate(class: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&class["spec"], At::root("spec"));
    if let Some(old) = old {
        let (new, old) = (path::text(spec, "controller"), path::text(old, "spec.controller"));
        if new != old {
            found.push(Violation::immutable(at.field("controller"), new));
        }
    }
    if path::text(spec, "controller").len() > CONTROLLER_MAX_BYTES {
        found.push(Violation::too_long(at.field("controller"), CONTROLLER_MAX_BYTES));
    }
    check::required_name(spec, "controller", names::domain_path, at, &mut found);
    if let Some(parameters) = spec.get("parameters") {
        let at = at.field("parameters");
        check::follows_if_set(parameters, "apiGroup", names::dns_subdomain, at, &mut found);
        for field in ["kind", "name"] {
            check::required_name(parameters, field, names::path_segment, at, &mut found);
        }
        check::one_of(parameters, "scope", &["Cluster", "Namespace"], at, &mut found);
        match (path::text(parameters, "scope"), parameters.get("namespace")) {
            ("Namespace", None) => {
                let detail = "`parameters.scope` is set to 'Namespace'";
                found.push(Violation::required(at.field("namespace"), detail));
            }
            ("Namespace", Some(_)) => {
                check::follows_if_set(parameters, "namespace", names::dns_label, at, &mut found);
            }
            ("Cluster", Some(_)) => {
                let detail = "`parameters.scope` is set to 'Cluster'";
                found.push(Violation::forbidden(at.field("namespace"), detail));
            }
            _ => {}
        }
    }
    found
}
