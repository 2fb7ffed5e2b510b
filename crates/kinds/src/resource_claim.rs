use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::Kind;

pub const RESOURCE_CLAIMS: Resource = Resource::new("resourceclaims.resource.k8s.io");

pub static KIND: Kind = Kind {
    resource: RESOURCE_CLAIMS,
    group: "resource.k8s.io",
    version: "v1",
    kind: "ResourceClaim",
    singular: "resourceclaim",
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "resource.v1.ResourceClaim",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::STATUS,
    ..row::BASE
};
