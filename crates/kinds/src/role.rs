use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;
use schema::names;

pub const ROLES: Resource = Resource::new("roles.rbac.authorization.k8s.io");

pub static KIND: Kind = Kind {
    resource: ROLES,
    group: "rbac.authorization.k8s.io",
    version: "v1",
    kind: "Role",
    singular: "role",
    namespaced: true,
    type_name: "rbac.v1.Role",
    name: names::path_segment,
    columns: &[column::NAME, column::CREATED_AT],
    strategy: strategy::CREATE_ON_UPDATE,
    ..row::BASE
};
