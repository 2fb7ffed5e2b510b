use crate::{column, row, strategy};
use object::Resource;
use schema::{Kind, Subresource};

pub const SERVICE_ACCOUNTS: Resource = Resource::new("serviceaccounts");

pub static KIND: Kind = Kind {
    resource: SERVICE_ACCOUNTS,
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    singular: "serviceaccount",
    short_names: &["sa"],
    namespaced: true,
    subresources: &[Subresource {
        name: "token",
        gvk: Some(("authentication.k8s.io", "v1", "TokenRequest")),
        verbs: &["create"],
    }],
    type_name: "core.v1.ServiceAccount",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::PLAIN,
    ..row::BASE
};
