use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::{Kind, Strategy};

pub const CUSTOM_RESOURCE_DEFINITIONS: Resource =
    Resource::new("customresourcedefinitions.apiextensions.k8s.io");

pub static KIND: Kind = Kind {
    resource: CUSTOM_RESOURCE_DEFINITIONS,
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[subresource::STATUS],
    type_name: "apiextensions.v1.CustomResourceDefinition",
    columns: &[column::NAME, column::CREATED_AT],
    strategy: Strategy { unconditional_update: false, ..strategy::SPEC_AND_STATUS },
    ..row::BASE
};
