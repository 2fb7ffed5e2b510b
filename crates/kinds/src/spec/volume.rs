//! Volumes of a pod.

use std::collections::{HashMap, HashSet};

use schema::{At, Quantity, Violation, names, path};
use serde_json::{Value, json};

use super::check::{Found, follows, no_backsteps, one_of, relative_item_path, required, required_name};
use super::{container, env, old_volume, projected};

/// The sources in the order in which upstream looks for them, with what their path is called where it is not their own name: all but the
/// first that is set are refused.
const SOURCES: [(&str, &str, Check); 30] = [
    ("emptyDir", "", |source, _, at, found| empty_dir(source, at, found)),
    ("hostPath", "", |source, _, at, found| host_path(source, at, found)),
    ("gitRepo", "", |source, _, at, found| old_volume::git_repo(source, at, found)),
    ("gcePersistentDisk", "persistentDisk", |source, _, at, found| {
        old_volume::disk(source, "pdName", at, found);
    }),
    ("awsElasticBlockStore", "", |source, _, at, found| old_volume::disk(source, "volumeID", at, found)),
    ("secret", "", |source, _, at, found| {
        required(source, "secretName", at, found);
        files(source, at, found);
    }),
    ("nfs", "", |source, _, at, found| nfs(source, at, found)),
    ("iscsi", "", |source, around, at, found| old_volume::iscsi(source, around.volume, at, found)),
    ("glusterfs", "", |source, _, at, found| all_required(source, &["endpoints", "path"], at, found)),
    ("flocker", "", |source, _, at, found| old_volume::flocker(source, at, found)),
    ("persistentVolumeClaim", "", |source, _, at, found| all_required(source, &["claimName"], at, found)),
    ("rbd", "", |source, _, at, found| old_volume::rbd(source, at, found)),
    ("cinder", "", |source, _, at, found| {
        required(source, "volumeID", at, found);
        secret_name(source, "secretRef", at, found);
    }),
    ("cephfs", "", |source, _, at, found| old_volume::monitors(source, at, found)),
    ("quobyte", "", |source, _, at, found| old_volume::quobyte(source, at, found)),
    ("downwardAPI", "", |source, _, at, found| downward_api(source, at, found)),
    ("fc", "", |source, _, at, found| old_volume::fibre_channel(source, at, found)),
    ("flexVolume", "", |source, _, at, found| old_volume::flex(source, at, found)),
    ("configMap", "", |source, _, at, found| {
        required(source, "name", at, found);
        files(source, at, found);
    }),
    ("azureFile", "", |source, _, at, found| all_required(source, &["secretName", "shareName"], at, found)),
    ("vsphereVolume", "", |source, _, at, found| all_required(source, &["volumePath"], at, found)),
    ("photonPersistentDisk", "", |source, _, at, found| all_required(source, &["pdID"], at, found)),
    ("portworxVolume", "", |source, _, at, found| all_required(source, &["volumeID"], at, found)),
    ("azureDisk", "", |source, _, at, found| old_volume::azure_disk(source, at, found)),
    ("storageos", "", |source, _, at, found| {
        required_name(source, "volumeName", names::dns_label, at, found);
        follows(source, "volumeNamespace", names::dns_label, at, found);
        secret_name(source, "secretRef", at, found);
    }),
    ("projected", "", |source, _, at, found| projected::validate(source, at, found)),
    ("scaleIO", "", |source, _, at, found| {
        all_required(source, &["gateway", "system", "volumeName"], at, found);
    }),
    ("csi", "", |source, _, at, found| csi(source, at, found)),
    ("ephemeral", "", |source, _, at, found| ephemeral(source, at, found)),
    ("image", "", |source, around, at, found| {
        if !around.is_template {
            required(source, "reference", at, found);
        }
        one_of(source, "pullPolicy", &["Always", "IfNotPresent", "Never"], at, found);
    }),
];

/// What is wrong with one source.
type Check = fn(source: &Value, around: &Around<'_>, at: At<'_>, found: &mut Found);

/// What stands around a source.
struct Around<'a> {
    /// The volume's name.
    volume: &'a str,
    /// A template's image may be missing; a pod's may not.
    is_template: bool,
}

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const DOWNWARD_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const MODE_MAX: i64 = 0o777;
const CSI_DRIVER_MAX_BYTES: usize = 63;

