use crate::{column, row, strategy};
use object::Resource;
use schema::Kind;

pub const VOLUME_ATTRIBUTES_CLASSES: Resource = Resource::new("volumeattributesclasses.storage.k8s.io");

pub static KIND: Kind = Kind {
    resource: VOLUME_ATTRIBUTES_CLASSES,
    group: "storage.k8s.io",
    version: "v1",
    kind: "VolumeAttributesClass",
    singular: "volumeattributesclass",
    short_names: &["vac"],
    namespaced: false,
    type_name: "storage.v1.VolumeAttributesClass",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::PLAIN,
    ..row::BASE
};
