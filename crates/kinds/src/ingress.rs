use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::Kind;

pub const INGRESSES: Resource = Resource::new("ingresses.networking.k8s.io");

pub static KIND: Kind = Kind {
    resource: INGRESSES,
    group: "networking.k8s.io",
    version: "v1",
    kind: "Ingress",
    singular: "ingress",
    short_names: &["ing"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "networking.v1.Ingress",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::SPEC_AND_STATUS,
    ..row::BASE
};