/// A volume without any source is an empty directory.
pub fn default(volume: &mut Value) {
    if !SOURCES.iter().any(|(source, ..)| volume.get(source).is_some()) {
        volume["emptyDir"] = json!({});
    }
    if let Some(image) = volume.get_mut("image")
        && path::text(image, "pullPolicy").is_empty()
    {
        let policy = container::pull_policy(path::text(image, "reference"));
        image["pullPolicy"] = policy.into();
    }
}

/// Every volume of a spec. What comes back are those that nothing is wrong with, by name: no other can be mounted.
pub fn validate_all<'a>(
    spec: &'a Value,
    pod_name: &str,
    is_template: bool,
    list: At<'_>,
    found: &mut Found,
) -> HashMap<&'a str, &'a Value> {
    let volumes = path::list(spec, "volumes");
    let mut sound = HashMap::new();
    let ephemeral = volumes.iter().filter(|one| !pod_name.is_empty() && one.get("ephemeral").is_some());
    let made: HashSet<String> =
        ephemeral.map(|one| format!("{pod_name}-{}", path::text(one, "name"))).collect();
    for (index, volume) in volumes.iter().enumerate() {
        let at = list.index(index);
        let (name, before) = (path::text(volume, "name"), found.len());
        one(volume, pod_name, &Around { volume: name, is_template }, at, found);
        required_name(volume, "name", names::dns_label, at, found);
        if sound.contains_key(name) {
            found.push(Violation::duplicate(at.field("name"), name));
        }
        if found.len() == before {
            sound.insert(name, volume);
        }
        let claim = path::text(volume, "persistentVolumeClaim.claimName");
        if volume.get("persistentVolumeClaim").is_some() && made.contains(claim) {
            let at = at.field("persistentVolumeClaim");
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            found.push(Violation::invalid(at.field("claimName"), claim, detail));
        }
    }
    sound
}

fn one(volume: &Value, pod_name: &str, around: &Around<'_>, at: At<'_>, found: &mut Found) {
    let mut has_one = false;
    for (kind, called, check) in &SOURCES {
        let Some(source) = volume.get(kind) else { continue };
        if has_one {
            found.push(Violation::forbidden(at.field(kind), "may not specify more than 1 volume type"));
            continue;
        }
        has_one = true;
        check(source, around, at.field(if called.is_empty() { kind } else { called }), found);
        if *kind == "ephemeral" && !pod_name.is_empty() && !around.volume.is_empty() {
            let name = format!("{pod_name}-{}", around.volume);
            for wrong in names::dns_subdomain(&name) {
                let detail = format!("PVC name \"{name}\": {wrong}");
                found.push(Violation::invalid(at.field("name"), around.volume, detail));
            }
        }
    }
    if !has_one {
        found.push(Violation::required(at, "must specify a volume type"));
    }
}

/// Texts that must be there.
pub fn all_required(source: &Value, fields: &[&str], at: At<'_>, found: &mut Found) {
    for field in fields {
        required(source, field, at, found);
    }
}

/// A reference to a secret says its name.
fn secret_name(source: &Value, field: &str, at: At<'_>, found: &mut Found) {
    if let Some(secret) = source.get(field) {
        required(secret, "name", at.field(field), found);
    }
}

fn empty_dir(source: &Value, at: At<'_>, found: &mut Found) {
    let limit: Option<Quantity> =
        source.get("sizeLimit").and_then(Value::as_str).and_then(|text| text.parse().ok());
    if limit.is_some_and(Quantity::is_negative) {
        let detail = "SizeLimit field must be a valid resource quantity";
        found.push(Violation::forbidden(at.field("sizeLimit"), detail));
    }
}

/// `hostPath`, also of a PersistentVolume.
pub fn host_path(source: &Value, at: At<'_>, found: &mut Found) {
    if required(source, "path", at, found) {
        no_backsteps(path::text(source, "path"), at.field("path"), found);
        one_of(source, "type", &HOST_PATH_TYPES, at, found);
    }
}

