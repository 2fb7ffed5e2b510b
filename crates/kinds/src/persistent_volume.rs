use object::Resource;
use schema::{At, Kind, Quantity, Strategy, Violation, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, text, text_or, wide};
use crate::spec::storage;
use crate::spec::{
    affinity,
    check::{self, Found},
    node_labels, resources, volume,
};
use crate::{row, strategy, subresource};

pub const PERSISTENT_VOLUMES: Resource = Resource::new("persistentvolumes");

pub static KIND: Kind = Kind {
    resource: PERSISTENT_VOLUMES,
    group: "",
    version: "v1",
    kind: "PersistentVolume",
    singular: "persistentvolume",
    short_names: &["pv"],
    namespaced: false,
    subresources: &[subresource::STATUS],
    type_name: "core.v1.PersistentVolume",
    columns: &[
        NAME,
        column("Capacity", "string", "How much it holds.", |object, _| {
            text_or(object, "spec.capacity.storage", "0")
        }),
        column("Access Modes", "string", "How it may be used.", |object, _| {
            storage::modes_text(path::list(object, "spec.accessModes")).into()
        }),
        column("Reclaim Policy", "string", "What becomes of it when it is given back.", |object, _| {
            text(object, "spec.persistentVolumeReclaimPolicy")
        }),
        column("Status", "string", "Whether it is taken.", |object, _| storage::phase(object)),
        column("Claim", "string", "Who has it.", |object, _| match path::get(object, "spec.claimRef") {
            None => "".into(),
            Some(claim) => format!("{}/{}", path::text(claim, "namespace"), path::text(claim, "name")).into(),
        }),
        column("StorageClass", "string", "The class that it is of.", |object, _| storage::class(object)),
        column("VolumeAttributesClass", "string", "The class of its attributes.", |object, _| {
            text_or(object, "spec.volumeAttributesClassName", "<unset>")
        }),
        column("Reason", "string", "Why it is as it is.", |object, _| text(object, "status.reason")),
        AGE,
        wide("VolumeMode", "string", "Whether it is a file system or a device.", |object, _| {
            text_or(object, "spec.volumeMode", "<unset>")
        }),
    ],
    strategy: Strategy { main_keeps: &["status"], prepare, ..strategy::PLAIN },
    default,
    validate,
    warn,
    ..row::BASE
};

fn warn(new: &Value, _old: Option<&Value>) -> Vec<String> {
    const GONE: [(&str, &str); 6] = [
        ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    const ANNOTATIONS: [(&str, &str); 2] = [
        (
            "volume.beta.kubernetes.io/storage-class",
            "deprecated since v1.8; use \"storageClassName\" attribute instead",
        ),
        (
            "volume.beta.kubernetes.io/mount-options",
            "deprecated since v1.31; use \"mountOptions\" attribute instead",
        ),
    ];
    let mut found = Vec::new();
    for (key, told) in ANNOTATIONS {
        if new["metadata"]["annotations"].get(key).is_some() {
            found.push(format!("metadata.annotations[{key}]: {told}"));
        }
    }
    if path::text(new, "spec.persistentVolumeReclaimPolicy") == "Recycle" {
        found.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".into());
    }
    let terms = "spec.nodeAffinity.required.nodeSelectorTerms";
    for (index, term) in path::list(new, terms).iter().enumerate() {
        node_labels::warn_of_term(term, &format!("{terms}[{index}]"), &mut found);
    }
    for (kind, told) in GONE.iter().filter(|(kind, _)| new["spec"].get(kind).is_some()) {
        let kind = if *kind == "storageos" { "storageOS" } else { kind };
        found.push(format!("spec.{kind}: {told}"));
    }
    found
}

const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

fn prepare(volume: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        volume["status"] = json!({"phase": "Pending"});
    }
}

fn default(volume: &mut Value) {
    if let Some(status) = volume.get_mut("status").filter(|status| status.is_object()) {
        path::set_default(status, "phase", "Pending");
    }
}

