use object::Resource;
use schema::{Kind, names};

use crate::column::{CREATED_AT, NAME};
use crate::spec::rules;
use crate::{row, strategy};

pub const ROLES: Resource = Resource::new("roles.rbac.authorization.k8s.io");

pub static KIND: Kind = Kind {
    resource: ROLES,
    group: "rbac.authorization.k8s.io",
    version: "v1",
    kind: "Role",
    singular: "role",
    namespaced: true,
    type_name: "rbac.v1.Role",
    columns: &[NAME, CREATED_AT],
    strategy: strategy::CREATE_ON_UPDATE,
    name: names::path_segment,
    validate: |role, _| rules::validate_role(role, false),
    ..row::BASE
};
