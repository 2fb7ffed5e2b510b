//! What `metadata` must be, whatever the kind.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use crate::{At, Kind, Violation, names, path};

/// Keys and values of all annotations together.
const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;
/// What a generated name's random tail stands for when its front is checked.
const TAIL: &str = "a";
const STANDARD_FINALIZERS: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];
const METADATA: At<'static> = At::root("metadata");

/// Everything wrong with an object's metadata; with `old`, also what may not change.
pub(crate) fn violations(kind: &Kind, new: &Value, old: Option<&Value>) -> Vec<Violation> {
    if !kind.is_stored() {
        return Vec::new();
    }
    let empty = Value::Null;
    let metadata = new.get("metadata").unwrap_or(&empty);
    let mut found = Vec::new();
    if is_new(new, old) {
        name(kind, metadata, &mut found);
    }
    namespace(kind, metadata, &mut found);
    if path::int(metadata, "generation").is_some_and(|generation| generation < 0) {
        let value = &metadata["generation"];
        found.push(Violation::invalid(
            METADATA.field("generation"),
            value,
            "must be greater than or equal to 0",
        ));
    }
    labels(metadata.get("labels"), METADATA.field("labels"), &mut found);
    annotations(metadata.get("annotations"), METADATA.field("annotations"), &mut found);
    owner_references(metadata, &mut found);
    finalizers(metadata, is_of_the_core(kind), &mut found);
    if let Some(old) = old {
        changes(metadata, old.get("metadata").unwrap_or(&empty), &mut found);
    }
    found
}

/// Whether an object is about to be created: a subresource's write has no old object to compare with either.
pub fn is_new(object: &Value, old: Option<&Value>) -> bool {
    old.is_none() && path::text(object, "metadata.resourceVersion").is_empty()
}

fn name(kind: &Kind, metadata: &Value, found: &mut Vec<Violation>) {
    let prefix = path::text(metadata, "generateName");
    if !prefix.is_empty() {
        // A dash at the end is none once the random tail follows.
        let front = prefix.strip_suffix('-').map(|front| format!("{front}{TAIL}"));
        let wrong = (kind.name)(front.as_deref().unwrap_or(prefix));
        found.extend(Violation::all_invalid(METADATA.field("generateName"), prefix, wrong));
    }
    let (at, name) = (METADATA.field("name"), path::text(metadata, "name"));
    if name.is_empty() {
        found.push(Violation::required(at, "name or generateName is required"));
        return;
    }
    let wrong = (kind.name)(name);
    let wrong = if wrong.is_empty() { names::path_segment(name) } else { wrong };
    found.extend(Violation::all_invalid(at, name, wrong));
}

fn namespace(kind: &Kind, metadata: &Value, found: &mut Vec<Violation>) {
    let (at, namespace) = (METADATA.field("namespace"), path::text(metadata, "namespace"));
    match (kind.namespaced, namespace.is_empty()) {
        (true, true) => found.push(Violation::required(at, "")),
        (true, false) => found.extend(Violation::all_invalid(at, namespace, names::dns_label(namespace))),
        (false, false) => found.push(Violation::forbidden(at, "not allowed on this type")),
        (false, true) => {}
    }
}

/// A map of labels. The messages name the map, not the entry, as upstream's do.
pub fn labels(labels: Option<&Value>, at: At<'_>, found: &mut Vec<Violation>) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        found.extend(Violation::all_invalid(at, key, names::qualified_name(key)));
        let value = value.as_str().unwrap_or_default();
        found.extend(Violation::all_invalid(at, value, names::label_value(value)));
    }
}

/// A map of annotations: keys as those of labels but in any case, and a limit on the whole.
pub fn annotations(annotations: Option<&Value>, at: At<'_>, found: &mut Vec<Violation>) {
    let mut bytes = 0;
    for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        found.extend(Violation::all_invalid(at, key, names::qualified_name(&key.to_ascii_lowercase())));
        bytes += key.len() + value.as_str().unwrap_or_default().len();
    }
    if bytes > ANNOTATIONS_MAX_BYTES {
        found.push(Violation::too_long(at, ANNOTATIONS_MAX_BYTES));
    }
}

