use crate::{column, row, strategy};
use object::Resource;
use schema::{Kind, Strategy};

pub const MUTATING_ADMISSION_POLICIES: Resource =
    Resource::new("mutatingadmissionpolicies.admissionregistration.k8s.io");

pub static KIND: Kind = Kind {
    resource: MUTATING_ADMISSION_POLICIES,
    group: "admissionregistration.k8s.io",
    version: "v1",
    kind: "MutatingAdmissionPolicy",
    singular: "mutatingadmissionpolicy",
    categories: &["api-extensions"],
    namespaced: false,
    type_name: "admissionregistration.v1.MutatingAdmissionPolicy",
    columns: &[column::NAME, column::AGE],
    strategy: Strategy { generation: &["spec"], ..strategy::GUARDED },
    ..row::BASE
};
