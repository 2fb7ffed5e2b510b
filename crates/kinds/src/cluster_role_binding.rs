use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;
use schema::names;

pub const CLUSTER_ROLE_BINDINGS: Resource = Resource::new("clusterrolebindings.rbac.authorization.k8s.io");

pub static KIND: Kind = Kind {
    resource: CLUSTER_ROLE_BINDINGS,
    group: "rbac.authorization.k8s.io",
    version: "v1",
    kind: "ClusterRoleBinding",
    singular: "clusterrolebinding",
    namespaced: false,
    type_name: "rbac.v1.ClusterRoleBinding",
    name: names::path_segment,
    columns: &[column::NAME, column::AGE],
    strategy: strategy::CREATE_ON_UPDATE,
    ..row::BASE
};
