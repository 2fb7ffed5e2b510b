use crate::{column, row, strategy};
use object::Resource;
use schema::{Kind, Strategy};

pub const MUTATING_ADMISSION_POLICY_BINDINGS: Resource =
    Resource::new("mutatingadmissionpolicybindings.admissionregistration.k8s.io");

pub static KIND: Kind = Kind {
    resource: MUTATING_ADMISSION_POLICY_BINDINGS,
    group: "admissionregistration.k8s.io",
    version: "v1",
    kind: "MutatingAdmissionPolicyBinding",
    singular: "mutatingadmissionpolicybinding",
    categories: &["api-extensions"],
    namespaced: false,
    type_name: "admissionregistration.v1.MutatingAdmissionPolicyBinding",
    columns: &[column::NAME, column::AGE],
    strategy: Strategy { generation: &["spec"], ..strategy::GUARDED },
    ..row::BASE
};
