use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::{Kind, Strategy};

pub const API_SERVICES: Resource = Resource::new("apiservices.apiregistration.k8s.io");

pub static KIND: Kind = Kind {
    resource: API_SERVICES,
    group: "apiregistration.k8s.io",
    version: "v1",
    kind: "APIService",
    singular: "apiservice",
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[subresource::STATUS],
    type_name: "apiregistration.v1.APIService",
    columns: &[column::NAME, column::AGE],
    strategy: Strategy { main_keeps: &["status"], ..strategy::GUARDED },
    ..row::BASE
};
