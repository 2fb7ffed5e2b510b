use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::{Kind, Strategy};

pub const VALIDATING_ADMISSION_POLICIES: Resource =
    Resource::new("validatingadmissionpolicies.admissionregistration.k8s.io");

pub static KIND: Kind = Kind {
    resource: VALIDATING_ADMISSION_POLICIES,
    group: "admissionregistration.k8s.io",
    version: "v1",
    kind: "ValidatingAdmissionPolicy",
    singular: "validatingadmissionpolicy",
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[subresource::STATUS],
    type_name: "admissionregistration.v1.ValidatingAdmissionPolicy",
    columns: &[column::NAME, column::AGE],
    strategy: Strategy { unconditional_update: false, ..strategy::SPEC_AND_STATUS },
    ..row::BASE
};
