use object::Resource;
use schema::{At, Kind, Strategy, Violation};
use serde_json::Value;

use crate::column::{NAME, column, labels};
use crate::spec::template;
use crate::spec::warnings;
use crate::{row, strategy};

pub const POD_TEMPLATES: Resource = Resource::new("podtemplates");

pub static KIND: Kind = Kind {
    resource: POD_TEMPLATES,
    group: "",
    version: "v1",
    kind: "PodTemplate",
    singular: "podtemplate",
    namespaced: true,
    type_name: "core.v1.PodTemplate",
    columns: &[
        NAME,
        column("Containers", "string", "The names of its containers.", |object, _| {
            template::container_names(object.get("template"))
        }),
        column("Images", "string", "The images of its containers.", |object, _| {
            template::images(object.get("template"))
        }),
        column("Pod Labels", "string", "The labels of the pods that it makes.", |object, _| {
            labels(object, "template.metadata.labels")
        }),
    ],
    strategy: Strategy { generation: &["template"], ..strategy::PLAIN },
    default: |template| template::default(template, "template"),
    validate,
    warn: |new, _| warnings::of_pod(&new["template"], "template."),
    ..row::BASE
};

fn validate(object: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    template::validate(&object["template"], At::root("template"), &mut found);
    found
}
