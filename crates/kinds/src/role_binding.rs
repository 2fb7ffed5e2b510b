use object::Resource;
use schema::{Kind, names};

use crate::column::{AGE, NAME, column, wide};
use crate::spec::rules;
use crate::{row, strategy};

pub const ROLE_BINDINGS: Resource = Resource::new("rolebindings.rbac.authorization.k8s.io");

pub static KIND: Kind = Kind {
    resource: ROLE_BINDINGS,
    group: "rbac.authorization.k8s.io",
    version: "v1",
    kind: "RoleBinding",
    singular: "rolebinding",
    namespaced: true,
    type_name: "rbac.v1.RoleBinding",
    columns: &[
        NAME,
        column("Role", "string", "The role that it grants.", |object, _| rules::role_text(object)),
        AGE,
        wide("Users", "string", "The users that it is granted to.", |object, _| {
            rules::subjects_text(object, "User")
        }),
        wide("Groups", "string", "The groups that it is granted to.", |object, _| {
            rules::subjects_text(object, "Group")
        }),
        wide("ServiceAccounts", "string", "The service accounts that it is granted to.", |object, _| {
            rules::subjects_text(object, "ServiceAccount")
        }),
    ],
    strategy: strategy::CREATE_ON_UPDATE,
    name: names::path_segment,
    default: rules::default_binding,
    validate: |binding, old| rules::validate_binding(binding, old, false),
    ..row::BASE
};
