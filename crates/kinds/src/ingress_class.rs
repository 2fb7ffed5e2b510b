use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

pub const INGRESS_CLASSES: Resource = Resource::new("ingressclasses.networking.k8s.io");

pub static KIND: Kind = Kind {
    resource: INGRESS_CLASSES,
    group: "networking.k8s.io",
    version: "v1",
    kind: "IngressClass",
    singular: "ingressclass",
    namespaced: false,
    type_name: "networking.v1.IngressClass",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::SPEC,
    ..row::BASE
};
