use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::{Kind, Strategy};

pub const VOLUME_ATTACHMENTS: Resource = Resource::new("volumeattachments.storage.k8s.io");

pub static KIND: Kind = Kind {
    resource: VOLUME_ATTACHMENTS,
    group: "storage.k8s.io",
    version: "v1",
    kind: "VolumeAttachment",
    singular: "volumeattachment",
    namespaced: false,
    subresources: &[subresource::STATUS],
    type_name: "storage.v1.VolumeAttachment",
    columns: &[column::NAME, column::AGE],
    strategy: Strategy { main_keeps: &["status"], ..strategy::GUARDED },
    ..row::BASE
};
