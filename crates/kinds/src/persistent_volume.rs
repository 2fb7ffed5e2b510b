use object::Resource;
use schema::{At, Kind, Quantity, Strategy, Violation, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, text, text_or, wide};
use crate::spec::storage;
use crate::spec::{
    affinity,
    check::{self, Found},
    node_labels, old_volume, resources, volume,
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

/// What is wrong with a source, of a volume of that name.
type Check = fn(&Value, &str, At<'_>, &mut Found);

/// The sources in the order in which upstream looks for them, what it calls them when something is wrong inside, and what that may be.
const SOURCES: [(&str, &str, Check); 22] = [
    ("hostPath", "hostPath", |source, _, at, found| volume::host_path(source, at, found)),
    ("gcePersistentDisk", "persistentDisk", |source, _, at, found| {
        old_volume::disk(source, "pdName", at, found)
    }),
    ("awsElasticBlockStore", "awsElasticBlockStore", |source, _, at, found| {
        old_volume::disk(source, "volumeID", at, found)
    }),
    ("glusterfs", "glusterfs", |source, _, at, found| {
        volume::all_required(source, &["endpoints", "path"], at, found)
    }),
    ("flocker", "flocker", |source, _, at, found| old_volume::flocker(source, at, found)),
    ("nfs", "nfs", |source, _, at, found| volume::nfs(source, at, found)),
    ("rbd", "rbd", |source, _, at, found| old_volume::rbd(source, at, found)),
    ("quobyte", "quobyte", |source, _, at, found| old_volume::quobyte(source, at, found)),
    ("cephfs", "cephfs", |source, _, at, found| old_volume::monitors(source, at, found)),
    ("iscsi", "iscsi", |source, name, at, found| {
        let before = found.len();
        old_volume::iscsi(source, name, at, found);
        // In fewer words than of a pod's.
        for one in &mut found[before..] {
            one.detail = one.detail.replace(" starting with iqn, eui, or naa", "");
        }
    }),
    ("cinder", "cinder", |source, _, at, found| {
        check::required(source, "volumeID", at, found);
        secret_of(source, at, found);
    }),
    ("fc", "fc", |source, _, at, found| old_volume::fibre_channel(source, at, found)),
    ("flexVolume", "flexVolume", |source, _, at, found| old_volume::flex(source, at, found)),
    ("azureFile", "azureFile", |source, _, at, found| {
        volume::all_required(source, &["secretName", "shareName"], at, found);
        if source.get("secretNamespace").is_some() {
            check::required(source, "secretNamespace", at, found);
        }
    }),
    ("vsphereVolume", "vsphereVolume", |source, _, at, found| {
        volume::all_required(source, &["volumePath"], at, found)
    }),
    ("photonPersistentDisk", "photonPersistentDisk", |source, _, at, found| {
        volume::all_required(source, &["pdID"], at, found)
    }),
    ("portworxVolume", "portworxVolume", |source, _, at, found| {
        volume::all_required(source, &["volumeID"], at, found)
    }),
    ("azureDisk", "azureDisk", |source, _, at, found| old_volume::azure_disk(source, at, found)),
    ("scaleIO", "scaleIO", |source, _, at, found| {
        volume::all_required(source, &["gateway", "system", "volumeName"], at, found)
    }),
    ("local", "local", |source, _, at, found| {
        if check::required(source, "path", at, found) {
            check::no_backsteps(path::text(source, "path"), at.field("path"), found);
        }
    }),
    ("storageos", "storageos", |source, _, at, found| {
        check::required_name(source, "volumeName", names::dns_label, at, found);
        check::follows(source, "volumeNamespace", names::dns_label, at, found);
        secret_of(source, at, found);
    }),
    ("csi", "csi", |source, _, at, found| csi(source, at, found)),
];

/// A secret of another namespace than the pod's, which does not know it.
fn secret_of(source: &Value, at: At<'_>, found: &mut Found) {
    if let Some(secret) = source.get("secretRef") {
        volume::all_required(secret, &["name", "namespace"], at.field("secretRef"), found);
    }
}

/// The secrets of a CSI volume that are looked into; that for staging is not.
const SECRETS: [&str; 4] = [
    "controllerPublishSecretRef",
    "controllerExpandSecretRef",
    "nodePublishSecretRef",
    "nodeExpandSecretRef",
];

/// It is pending since it was created.
fn prepare(volume: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        let since = volume["metadata"]["creationTimestamp"].clone();
        volume["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": since});
    }
}

