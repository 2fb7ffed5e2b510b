use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

pub const RESOURCE_CLAIM_TEMPLATES: Resource = Resource::new("resourceclaimtemplates.resource.k8s.io");

pub static KIND: Kind = Kind {
    resource: RESOURCE_CLAIM_TEMPLATES,
    group: "resource.k8s.io",
    version: "v1",
    kind: "ResourceClaimTemplate",
    singular: "resourceclaimtemplate",
    namespaced: true,
    type_name: "resource.v1.ResourceClaimTemplate",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::PLAIN,
    ..row::BASE
};
