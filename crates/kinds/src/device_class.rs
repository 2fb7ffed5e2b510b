use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

pub const DEVICE_CLASSES: Resource = Resource::new("deviceclasses.resource.k8s.io");

pub static KIND: Kind = Kind {
    resource: DEVICE_CLASSES,
    group: "resource.k8s.io",
    version: "v1",
    kind: "DeviceClass",
    singular: "deviceclass",
    namespaced: false,
    type_name: "resource.v1.DeviceClass",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::SPEC,
    ..row::BASE
};
