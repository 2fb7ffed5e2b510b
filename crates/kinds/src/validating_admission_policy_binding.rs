use crate::{column, row, strategy};
use object::Resource;
use schema::{Kind, Strategy};

pub const VALIDATING_ADMISSION_POLICY_BINDINGS: Resource =
    Resource::new("validatingadmissionpolicybindings.admissionregistration.k8s.io");

pub static KIND: Kind = Kind {
    resource: VALIDATING_ADMISSION_POLICY_BINDINGS,
    group: "admissionregistration.k8s.io",
    version: "v1",
    kind: "ValidatingAdmissionPolicyBinding",
    singular: "validatingadmissionpolicybinding",
    categories: &["api-extensions"],
    namespaced: false,
    type_name: "admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    columns: &[column::NAME, column::AGE],
    strategy: Strategy { generation: &["spec"], ..strategy::GUARDED },
    ..row::BASE
};
