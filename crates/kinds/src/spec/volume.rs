//! Volumes of a pod.

use std::collections::HashSet;

use schema::{At, Quantity, Violation, names, path};
use serde_json::{Value, json};

use super::check::{
    Found, Seen, no_backsteps, one_of, relative_item_path, relative_path, required, required_name,
};
use super::{container, env, label_selector};

/// The sources in the order in which upstream looks for them: all but the first that is set are refused.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flexVolume",
    "configMap",
    "rbd",
    "cinder",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "azureFile",
    "azureDisk",
    "persistentVolumeClaim",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "scaleIO",
    "storageos",
    "projected",
    "csi",
    "ephemeral",
    "image",
];
/// The field that names what a driver of old mounts.
const LEGACY: [(&str, &str); 9] = [
    ("gitRepo", "repository"),
    ("gcePersistentDisk", "pdName"),
    ("awsElasticBlockStore", "volumeID"),
    ("glusterfs", "endpoints"),
    ("flexVolume", "driver"),
    ("cinder", "volumeID"),
    ("vsphereVolume", "volumePath"),
    ("photonPersistentDisk", "pdID"),
    ("portworxVolume", "volumeID"),
];
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const DOWNWARD_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const MODE_MAX: i64 = 0o777;
const TOKEN_SECONDS_MIN: i64 = 600;
const CSI_DRIVER_MAX_BYTES: usize = 63;

/// A volume without any source is an empty directory.
pub fn default(volume: &mut Value) {
    if !SOURCES.iter().any(|source| volume.get(source).is_some()) {
        volume["emptyDir"] = json!({});
    }
    if let Some(image) = volume.get_mut("image")
        && path::text(image, "pullPolicy").is_empty()
    {
        let policy = container::pull_policy(path::text(image, "reference"));
        image["pullPolicy"] = policy.into();
    }
}

pub fn validate_all(spec: &Value, pod_name: &str, is_template: bool, list: At<'_>, found: &mut Found) {
    let volumes = path::list(spec, "volumes");
    let ephemeral = volumes.iter().filter(|one| one.get("ephemeral").is_some());
    let made: HashSet<String> =
        ephemeral.map(|one| format!("{pod_name}-{}", path::text(one, "name"))).collect();
    let mut seen = Seen::default();
    for (index, volume) in volumes.iter().enumerate() {
        let at = list.index(index);
        let name = path::text(volume, "name");
        required_name(volume, "name", names::dns_label, at, found);
        if !name.is_empty() && seen.repeats(name) {
            found.push(Violation::duplicate(at.field("name"), name));
        }
        one(volume, pod_name, is_template, at, found);
        let claim = path::text(volume, "persistentVolumeClaim.claimName");
        if !claim.is_empty() && made.contains(claim) {
            let at = at.field("persistentVolumeClaim");
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            found.push(Violation::invalid(at.field("claimName"), claim, detail));
        }
    }
}

fn one(volume: &Value, pod_name: &str, is_template: bool, at: At<'_>, found: &mut Found) {
    let mut has_one = false;
    for kind in SOURCES {
        let Some(source) = volume.get(kind) else { continue };
        let source_at = at.field(kind);
        if has_one {
            found.push(Violation::forbidden(source_at, "may not specify more than 1 volume type"));
            continue;
        }
        has_one = true;
        match kind {
            "emptyDir" => empty_dir(source, source_at, found),
            "hostPath" => host_path(source, source_at, found),
            "secret" => {
                required(source, "secretName", source_at, found);
                files(source, source_at, found);
            }
            "configMap" => {
                required(source, "name", source_at, found);
                files(source, source_at, found);
            }
            "downwardAPI" => downward_api(source, source_at, found),
            "projected" => projected(source, source_at, found),
            "persistentVolumeClaim" => {
                required(source, "claimName", source_at, found);
            }
            "nfs" => nfs(source, source_at, found),
            "csi" => csi(source, source_at, found),
            "ephemeral" => ephemeral(source, pod_name, path::text(volume, "name"), source_at, found),
            "image" => {
                if !is_template {
                    required(source, "reference", source_at, found);
                }
                one_of(source, "pullPolicy", &["Always", "IfNotPresent", "Never"], source_at, found);
            }
            _ => {
                if let Some((_, field)) = LEGACY.iter().find(|(legacy, _)| *legacy == kind) {
                    required(source, field, source_at, found);
                }
            }
        }
    }
    if !has_one {
        found.push(Violation::required(at, "must specify a volume type"));
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
    }
    one_of(source, "type", &HOST_PATH_TYPES, at, found);
}

/// `nfs`, also of a PersistentVolume.
pub fn nfs(source: &Value, at: At<'_>, found: &mut Found) {
    required(source, "server", at, found);
    if required(source, "path", at, found) && !path::text(source, "path").starts_with('/') {
        found.push(Violation::invalid(
            at.field("path"),
            path::text(source, "path"),
            "must be an absolute path",
        ));
    }
}

/// The driver's name of a CSI volume.
pub fn csi_driver(source: &Value, at: At<'_>, found: &mut Found) {
    if !required(source, "driver", at, found) {
        return;
    }
    let driver = path::text(source, "driver");
    let at = at.field("driver");
    if driver.len() > CSI_DRIVER_MAX_BYTES {
        found.push(Violation::too_long(at, CSI_DRIVER_MAX_BYTES));
    }
    found.extend(Violation::all_invalid(at, driver, names::dns_subdomain(&driver.to_ascii_lowercase())));
}