/// What an inline volume, which has the same spec, does not get.
fn default(volume: &mut Value) {
    if let Some(spec) = volume.get_mut("spec").filter(|spec| spec.is_object()) {
        path::set_default(spec, "persistentVolumeReclaimPolicy", "Retain");
        path::set_default(spec, "volumeMode", "Filesystem");
    }
    if let Some(status) = volume.get_mut("status").filter(|status| status.is_object()) {
        path::set_default(status, "phase", "Pending");
    }
}

fn validate(volume: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&volume["spec"], At::root("spec"));
    access_modes(spec, at, &mut found);
    capacity(spec, at.field("capacity"), &mut found);
    let policies = ["Delete", "Recycle", "Retain"];
    check::one_of(spec, "persistentVolumeReclaimPolicy", &policies, at, &mut found);
    if let Some(affinity) = spec.get("nodeAffinity") {
        let at = at.field("nodeAffinity");
        match affinity.get("required") {
            None => found
                .push(Violation::required(at.field("required"), "must specify required node constraints")),
            Some(selector) => affinity::node_selector(selector, at.field("required"), &mut found),
        }
    }
    source(spec, path::text(volume, "metadata.name"), at, &mut found);
    if is_root(path::text(spec, "hostPath.path"))
        && path::text(spec, "persistentVolumeReclaimPolicy") == "Recycle"
    {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        found.push(Violation::forbidden(at.field("persistentVolumeReclaimPolicy"), detail));
    }
    check::follows(spec, "storageClassName", names::dns_subdomain, at, &mut found);
    check::one_of(spec, "volumeMode", &["Block", "Filesystem"], at, &mut found);
    attributes_class(spec, at, &mut found);
    if let Some(old) = old {
        changes(spec, &old["spec"], &mut found);
    }
    found
}

/// The spec of a volume that is nowhere but in its attachment.
pub fn validate_inline(spec: &Value, at: At<'_>, found: &mut Found) {
    const NOT_INLINE: &str = "may not be specified in the context of inline volumes";
    for field in ["claimRef", "capacity"] {
        if spec.get(field).is_some() {
            found.push(Violation::forbidden(at.field(field), NOT_INLINE));
        }
    }
    if spec.get("csi").is_none() {
        found.push(Violation::required(
            at.field("csi"),
            "has to be specified in the context of inline volumes",
        ));
    }
    access_modes(spec, at, found);
    let only = |field: &str, value: &str, detail: &str, found: &mut Found| {
        if !matches!(path::text(spec, field), text if text.is_empty() || text == value) {
            found.push(Violation::forbidden(at.field(field), detail));
        }
    };
    let detail = "may only be Retain in the context of inline volumes";
    only("persistentVolumeReclaimPolicy", "Retain", detail, found);
    if spec.get("nodeAffinity").is_some() {
        found.push(Violation::forbidden(at.field("nodeAffinity"), NOT_INLINE));
    }
    source(spec, "", at, found);
    if !path::text(spec, "storageClassName").is_empty() {
        found.push(Violation::forbidden(at.field("storageClassName"), NOT_INLINE));
    }
    let detail = "may not specify volumeMode other than Filesystem in the context of inline volumes";
    only("volumeMode", "Filesystem", detail, found);
}

fn access_modes(spec: &Value, at: At<'_>, found: &mut Found) {
    let (modes, at) = (path::list(spec, "accessModes"), at.field("accessModes"));
    if modes.is_empty() {
        found.push(Violation::required(at, ""));
    }
    storage::access_modes(modes, at, found);
}