fn owner_references(metadata: &Value, found: &mut Vec<Violation>) {
    let at = METADATA.field("ownerReferences");
    let mut controller: Option<&Value> = None;
    for owner in path::list(metadata, "ownerReferences") {
        let api_version = path::text(owner, "apiVersion");
        if api_version.is_empty() {
            found.push(Violation::invalid(at.field("apiVersion"), api_version, "version must not be empty"));
        }
        for field in ["kind", "name", "uid"] {
            if path::text(owner, field).is_empty() {
                found.push(Violation::invalid(at.field(field), "", "must not be empty"));
            }
        }
        if api_version == "v1" && path::text(owner, "kind") == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            found.push(Violation::invalid(at, owner, detail));
        }
        if !path::bool(owner, "controller") {
            continue;
        }
        if let Some(first) = controller {
            // Told once: each telling holds the whole list.
            let of = |one: &Value| format!("{}/{}", path::text(one, "kind"), path::text(one, "name"));
            let detail = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                of(first),
                of(owner)
            );
            found.push(Violation::invalid(at, &metadata["ownerReferences"], detail));
            break;
        }
        controller = Some(owner);
    }
}

/// Upstream's servers of extensions know fewer rules about finalizers than the one of the built-ins.
fn is_of_the_core(kind: &Kind) -> bool {
    kind.custom.is_none() && !matches!(kind.group, "apiextensions.k8s.io" | "apiregistration.k8s.io")
}

fn finalizers(metadata: &Value, is_of_the_core: bool, found: &mut Vec<Violation>) {
    let at = METADATA.field("finalizers");
    let (mut orphan, mut foreground) = (false, false);
    for (index, finalizer) in path::list(metadata, "finalizers").iter().enumerate() {
        let finalizer = finalizer.as_str().unwrap_or_default();
        let wrong = names::qualified_name(finalizer);
        let is_known = finalizer.contains('/') || STANDARD_FINALIZERS.contains(&finalizer);
        if is_of_the_core && wrong.is_empty() && !is_known {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            found.push(Violation::invalid(at.index(index), finalizer, detail));
        }
        found.extend(Violation::all_invalid(at, finalizer, wrong));
        orphan |= finalizer == "orphan";
        foreground |= finalizer == "foregroundDeletion";
    }
    if orphan && foreground {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        found.push(Violation::invalid(at, &metadata["finalizers"], detail));
    }
}

/// What is said of finalizers that are added to a custom resource: any may be.
pub(crate) fn finalizer_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let finalizers = |object: &Value| -> BTreeSet<String> {
        let all = path::list(object, "metadata.finalizers").iter();
        all.filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let before = old.map(finalizers).unwrap_or_default();
    let mut told = Vec::new();
    for name in finalizers(new).difference(&before) {
        let mut say = |why: &str| told.push(format!("metadata.finalizers: {name:?}: {why}"));
        names::qualified_name(name).iter().for_each(|why| say(why));
        if name.contains('/') || STANDARD_FINALIZERS.contains(&name.as_str()) {
            continue;
        }
        let path = if name.contains('.') { " including a path (/)" } else { "" };
        say(&format!(
            "prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
        ));
    }
    told
}

fn changes(new: &Value, old: &Value, found: &mut Vec<Violation>) {
    if !old["deletionTimestamp"].is_null() {
        let before: HashSet<&str> = path::list(old, "finalizers").iter().filter_map(Value::as_str).collect();
        let added = path::list(new, "finalizers")
            .iter()
            .filter(|one| !before.contains(one.as_str().unwrap_or_default()));
        let added: Vec<String> = added.map(Value::to_string).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            found.push(Violation::forbidden(METADATA.field("finalizers"), detail));
        }
    }
    for name in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        if new[name] != old[name] {
            found.push(Violation::immutable(METADATA.field(name), &new[name]));
        }
    }
}
