use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::Kind;

pub const SERVICE_CIDRS: Resource = Resource::new("servicecidrs.networking.k8s.io");

pub static KIND: Kind = Kind {
    resource: SERVICE_CIDRS,
    group: "networking.k8s.io",
    version: "v1",
    kind: "ServiceCIDR",
    singular: "servicecidr",
    namespaced: false,
    subresources: &[subresource::STATUS],
    type_name: "networking.v1.ServiceCIDR",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::STATUS,
    ..row::BASE
};