fn csi(source: &Value, at: At<'_>, found: &mut Found) {
    csi_driver(source, at, found);
    if let Some(secret) = source.get("nodePublishSecretRef") {
        required(secret, "name", at.field("nodePublishSecretRef"), found);
    }
}

fn mode(value: &Value, field: &str, at: At<'_>, found: &mut Found) {
    if let Some(mode) = path::int(value, field).filter(|mode| !(0..=MODE_MAX).contains(mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        found.push(Violation::invalid(at.field(field), mode, detail));
    }
}

/// `defaultMode` and `items` of what is written as files.
fn files(source: &Value, at: At<'_>, found: &mut Found) {
    mode(source, "defaultMode", at, found);
    for (index, item) in path::list(source, "items").iter().enumerate() {
        let at = at.field("items");
        let at = at.index(index);
        required(item, "key", at, found);
        if required(item, "path", at, found) {
            relative_item_path(path::text(item, "path"), at.field("path"), found);
        }
        mode(item, "mode", at, found);
    }
}

fn downward_api(source: &Value, at: At<'_>, found: &mut Found) {
    mode(source, "defaultMode", at, found);
    for item in path::list(source, "items") {
        if required(item, "path", at, found) {
            relative_item_path(path::text(item, "path"), at.field("path"), found);
        }
        match (item.get("fieldRef"), item.get("resourceFieldRef")) {
            (Some(_), Some(_)) => {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                found.push(Violation::invalid(at, "resource", detail));
            }
            (Some(field), None) => env::field_ref(field, &DOWNWARD_FIELDS, true, at.field("fieldRef"), found),
            (None, Some(resource)) => {
                env::resource_field_ref(resource, true, at.field("resourceFieldRef"), found);
            }
            (None, None) => {
                found.push(Violation::required(at, "one of fieldRef and resourceFieldRef is required"));
            }
        }
        mode(item, "mode", at, found);
    }
}

fn projected(source: &Value, at: At<'_>, found: &mut Found) {
    const KINDS: [&str; 6] =
        ["clusterTrustBundle", "configMap", "downwardAPI", "podCertificate", "secret", "serviceAccountToken"];
    mode(source, "defaultMode", at, found);
    let mut taken = Seen::default();
    for (index, one) in path::list(source, "sources").iter().enumerate() {
        let sources = at.field("sources");
        let source_at = sources.index(index);
        let mut has_one = false;
        for kind in KINDS {
            let Some(part) = one.get(kind) else { continue };
            let part_at = source_at.field(kind);
            if std::mem::replace(&mut has_one, true) {
                let detail = "may not specify more than 1 volume type per source";
                found.push(Violation::forbidden(part_at, detail));
                continue;
            }
            match kind {
                "secret" | "configMap" => {
                    required(part, "name", part_at, found);
                    files(part, part_at, found);
                }
                "downwardAPI" => downward_api(part, part_at, found),
                "serviceAccountToken" => token(part, part_at, at, found),
                "clusterTrustBundle" => trust_bundle(part, part_at, found),
                _ => {}
            }
            let items = path::list(part, "items").iter().map(|item| path::text(item, "path"));
            for file in items.chain([path::text(part, "path")]).filter(|file| !file.is_empty()) {
                if taken.repeats(file) {
                    found.push(Violation::invalid(at, file, "conflicting duplicate paths"));
                }
            }
        }
    }
}

fn token(part: &Value, at: At<'_>, volume: At<'_>, found: &mut Found) {
    if let Some(seconds) = path::int(part, "expirationSeconds") {
        let at = at.field("expirationSeconds");
        if seconds < TOKEN_SECONDS_MIN {
            found.push(Violation::invalid(at, seconds, "may not specify a duration less than 10 minutes"));
        }
        if seconds > 1 << 32 {
            found.push(Violation::invalid(
                at,
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            ));
        }
    }
    if required(part, "path", volume, found) {
        relative_path(path::text(part, "path"), volume.field("path"), found);
    }
}

fn trust_bundle(part: &Value, at: At<'_>, found: &mut Found) {
    match (part.get("name"), part.get("signerName")) {
        (Some(_), Some(_)) => {
            found.push(Violation::invalid(at, part, "only one of name and signerName may be used"));
        }
        (None, None) => {
            found.push(Violation::invalid(at, part, "either name or signerName must be specified"))
        }
        (Some(_), None) if part.get("labelSelector").is_some() => {
            let detail = "labelSelector must be unset if name is specified";
            found.push(Violation::invalid(at.field("labelSelector"), &part["labelSelector"], detail));
        }
        _ => {}
    }
    if let Some(selector) = part.get("labelSelector") {
        label_selector::validate(selector, at.field("labelSelector"), found);
    }
    required(part, "path", at, found);
}

fn ephemeral(source: &Value, pod_name: &str, volume: &str, at: At<'_>, found: &mut Found) {
    let Some(template) = source.get("volumeClaimTemplate") else {
        found.push(Violation::required(at.field("volumeClaimTemplate"), ""));
        return;
    };
    let at = at.field("volumeClaimTemplate");
    for (field, _) in path::members(template, "metadata") {
        if field != "labels" && field != "annotations" {
            let at = at.field("metadata");
            found.push(Violation::forbidden(at.field(field), "cannot be set"));
        }
    }
    crate::persistent_volume_claim::validate_spec(&template["spec"], at.field("spec"), found);
    if !pod_name.is_empty() {
        let name = format!("{pod_name}-{volume}");
        for wrong in names::dns_subdomain(&name) {
            found.push(Violation::invalid(at.field("name"), volume, format!("PVC name \"{name}\": {wrong}")));
        }
    }
}