/// `nfs`, also of a PersistentVolume.
pub fn nfs(source: &Value, at: At<'_>, found: &mut Found) {
    all_required(source, &["server", "path"], at, found);
    let text = path::text(source, "path");
    if !text.starts_with('/') {
        found.push(Violation::invalid(at.field("path"), text, "must be an absolute path"));
    }
}

/// The name of a CSI driver.
pub fn csi_driver(holder: &Value, field: &str, at: At<'_>, found: &mut Found) {
    if !required(holder, field, at, found) {
        return;
    }
    let driver = path::text(holder, field);
    let at = at.field(field);
    if driver.len() > CSI_DRIVER_MAX_BYTES {
        found.push(Violation::too_long(at, CSI_DRIVER_MAX_BYTES));
    }
    found.extend(Violation::all_invalid(at, driver, names::dns_subdomain(&driver.to_ascii_lowercase())));
}

fn csi(source: &Value, at: At<'_>, found: &mut Found) {
    csi_driver(source, "driver", at, found);
    if let Some(secret) = source.get("nodePublishSecretRef") {
        required(secret, "name", at.field("nodePublishSecretRef"), found);
        // The path is upstream's.
        follows(secret, "name", names::dns_subdomain, at, found);
    }
}

pub(super) fn mode(value: &Value, field: &str, at: At<'_>, found: &mut Found) {
    if let Some(mode) = path::int(value, field).filter(|mode| !(0..=MODE_MAX).contains(mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        found.push(Violation::invalid(at.field(field), mode, detail));
    }
}

/// `defaultMode` and `items` of what is written as files.
fn files(source: &Value, at: At<'_>, found: &mut Found) {
    mode(source, "defaultMode", at, found);
    items(source, at, found);
}

/// Which keys become which files.
pub(super) fn items(source: &Value, at: At<'_>, found: &mut Found) {
    for (index, item) in path::list(source, "items").iter().enumerate() {
        let at = at.field("items");
        let at = at.index(index);
        all_required(item, &["key", "path"], at, found);
        relative_item_path(path::text(item, "path"), at.field("path"), found);
        mode(item, "mode", at, found);
    }
}

fn downward_api(source: &Value, at: At<'_>, found: &mut Found) {
    mode(source, "defaultMode", at, found);
    for item in path::list(source, "items") {
        downward_file(item, at, found);
    }
}

/// One file of the downward API. Upstream's path does not say which.
pub(super) fn downward_file(item: &Value, at: At<'_>, found: &mut Found) {
    required(item, "path", at, found);
    relative_item_path(path::text(item, "path"), at.field("path"), found);
    if let Some(field) = item.get("fieldRef") {
        env::field_ref(field, &DOWNWARD_FIELDS, at.field("fieldRef"), found);
        if item.get("resourceFieldRef").is_some() {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            found.push(Violation::invalid(at, "resource", detail));
        }
    } else if let Some(resource) = item.get("resourceFieldRef") {
        env::resource_field_ref(resource, true, at.field("resourceFieldRef"), found);
    } else {
        found.push(Violation::required(at, "one of fieldRef and resourceFieldRef is required"));
    }
    mode(item, "mode", at, found);
}

fn ephemeral(source: &Value, at: At<'_>, found: &mut Found) {
    let Some(template) = source.get("volumeClaimTemplate") else {
        found.push(Violation::required(at.field("volumeClaimTemplate"), ""));
        return;
    };
    let at = at.field("volumeClaimTemplate");
    let (empty, at_metadata) = (Value::Null, at.field("metadata"));
    template_metadata(template.get("metadata").unwrap_or(&empty), at_metadata, found);
    crate::persistent_volume_claim::validate_spec(&template["spec"], at.field("spec"), found);
}

/// The metadata of what is made of a template: labels and annotations, and nothing else.
pub fn template_metadata(metadata: &Value, at: At<'_>, found: &mut Found) {
    schema::metadata::annotations(metadata.get("annotations"), at.field("annotations"), found);
    schema::metadata::labels(metadata.get("labels"), at.field("labels"), found);
    for (field, _) in metadata.as_object().into_iter().flatten() {
        if field != "labels" && field != "annotations" {
            found.push(Violation::forbidden(at.field(field), "cannot be set"));
        }
    }
}
