use object::Resource;
use schema::{At, Kind, Strategy, Violation, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, name_column, text};
use crate::spec::check;
use crate::{row, strategy, subresource};

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

fn validate(attachment: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&attachment["spec"], At::root("spec"));
    check::required_name(spec, "attacher", names::dns_subdomain, at, &mut found);
    check::required_name(spec, "nodeName", names::dns_subdomain, at, &mut found);
    let source = &spec["source"];
    match (source.get("inlineVolumeSpec"), source.get("persistentVolumeName")) {
        (Some(_), None) => {}
        (None, Some(name)) if name == "" => {
            let at = at.field("source.persistentVolumeName");
            found.push(Violation::required(at, "must specify non empty persistentVolumeName"));
        }
        (None, Some(_)) => {}
        (Some(_), Some(_)) | (None, None) => {
            let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            found.push(Violation::required(at.field("source"), detail));
        }
    }
    if let Some(old) = old {
        check::immutable(attachment, old, "spec", At::root(""), &mut found);
    }
    found
}
