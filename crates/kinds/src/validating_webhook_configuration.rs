use crate::{column, row, strategy};
use object::Resource;
use schema::{Kind, Strategy};

pub const VALIDATING_WEBHOOK_CONFIGURATIONS: Resource =
    Resource::new("validatingwebhookconfigurations.admissionregistration.k8s.io");

pub static KIND: Kind = Kind {
    resource: VALIDATING_WEBHOOK_CONFIGURATIONS,
    group: "admissionregistration.k8s.io",
    version: "v1",
    kind: "ValidatingWebhookConfiguration",
    singular: "validatingwebhookconfiguration",
    categories: &["api-extensions"],
    namespaced: false,
    type_name: "admissionregistration.v1.ValidatingWebhookConfiguration",
    columns: &[column::NAME, column::AGE],
    strategy: Strategy { generation: &["webhooks"], ..strategy::GUARDED },
    ..row::BASE
};
