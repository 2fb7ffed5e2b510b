//! What a CustomResourceDefinition must be.
//!
//! Upstream's internal form keeps what all versions say alike once, above them, and its messages name it there:
//! `spec.validation.openAPIV3Schema` rather than `spec.versions[0].schema.openAPIV3Schema`.

use schema::custom::{JsonPath, structural};
use schema::{At, Violation, metadata, names, path};
use serde_json::Value;

use crate::custom_resource_definition::storage_version;
use crate::spec::check::{self, Found};
use crate::spec::webhook;

const APPROVED: &str = "api-approved.kubernetes.io";
const SELECTABLE_MAX: usize = 8;
const WARNING_MAX: usize = 256;
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

pub fn validate(definition: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&definition["spec"], At::root("spec"));
    let group = path::text(spec, "group");
    if metadata::is_new(definition, old) {
        let name = path::text(definition, "metadata.name");
        if name != format!("{}.{group}", path::text(spec, "names.plural")) {
            let detail = "must be spec.names.plural+\".\"+spec.group";
            found.push(Violation::invalid(At::root("metadata.name"), name, detail));
        }
    }
    approval(definition, group, &mut found);
    if group.is_empty() {
        found.push(Violation::required(at.field("group"), ""));
    } else {
        found.extend(Violation::all_invalid(at.field("group"), group, names::dns_subdomain(group)));
        if !group.contains('.') {
            let detail = "should be a domain with at least one dot";
            found.push(Violation::invalid(at.field("group"), group, detail));
        }
    }
    if check::required(spec, "scope", at, &mut found) {
        check::one_of(spec, "scope", &["Cluster", "Namespaced"], at, &mut found);
    }
    accepted_names(&spec["names"], at.field("names"), &mut found);
    if path::bool(spec, "preserveUnknownFields") {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        found.push(Violation::invalid(at.field("preserveUnknownFields"), true, detail));
    }
    versions(spec, at.field("versions"), &mut found);
    parts(spec, old.map(|old| &old["spec"]), at, &mut found);
    conversion(spec, at.field("conversion"), &mut found);
    stored_versions(definition, &mut found);
    if let Some(old) = old {
        changes(spec, old, at, &mut found);
    }
    found
}

/// Groups of the community's own are protected.
fn approval(definition: &Value, group: &str, found: &mut Found) {
    let is_protected = ["k8s.io", "kubernetes.io"].iter().any(|domain| {
        group.strip_suffix(domain).is_some_and(|front| front.is_empty() || front.ends_with('.'))
    });
    let approved = path::get(definition, "metadata.annotations").and_then(|all| all.get(APPROVED)?.as_str());
    if !is_protected
        || approved.is_some_and(|one| one.starts_with("https://") || one.starts_with("unapproved"))
    {
        return;
    }
    let at = At::root("metadata.annotations");
    let detail = format!(
        "protected groups must have approval annotation \"{APPROVED}\", see https://github.com/kubernetes/enhancements/pull/1111"
    );
    found.push(match approved {
        None => Violation::required(at.key(APPROVED), detail),
        Some(text) => Violation::invalid(at.key(APPROVED), text, detail),
    });
}

fn accepted_names(own: &Value, at: At<'_>, found: &mut Found) {
    for field in ["plural", "singular"] {
        check::required_name(own, field, names::dns_1035_label, at, found);
    }
    for field in ["kind", "listKind"] {
        if !check::required(own, field, at, found) {
            continue;
        }
        let text = path::text(own, field);
        for wrong in names::dns_1035_label(&text.to_lowercase()) {
            let detail = format!("may have mixed case, but should otherwise match: {wrong}");
            found.push(Violation::invalid(at.field(field), text, detail));
        }
    }
    if own["kind"] == own["listKind"] && !own["kind"].is_null() {
        let detail = "kind and listKind may not be the same";
        found.push(Violation::invalid(at.field("listKind"), &own["listKind"], detail));
    }
    for field in ["shortNames", "categories"] {
        for (index, name) in path::list(own, field).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let at = at.field(field);
            found.extend(Violation::all_invalid(at.index(index), name, names::dns_1035_label(name)));
        }
    }
}

fn versions(spec: &Value, list: At<'_>, found: &mut Found) {
    let versions = path::list(spec, "versions");
    let mut taken: Vec<&str> = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        one_version(version, list.index(index), found);
        taken.push(path::text(version, "name"));
    }
    let count = taken.len();
    taken.sort_unstable();
    taken.dedup();
    if taken.len() != count {
        found.push(Violation::invalid(list, versions, "must contain unique version names"));
    }
    if versions.iter().filter(|version| path::bool(version, "storage")).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        found.push(Violation::invalid(list, versions, detail));
    }
}

