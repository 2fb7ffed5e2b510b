use object::Resource;
use schema::{Kind, Strategy, path};

use crate::column::{AGE, NAME, column};
use crate::spec::webhook;
use crate::{row, strategy};

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
    columns: &[
        NAME,
        column("Webhooks", "integer", "How many webhooks it names.", |object, _| {
            path::list(object, "webhooks").len().into()
        }),
        AGE,
    ],
    strategy: Strategy { generation: &["webhooks"], ..strategy::GUARDED },
    validate: |configuration, _| webhook::validate_all(path::list(configuration, "webhooks")),
    ..row::BASE
};
