use object::Resource;
use schema::{At, Kind, Quantity, Strategy, Violation, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, text, text_or, wide};
use crate::spec::storage;
use crate::spec::{
    check::{self, Found},
    label_selector, resources, warnings,
};
use crate::{row, strategy, subresource};

pub const PERSISTENT_VOLUME_CLAIMS: Resource = Resource::new("persistentvolumeclaims");

pub static KIND: Kind = Kind {
    resource: PERSISTENT_VOLUME_CLAIMS,
    group: "",
    version: "v1",
    kind: "PersistentVolumeClaim",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "core.v1.PersistentVolumeClaim",
    columns: &[
        NAME,
        column("Status", "string", "Whether it has a volume.", |object, _| storage::phase(object)),
        column("Volume", "string", "The volume that it has.", |object, _| text(object, "spec.volumeName")),
        column("Capacity", "string", "How much it holds.", |object, _| {
            if is_bound(object) { text(object, "status.capacity.storage") } else { "".into() }
        }),
        column("Access Modes", "string", "How its volume may be used.", |object, _| {
            let modes = if is_bound(object) { path::list(object, "status.accessModes") } else { &[] };
            storage::modes_text(modes).into()
        }),
        column("StorageClass", "string", "The class that its volume is of.", |object, _| {
            storage::class(object)
        }),
        column("VolumeAttributesClass", "string", "The class of its attributes.", |object, _| {
            text_or(object, "spec.volumeAttributesClassName", "<unset>")
        }),
        AGE,
        wide("VolumeMode", "string", "Whether it is a file system or a device.", |object, _| {
            text_or(object, "spec.volumeMode", "<unset>")
        }),
    ],
    strategy: Strategy { main_keeps: &["status"], prepare, ..strategy::PLAIN },
    validate,
    warn,
    ..row::BASE
};

fn warn(new: &Value, _old: Option<&Value>) -> Vec<String> {
    const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
    let mut found = Vec::new();
    if new["metadata"]["annotations"].get(CLASS).is_some() {
        found.push(format!(
            "metadata.annotations[{CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
    found.extend(warnings::of_claim_spec(&new["spec"], "spec"));
    found
}

const SIZE: &str = "resources.requests.storage";

fn is_bound(claim: &Value) -> bool {
    !path::text(claim, "spec.volumeName").is_empty()
}

fn prepare(claim: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        claim["status"] = json!({"phase": "Pending"});
    }
    if let Some(spec) = claim.get_mut("spec").filter(|spec| spec.is_object()) {
        data_sources(spec, old.map(|old| &old["spec"]));
    }
}

/// `dataSource` and `dataSourceRef` say the same. Of a claim that had neither before, what `dataSource` cannot say is not taken from it, and
/// neither is a reference to another namespace, which nobody serves (the feature CrossNamespaceVolumeDataSource is not on): KEP-1495.
fn data_sources(spec: &mut Value, old: Option<&Value>) {
    let had = |field: &str| old.is_some_and(|old| old.get(field).is_some());
    if !path::text(spec, "dataSourceRef.namespace").is_empty() && !had("dataSourceRef") {
        path::remove(spec, "dataSourceRef");
    }
    let is_any = had("dataSource") || had("dataSourceRef") || spec.get("dataSourceRef").is_some();
    let is_served = spec.get("dataSource").is_some_and(|source| {
        let named = (path::text(source, "apiGroup"), path::text(source, "kind"));
        matches!(named, ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot"))
    });
    if !is_any && !is_served {
        path::remove(spec, "dataSource");
    }
    match (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned()) {
        (Some(source), None) => spec["dataSourceRef"] = source,
        (None, Some(mut reference)) if path::text(&reference, "namespace").is_empty() => {
            path::remove(&mut reference, "namespace");
            spec["dataSource"] = reference;
        }
        _ => {}
    }
}

fn validate(claim: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&claim["spec"], At::root("spec"));
    validate_spec(spec, at, &mut found);
    if let Some(old) = old {
        changes(claim, old, at, &mut found);
    }
    found
}

/// The spec of a claim, wherever it stands.
pub fn validate_spec(spec: &Value, at: At<'_>, found: &mut Found) {
    if let Some(selector) = spec.get("selector") {
        label_selector::validate(selector, at.field("selector"), found);
    }
    let modes = path::list(spec, "accessModes");
    if modes.is_empty() {
        found.push(Violation::required(at.field("accessModes"), "at least 1 access mode is required"));
    }
    storage::access_modes(modes, at.field("accessModes"), found);
    let size_at = at.field("resources");
    let requests = path::get(spec, "resources.requests").unwrap_or(&Value::Null);
    match resources::amount(requests, "storage") {
        None => found.push(Violation::required(size_at.key("storage"), "")),
        Some(size) if size <= Quantity::ZERO => {
            found.push(Violation::invalid(size_at.key("storage"), size, "must be greater than zero"));
        }
        Some(_) => {}
    }
    for field in ["storageClassName", "volumeAttributesClassName"] {
        check::follows(spec, field, names::dns_subdomain, at, found);
    }
    check::one_of(spec, "volumeMode", &["Block", "Filesystem"], at, found);
    for field in ["dataSource", "dataSourceRef"] {
        if let Some(source) = spec.get(field) {
            data_source(source, at.field(field), found);
        }
    }
    // In a template neither has got its twin yet.
    if let (Some(source), Some(reference)) = (spec.get("dataSource"), spec.get("dataSourceRef")) {
        if !path::text(reference, "namespace").is_empty() {
            let detail = "may not be specified when dataSourceRef.namespace is specified";
            found.push(Violation::invalid(at, json!({}), detail));
        } else if ["apiGroup", "kind", "name"].iter().any(|field| source.get(field) != reference.get(field)) {
            found.push(Violation::invalid(at, json!({}), "must match dataSourceRef"));
        }
    }
}

fn data_source(source: &Value, at: At<'_>, found: &mut Found) {
    check::required(source, "name", at, found);
    check::required(source, "kind", at, found);
    let (group, kind) = (path::text(source, "apiGroup"), path::text(source, "kind"));
    if group.is_empty() && !matches!(kind, "" | "PersistentVolumeClaim") {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        found.push(Violation::invalid(at, kind, detail));
    }
    check::follows(source, "apiGroup", names::dns_subdomain, at, found);
    check::follows(source, "namespace", names::dns_label, at, found);
}

fn changes(claim: &Value, old: &Value, at: At<'_>, found: &mut Found) {
    let (spec, before) = (&claim["spec"], &old["spec"]);
    let is_bound = path::text(old, "status.phase") == "Bound";
    let mut allowed = before.clone();
    let mut take = |field: &str, may: bool| {
        if may && let Some(value) = path::get(spec, field) {
            path::set(&mut allowed, field, value.clone());
        }
    };
    take("volumeName", path::text(before, "volumeName").is_empty());
    take("storageClassName", before.get("storageClassName").is_none());
    take(SIZE, is_bound);
    take("volumeAttributesClassName", is_bound);
    if allowed != *spec {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        found.push(Violation::forbidden(at, detail));
    }
    let size = |holder: &Value, list: &str| {
        path::get(holder, list).and_then(|list| resources::amount(list, "storage"))
    };
    let (new, was) = (size(spec, "resources.requests"), size(before, "resources.requests"));
    if new < was && new.is_some_and(|new| Some(new) <= size(old, "status.capacity")) {
        found.push(Violation::forbidden(at.field(SIZE), "field can not be less than status.capacity"));
    }
    check::immutable(spec, before, "volumeMode", At::root(""), found);
}
