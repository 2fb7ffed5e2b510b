use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::names;
use schema::{Kind, Strategy, Subresource};

pub const SERVICES: Resource = Resource::new("services");

pub static KIND: Kind = Kind {
    resource: SERVICES,
    group: "",
    version: "v1",
    kind: "Service",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    namespaced: true,
    subresources: &[
        Subresource {
            name: "proxy",
            gvk: Some(("", "v1", "ServiceProxyOptions")),
            verbs: subresource::PROXY_VERBS,
        },
        subresource::STATUS,
    ],
    type_name: "core.v1.Service",
    name: names::dns_label,
    columns: &[column::NAME, column::AGE],
    selectable: &["spec.clusterIP", "spec.type"],
    strategy: Strategy { create_on_update: true, main_keeps: &["status"], ..strategy::PLAIN },
    ..row::BASE
};