fn one_version(version: &Value, at: At<'_>, found: &mut Found) {
    let name = path::text(version, "name");
    found.extend(Violation::all_invalid(at.field("name"), name, names::dns_1035_label(name)));
    if path::get(version, "schema.openAPIV3Schema").is_none() {
        found.push(Violation::required(at.field("schema.openAPIV3Schema"), ""));
    }
    if let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) {
        let at = at.field("deprecationWarning");
        if !path::bool(version, "deprecated") {
            found.push(Violation::invalid(at, warning, "can only be set for deprecated versions"));
        }
        if warning.is_empty() {
            found.push(Violation::invalid(at, warning, "must not be an empty string"));
        } else if warning.chars().count() > WARNING_MAX {
            let detail = format!("must be <= {WARNING_MAX} characters long");
            found.push(Violation::invalid(at, warning, detail));
        }
    }
}

/// A part of a version, and where its faults are told if all versions have it alike.
type Part = (&'static str, &'static str, fn(&Value, &Value, At<'_>, &mut Found));

const PARTS: [Part; 4] = [
    ("additionalPrinterColumns", "additionalPrinterColumns", |_, columns, at, found| {
        for (index, column) in columns.as_array().into_iter().flatten().enumerate() {
            printer_column(column, at.index(index), found);
        }
    }),
    ("schema.openAPIV3Schema", "validation.openAPIV3Schema", open_api),
    ("selectableFields", "selectableFields", selectable_fields),
    ("subresources", "subresources", |_, subresources, at, found| {
        if let Some(scale) = subresources.get("scale").filter(|scale| !scale.is_null()) {
            scale_paths(scale, at.field("scale"), found);
        }
    }),
];

fn parts(spec: &Value, before: Option<&Value>, at: At<'_>, found: &mut Found) {
    let versions = path::list(spec, "versions");
    let Some(first) = versions.first() else { return };
    let versions_at = at.field("versions");
    for (field, together, check) in PARTS {
        let part = |version: &'_ Value| path::get(version, field).cloned().unwrap_or_default();
        let schema =
            |version: &Value| path::get(version, "schema.openAPIV3Schema").cloned().unwrap_or_default();
        // What was let in once stays, however strict the rules become.
        let is_known = |version: &Value| {
            before.is_some_and(|before| {
                path::list(before, "versions")
                    .iter()
                    .any(|old| part(old) == part(version) && schema(old) == schema(version))
            })
        };
        if versions.iter().all(|version| part(version) == part(first)) {
            if !is_known(first) {
                check(&schema(first), &part(first), at.field(together), found);
            }
            continue;
        }
        for (index, version) in versions.iter().enumerate().filter(|(_, version)| !is_known(version)) {
            check(&schema(version), &part(version), versions_at.index(index).field(field), found);
        }
    }
}

/// What is wrong with the schemas alone.
pub fn schemas(definition: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    for version in path::list(definition, "spec.versions") {
        let schema = path::get(version, "schema.openAPIV3Schema").unwrap_or(&Value::Null);
        open_api(&Value::Null, schema, At::root("spec.validation.openAPIV3Schema"), &mut found);
    }
    found
}

fn open_api(_: &Value, schema: &Value, at: At<'_>, found: &mut Found) {
    if schema.is_object() {
        let before = found.len();
        found.extend(structural::violations(crate::types(), schema, at));
        // Rules are compiled for the types that a structural schema has.
        if found.len() == before {
            crate::definition_rules::check(schema, at, found);
        }
    }
}

/// <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#crd-selectable-fields>
fn selectable_fields(schema: &Value, fields: &Value, at: At<'_>, found: &mut Found) {
    let fields = fields.as_array().map(Vec::as_slice).unwrap_or_default();
    if fields.len() > SELECTABLE_MAX {
        found.push(Violation::too_many(at, fields.len(), SELECTABLE_MAX));
    }
    let mut seen = check::Seen::default();
    for (index, field) in fields.iter().enumerate() {
        let text = path::text(field, "jsonPath");
        let at = at.index(index);
        let at = at.field("jsonPath");
        if text.is_empty() {
            found.push(Violation::required(at, ""));
            continue;
        }
        let inner = text.trim_start_matches('.');
        let node = inner.split('.').try_fold(schema, |schema, name| schema["properties"].get(name));
        let kind = node.map_or("", |node| path::text(node, "type"));
        if !structural::simple_path(text) {
            found.push(Violation::invalid(
                at,
                text,
                "is an invalid path: must be a simple json path starting with .",
            ));
        } else if inner.split('.').next() == Some("metadata") {
            found.push(Violation::invalid(at, text, "must not point to fields in metadata"));
        } else if node.is_none() {
            found.push(Violation::invalid(at, text, "is an invalid path: does not refer to a valid field"));
        } else if !matches!(kind, "boolean" | "integer" | "string") {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            found.push(Violation::invalid(at, text, detail));
        }
        if seen.repeats(text) {
            found.push(Violation::duplicate(at, text));
        }
    }
}

fn scale_paths(scale: &Value, at: At<'_>, found: &mut Found) {
    json_path(scale, "specReplicasPath", &[".spec."], "should be a json path under .spec", at, found);
    json_path(scale, "statusReplicasPath", &[".status."], "should be a json path under .status", at, found);
    if scale.get("labelSelectorPath").is_some() {
        let detail = "should be a json path under either .spec or .status";
        json_path(scale, "labelSelectorPath", &[".spec.", ".status."], detail, at, found);
    }
}

fn json_path(scale: &Value, field: &str, roots: &[&str], detail: &str, at: At<'_>, found: &mut Found) {
    let text = path::text(scale, field);
    let at = at.field(field);
    if text.is_empty() {
        found.push(Violation::required(at, ""));
    } else if !text.starts_with('.') || text.contains(['[', ']', '*', ' ']) {
        found.push(Violation::invalid(at, text, "must be a simple json path starting with ."));
    } else if !roots.iter().any(|root| text.starts_with(root)) {
        found.push(Violation::invalid(at, text, detail));
    }
}

fn printer_column(column: &Value, at: At<'_>, found: &mut Found) {
    check::required(column, "name", at, found);
    if check::required(column, "type", at, found) && !COLUMN_TYPES.contains(&path::text(column, "type")) {
        let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
        found.push(Violation::invalid(at.field("type"), path::text(column, "type"), detail));
    }
    let format = path::text(column, "format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        let detail = format!("must be one of {}", COLUMN_FORMATS.join(","));
        found.push(Violation::invalid(at.field("format"), format, detail));
    }
    if check::required(column, "jsonPath", at, found) {
        let text = path::text(column, "jsonPath");
        if let Err(why) = JsonPath::parse(text) {
            found.push(Violation::invalid(at.field("jsonPath"), text, why));
        }
    }
}

/// The paths of a webhook's settings are those of upstream's internal form.
fn conversion(spec: &Value, at: At<'_>, found: &mut Found) {
    let own = &spec["conversion"];
    let webhook_at = at.field("webhookClientConfig");
    let config = path::get(own, "webhook.clientConfig");
    match (path::text(own, "strategy"), config) {
        ("", _) => found.push(Violation::required(at.field("strategy"), "")),
        ("Webhook", None) => {
            found.push(Violation::required(webhook_at, "required when strategy is set to Webhook"));
        }
        ("Webhook", Some(config)) => {
            webhook::client_config(config, webhook_at, found);
            let versions = path::list(own, "webhook.conversionReviewVersions");
            webhook::review_versions(versions, at.field("conversionReviewVersions"), found);
        }
        ("None", Some(_)) => {
            let detail = "should not be set when strategy is not set to Webhook";
            found.push(Violation::forbidden(webhook_at, detail));
        }
        ("None", None) => {}
        (other, _) => found.push(Violation::not_supported(at.field("strategy"), other, &["None", "Webhook"])),
    }
}

fn stored_versions(definition: &Value, found: &mut Found) {
    let stored = path::list(definition, "status.storedVersions");
    let at = At::root("status.storedVersions");
    if stored.is_empty() {
        found.push(Violation::invalid(at, stored, "must have at least one stored version"));
    }
    if let Some(version) = storage_version(definition)
        && !stored.iter().any(|one| *one == version)
    {
        found.push(Violation::invalid(at, stored, format!("must have the storage version {version}")));
    }
    let known = path::list(definition, "spec.versions");
    for (index, version) in stored.iter().enumerate() {
        if !known.iter().any(|one| one["name"] == *version) {
            let version = version.as_str().unwrap_or_default();
            let detail = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {version} and removes {version} from status.storedVersions"
            );
            found.push(Violation::invalid(at.index(index), version, detail));
        }
    }
}

fn changes(spec: &Value, old: &Value, at: At<'_>, found: &mut Found) {
    let before = &old["spec"];
    check::immutable(spec, before, "group", at, found);
    check::immutable(spec, before, "names.plural", at, found);
    let conditions = path::list(old, "status.conditions");
    let is_established = conditions
        .iter()
        .any(|one| path::text(one, "type") == "Established" && path::text(one, "status") == "True");
    if is_established {
        check::immutable(spec, before, "scope", at, found);
        check::immutable(spec, before, "names.kind", at, found);
    }
}
