use object::Resource;
use schema::{At, Kind, Violation, names, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, text};
use crate::spec::check::{self, Seen};
use crate::{row, strategy};

pub const RESOURCE_SLICES: Resource = Resource::new("resourceslices.resource.k8s.io");

pub static KIND: Kind = Kind {
    resource: RESOURCE_SLICES,
    group: "resource.k8s.io",
    version: "v1",
    kind: "ResourceSlice",
    singular: "resourceslice",
    namespaced: false,
    type_name: "resource.v1.ResourceSlice",
    columns: &[
        NAME,
        column("Node", "string", "The node that has the devices.", |object, _| text(object, "spec.nodeName")),
        column("Driver", "string", "The driver of the devices.", |object, _| text(object, "spec.driver")),
        column("Pool", "string", "The pool that the devices are of.", |object, _| {
            text(object, "spec.pool.name")
        }),
        AGE,
    ],
    selectable: &["spec.nodeName", "spec.driver"],
    strategy: strategy::SPEC,
    validate,
    ..row::BASE
};

fn validate(slice: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&slice["spec"], At::root("spec"));
    check::required_name(spec, "driver", names::dns_subdomain, at, &mut found);
    check::required(&spec["pool"], "name", at.field("pool"), &mut found);
    check::follows(spec, "nodeName", names::dns_subdomain, at, &mut found);
    let devices = path::list(spec, "devices");
    let mut seen = Seen::default();
    for (index, device) in devices.iter().enumerate() {
        let at = at.field("devices");
        let at = at.index(index);
        check::required_name(device, "name", names::dns_label, at, &mut found);
        if seen.repeats(device["name"].to_string()) {
            found.push(Violation::duplicate(at.field("name"), &device["name"]));
        }
    }
    if let Some(old) = old {
        for field in ["driver", "nodeName", "pool.name"] {
            check::immutable(spec, &old["spec"], field, at, &mut found);
        }
    }
    found
}
