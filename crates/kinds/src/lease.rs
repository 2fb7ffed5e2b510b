use crate::{column, row, strategy};
use object::Resource;
use schema::{Kind, Strategy};

pub const LEASES: Resource = Resource::new("leases.coordination.k8s.io");

pub static KIND: Kind = Kind {
    resource: LEASES,
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    singular: "lease",
    namespaced: true,
    type_name: "coordination.v1.Lease",
    columns: &[column::NAME, column::AGE],
    strategy: Strategy { create_on_update: true, ..strategy::GUARDED },
    ..row::BASE
};
