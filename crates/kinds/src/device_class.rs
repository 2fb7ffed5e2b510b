use object::Resource;
use schema::{At, Kind, Violation, path};
use serde_json::Value;

use crate::spec::{devices, resources};
use crate::{column, row, strategy};

pub const DEVICE_CLASSES: Resource = Resource::new("deviceclasses.resource.k8s.io");

pub static KIND: Kind = Kind {
    resource: DEVICE_CLASSES,
    group: "resource.k8s.io",
    version: "v1",
    kind: "DeviceClass",
    singular: "deviceclass",
    namespaced: false,
    type_name: "resource.v1.DeviceClass",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::SPEC,
    validate,
    ..row::BASE
};

fn validate(class: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&class["spec"], At::root("spec"));
    devices::selectors(path::list(spec, "selectors"), at.field("selectors"), &mut found);
    devices::configurations(path::list(spec, "config"), at.field("config"), &mut found);
    if let Some(name) = spec.get("extendedResourceName").and_then(Value::as_str)
        && !resources::is_extended(name)
    {
        let detail = "must be a valid extended resource name";
        found.push(Violation::invalid(at.field("extendedResourceName"), name, detail));
    }
    found
}
