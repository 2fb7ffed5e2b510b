use object::Resource;
use schema::{Kind, names};

use crate::column::{CREATED_AT, NAME};
use crate::spec::rules;
use crate::{row, strategy};

pub const CLUSTER_ROLES: Resource = Resource::new("clusterroles.rbac.authorization.k8s.io");

pub static KIND: Kind = Kind {
    resource: CLUSTER_ROLES,
    group: "rbac.authorization.k8s.io",
    version: "v1",
    kind: "ClusterRole",
    singular: "clusterrole",
    namespaced: false,
    type_name: "rbac.v1.ClusterRole",
    columns: &[NAME, CREATED_AT],
    strategy: strategy::CREATE_ON_UPDATE,
    name: names::path_segment,
    validate: |role, _| rules::validate_role(role, true),
    ..row::BASE
};
