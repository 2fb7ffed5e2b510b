use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;
use schema::names;

pub const ROLE_BINDINGS: Resource = Resource::new("rolebindings.rbac.authorization.k8s.io");

pub static KIND: Kind = Kind {
    resource: ROLE_BINDINGS,
    group: "rbac.authorization.k8s.io",
    version: "v1",
    kind: "RoleBinding",
    singular: "rolebinding",
    namespaced: true,
    type_name: "rbac.v1.RoleBinding",
    name: names::path_segment,
    columns: &[column::NAME, column::AGE],
    strategy: strategy::CREATE_ON_UPDATE,
    ..row::BASE
};