fn validate(volume: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&volume["spec"], At::root("spec"));
    capacity(spec, at.field("capacity"), &mut found);
    let modes = path::list(spec, "accessModes");
    if modes.is_empty() {
        found.push(Violation::required(at.field("accessModes"), ""));
    }
    storage::access_modes(modes, at.field("accessModes"), &mut found);
    if let Some(class) = spec.get("volumeAttributesClassName") {
        if class == "" {
            let at = at.field("volumeAttributesClassName");
            found.push(Violation::required(at, "an empty string is disallowed"));
        }
        if spec.get("csi").is_none() {
            let detail = "has to be specified when using volumeAttributesClassName";
            found.push(Violation::required(at.field("csi"), detail));
        }
    }
    let policies = ["Delete", "Recycle", "Retain"];
    check::one_of(spec, "persistentVolumeReclaimPolicy", &policies, at, &mut found);
    if path::text(spec, "hostPath.path") == "/"
        && path::text(spec, "persistentVolumeReclaimPolicy") == "Recycle"
    {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        found.push(Violation::forbidden(at.field("persistentVolumeReclaimPolicy"), detail));
    }
    source(spec, at, &mut found);
    if let Some(affinity) = spec.get("nodeAffinity") {
        let at = at.field("nodeAffinity");
        match affinity.get("required") {
            None => found
                .push(Violation::required(at.field("required"), "must specify required node constraints")),
            Some(selector) => affinity::node_selector(selector, at.field("required"), &mut found),
        }
    }
    check::follows(spec, "storageClassName", names::dns_subdomain, at, &mut found);
    check::one_of(spec, "volumeMode", &["Block", "Filesystem"], at, &mut found);
    if let Some(old) = old {
        changes(spec, &old["spec"], &mut found);
    }
    found
}

fn capacity(spec: &Value, at: At<'_>, found: &mut Found) {
    let capacity = spec.get("capacity").unwrap_or(&Value::Null);
    let has_size = resources::amount(capacity, "storage").is_some();
    if capacity.as_object().is_none_or(|all| all.is_empty()) {
        found.push(Violation::required(at, ""));
    } else if !has_size || path::members(spec, "capacity").count() > 1 {
        found.push(Violation::not_supported(at, capacity, &["storage"]));
    }
    if let Some(size) = resources::amount(capacity, "storage").filter(|size| *size <= Quantity::ZERO) {
        found.push(Violation::invalid(at.key("storage"), size, "must be greater than zero"));
    }
}

fn source(spec: &Value, at: At<'_>, found: &mut Found) {
    let mut has_one = false;
    for kind in SOURCES {
        let Some(source) = spec.get(kind) else { continue };
        let source_at = at.field(kind);
        if std::mem::replace(&mut has_one, true) {
            found.push(Violation::forbidden(source_at, "may not specify more than 1 volume type"));
            continue;
        }
        match kind {
            "hostPath" => volume::host_path(source, source_at, found),
            "nfs" => volume::nfs(source, source_at, found),
            "local" => {
                if check::required(source, "path", source_at, found) {
                    check::no_backsteps(path::text(source, "path"), source_at.field("path"), found);
                }
                if spec.get("nodeAffinity").is_none() {
                    found.push(Violation::required(
                        at.field("nodeAffinity"),
                        "Local volume requires node affinity",
                    ));
                }
            }
            "csi" => {
                volume::csi_driver(source, source_at, found);
                check::required(source, "volumeHandle", source_at, found);
            }
            _ => {}
        }
    }
    if !has_one {
        found.push(Violation::required(at, "must specify a volume type"));
    }
}

/// The paths are upstream's, which leave `spec` out here and there.
fn changes(spec: &Value, before: &Value, found: &mut Found) {
    let sources = |spec: &Value| -> Vec<Value> {
        SOURCES
            .iter()
            .filter_map(|kind| spec.get(kind).cloned())
            .map(|mut source| {
                path::remove(&mut source, "controllerExpandSecretRef");
                source
            })
            .collect()
    };
    if sources(spec) != sources(before) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        found.push(Violation::forbidden(At::root("spec.persistentvolumesource"), detail));
    }
    check::immutable(spec, before, "volumeMode", At::root(""), found);
    if before.get("nodeAffinity").is_some() && spec.get("nodeAffinity") != before.get("nodeAffinity") {
        let detail = "field is immutable, except for updating from beta label to GA";
        found.push(Violation::invalid(At::root("nodeAffinity"), &spec["nodeAffinity"], detail));
    }
}
