use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;
use schema::names;

pub const CLUSTER_ROLES: Resource = Resource::new("clusterroles.rbac.authorization.k8s.io");

pub static KIND: Kind = Kind {
    resource: CLUSTER_ROLES,
    group: "rbac.authorization.k8s.io",
    version: "v1",
    kind: "ClusterRole",
    singular: "clusterrole",
    namespaced: false,
    type_name: "rbac.v1.ClusterRole",
    name: names::path_segment,
    columns: &[column::NAME, column::CREATED_AT],
    strategy: strategy::CREATE_ON_UPDATE,
    ..row::BASE
};
