use object::Resource;
use schema::{At, Kind, Strategy, Violation, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, name_column, text};
use crate::spec::check::{self, Found};
use crate::spec::volume;
use crate::{persistent_volume, row, strategy, subresource};

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
    columns: &[
        NAME,
        name_column("Attacher", "The driver that attaches it.", |object, _| text(object, "spec.attacher")),
        column("PV", "string", "The volume that is attached.", |object, _| {
            text(object, "spec.source.persistentVolumeName")
        }),
        column("Node", "string", "The node that it is attached to.", |object, _| {
            text(object, "spec.nodeName")
        }),
        column("Attached", "boolean", "Whether it is attached.", |object, _| {
            path::bool(object, "status.attached").into()
        }),
        AGE,
    ],
    strategy: Strategy { main_keeps: &["status"], prepare, status_keeps_metadata: true, ..strategy::GUARDED },
    validate,
    ..row::BASE
};

fn prepare(attachment: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        attachment["status"] = json!({"attached": false});
    }
}

const METADATA_MAX_BYTES: usize = 256 * 1024;
const ERROR_MAX_BYTES: usize = 1024;

fn validate(attachment: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&attachment["spec"], At::root("spec"));
    volume::csi_driver(spec, "attacher", at, &mut found);
    let (source, source_at) = (&spec["source"], at.field("source"));
    let exactly_one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (source.get("inlineVolumeSpec"), source.get("persistentVolumeName")) {
        (None, None) => found.push(Violation::required(source_at, exactly_one)),
        (Some(_), Some(_)) => found.push(Violation::forbidden(source_at, exactly_one)),
        (None, Some(name)) if name == "" => {
            let at = source_at.field("persistentVolumeName");
            found.push(Violation::required(at, "must specify non empty persistentVolumeName"));
        }
        (None, Some(_)) => {}
        (Some(inline), None) => {
            persistent_volume::validate_inline(inline, source_at.field("inlineVolumeSpec"), &mut found);
        }
    }
    let node = path::text(spec, "nodeName");
    found.extend(Violation::all_invalid(at.field("nodeName"), node, names::dns_subdomain(node)));
    status(&attachment["status"], &mut found);
    check::follows_if_set(source, "persistentVolumeName", names::dns_subdomain, source_at, &mut found);
    if let Some(old) = old {
        check::immutable(attachment, old, "spec", At::root(""), &mut found);
    }
    found
}

fn status(status: &Value, found: &mut Found) {
    let at = At::root("status");
    let entries = path::members(status, "attachmentMetadata");
    let bytes: usize = entries.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes > METADATA_MAX_BYTES {
        found.push(Violation::too_long(at.field("attachmentMetadata"), METADATA_MAX_BYTES));
    }
    for field in ["attachError", "detachError"] {
        let (error, at) = (&status[field], at.field(field));
        if path::text(error, "message").len() > ERROR_MAX_BYTES {
            // Upstream tells the limit of the metadata.
            found.push(Violation::too_long(at.field("message"), METADATA_MAX_BYTES));
        }
        check::between(error, "errorCode", 0, i64::from(i32::MAX), at, found);
    }
}
