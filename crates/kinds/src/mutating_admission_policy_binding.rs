use object::Resource;
use schema::{Kind, Strategy};

use crate::column::{AGE, NAME, column, text};
use crate::spec::admission_policy;
use crate::{row, strategy};

pub const MUTATING_ADMISSION_POLICY_BINDINGS: Resource =
    Resource::new("mutatingadmissionpolicybindings.admissionregistration.k8s.io");

pub static KIND: Kind = Kind {
    resource: MUTATING_ADMISSION_POLICY_BINDINGS,
    group: "admissionregistration.k8s.io",
    version: "v1",
    // KEP-3962
    since: 36,
    kind: "MutatingAdmissionPolicyBinding",
    singular: "mutatingadmissionpolicybinding",
    categories: &["api-extensions"],
    namespaced: false,
    type_name: "admissionregistration.v1.MutatingAdmissionPolicyBinding",
    columns: &[
        NAME,
        column("PolicyName", "string", "The policy that it puts to work.", |object, _| {
            text(object, "spec.policyName")
        }),
        column("ParamRef", "string", "Which parameters it takes.", |object, _| {
            admission_policy::param_ref(object)
        }),
        AGE,
    ],
    strategy: Strategy { generation: &["spec"], ..strategy::GUARDED },
    validate: |binding, _| admission_policy::validate_binding(binding, false),
    ..row::BASE
};
