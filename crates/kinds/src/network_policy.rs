use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

pub const NETWORK_POLICIES: Resource = Resource::new("networkpolicies.networking.k8s.io");

pub static KIND: Kind = Kind {
    resource: NETWORK_POLICIES,
    group: "networking.k8s.io",
    version: "v1",
    kind: "NetworkPolicy",
    singular: "networkpolicy",
    short_names: &["netpol"],
    namespaced: true,
    type_name: "networking.v1.NetworkPolicy",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::SPEC,
    ..row::BASE
};
