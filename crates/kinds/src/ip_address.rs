use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;
use schema::names;

pub const IP_ADDRESSES: Resource = Resource::new("ipaddresses.networking.k8s.io");

pub static KIND: Kind = Kind {
    resource: IP_ADDRESSES,
    group: "networking.k8s.io",
    version: "v1",
    kind: "IPAddress",
    singular: "ipaddress",
    short_names: &["ip"],
    namespaced: false,
    type_name: "networking.v1.IPAddress",
    name: names::canonical_ip,
    columns: &[column::NAME, column::AGE],
    strategy: strategy::PLAIN,
    ..row::BASE
};
