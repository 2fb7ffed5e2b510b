use crate::{column, row, strategy};
use object::Resource;
use schema::{Kind, Strategy};

pub const POD_TEMPLATES: Resource = Resource::new("podtemplates");

pub static KIND: Kind = Kind {
    resource: POD_TEMPLATES,
    group: "",
    version: "v1",
    kind: "PodTemplate",
    singular: "podtemplate",
    namespaced: true,
    type_name: "core.v1.PodTemplate",
    columns: &[column::NAME, column::AGE],
    strategy: Strategy { generation: &["template"], ..strategy::PLAIN },
    ..row::BASE
};
