use crate::{column, row, strategy};
use object::Resource;
use schema::{Kind, Strategy};

pub const MUTATING_WEBHOOK_CONFIGURATIONS: Resource =
    Resource::new("mutatingwebhookconfigurations.admissionregistration.k8s.io");

pub static KIND: Kind = Kind {
    resource: MUTATING_WEBHOOK_CONFIGURATIONS,
    group: "admissionregistration.k8s.io",
    version: "v1",
    kind: "MutatingWebhookConfiguration",
    singular: "mutatingwebhookconfiguration",
    categories: &["api-extensions"],
    namespaced: false,
    type_name: "admissionregistration.v1.MutatingWebhookConfiguration",
    columns: &[column::NAME, column::AGE],
    strategy: Strategy { generation: &["webhooks"], ..strategy::GUARDED },
    ..row::BASE
};