fn attributes_class(spec: &Value, at: At<'_>, found: &mut Found) {
    let Some(class) = spec.get("volumeAttributesClassName") else { return };
    if class == "" {
        let at = at.field("volumeAttributesClassName");
        found.push(Violation::required(at, "an empty string is disallowed"));
    }
    check::follows(spec, "volumeAttributesClassName", names::dns_subdomain, at, found);
    if spec.get("csi").is_none() {
        let detail = "has to be specified when using volumeAttributesClassName";
        found.push(Violation::required(at.field("csi"), detail));
    }
}

fn capacity(spec: &Value, at: At<'_>, found: &mut Found) {
    let capacity = spec.get("capacity").unwrap_or(&Value::Null);
    let count = path::members(spec, "capacity").count();
    if count == 0 {
        found.push(Violation::required(at, ""));
    }
    if resources::amount(capacity, "storage").is_none() || count > 1 {
        found.push(Violation::not_supported(at, capacity, &["storage"]));
    }
    for (resource, _) in path::members(spec, "capacity") {
        let amount = resources::amount(capacity, resource);
        if let Some(amount) = amount.filter(|amount| *amount <= Quantity::ZERO) {
            found.push(Violation::invalid(at.key(resource), amount, "must be greater than zero"));
        }
    }
}

/// Whether a path leads to the root of its host: `/`, `//`, `/./x/..`.
fn is_root(text: &str) -> bool {
    let mut depth = 0_usize;
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
    }
    text.starts_with('/') && depth == 0
}

fn source(spec: &Value, name: &str, at: At<'_>, found: &mut Found) {
    let mut has_one = false;
    for (kind, shown, check) in SOURCES {
        let Some(source) = spec.get(kind) else { continue };
        // A flexible one is never one too many.
        if has_one && kind != "flexVolume" {
            let shown = if kind == "cephfs" { "cephFS" } else { kind };
            found.push(Violation::forbidden(at.field(shown), "may not specify more than 1 volume type"));
            continue;
        }
        has_one = true;
        check(source, name, at.field(shown), found);
        if kind == "local" && spec.get("nodeAffinity").is_none() {
            let at = at.field("nodeAffinity");
            found.push(Violation::required(at, "Local volume requires node affinity"));
        }
    }
    if !has_one {
        found.push(Violation::required(at, "must specify a volume type"));
    }
}

fn csi(source: &Value, at: At<'_>, found: &mut Found) {
    volume::csi_driver(source, "driver", at, found);
    check::required(source, "volumeHandle", at, found);
    for field in SECRETS {
        if let Some(secret) = source.get(field) {
            let at = at.field(field);
            check::required_name(secret, "name", names::dns_subdomain, at, found);
            check::required_name(secret, "namespace", names::dns_label, at, found);
        }
    }
}

/// The paths are upstream's, which leave `spec` out here and there.
fn changes(spec: &Value, before: &Value, found: &mut Found) {
    const EXPAND: &str = "csi.controllerExpandSecretRef";
    // What grows a volume may be told later, once.
    let mut now = spec.clone();
    if before.get("csi").is_some() && path::get(before, EXPAND).is_none() {
        path::remove(&mut now, EXPAND);
    }
    if SOURCES.iter().any(|(kind, ..)| now.get(kind) != before.get(kind)) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        found.push(Violation::forbidden(At::root("spec.persistentvolumesource"), detail));
    }
    check::immutable(spec, before, "volumeMode", At::root(""), found);
    if before.get("nodeAffinity").is_some() && spec.get("nodeAffinity") != before.get("nodeAffinity") {
        let detail = "field is immutable, except for updating from beta label to GA";
        found.push(Violation::invalid(At::root("nodeAffinity"), &spec["nodeAffinity"], detail));
    }
    let class = "volumeAttributesClassName";
    if before.get(class).is_some() && spec.get(class).is_none() {
        let at = At::root("spec");
        found.push(Violation::forbidden(at.field(class), "update from non-nil value to nil is forbidden"));
    }
}
