//! What a CustomResourceDefinition must be.
//!
//! Upstream's internal form keeps what all versions say alike once, above them, and its messages name it there:
//! `spec.validation.openAPIV3Schema` rather than `spec.versions[0].schema.openAPIV3Schema`.

use schema::custom::{field_path, structural};
use schema::{At, Violation, metadata, names, path};
use serde_json::Value;

use crate::spec::check::{self, Found};
use crate::spec::webhook;

const APPROVED: &str = "api-approved.kubernetes.io";
const SELECTABLE_MAX: usize = 8;
/// Bytes.
const WARNING_MAX: usize = 256;
const NO_PATH: &str = "must be a simple json path starting with .";
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

pub fn validate(definition: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&definition["spec"], At::root("spec"));
    // Of a status that is written by itself only the names are looked at.
    if old.is_some_and(|old| old["spec"] == *spec && old["status"] != definition["status"]) {
        forms_of_names(&definition["status"]["acceptedNames"], At::root("status.acceptedNames"), &mut found);
        return found;
    }
    let group = path::text(spec, "group");
    if metadata::is_new(definition, old) {
        let name = path::text(definition, "metadata.name");
        if name != format!("{}.{group}", path::text(spec, "names.plural")) {
            let detail = "must be spec.names.plural+\".\"+spec.group";
            found.push(Violation::invalid(At::root("metadata.name"), name, detail));
        }
    }
    if group.is_empty() {
        found.push(Violation::required(at.field("group"), ""));
    } else {
        let wrong = names::dns_subdomain(group);
        if wrong.is_empty() && !group.contains('.') {
            let detail = "should be a domain with at least one dot";
            found.push(Violation::invalid(at.field("group"), group, detail));
        }
        found.extend(Violation::all_invalid(at.field("group"), group, wrong));
    }
    if check::required(spec, "scope", at, &mut found) {
        check::one_of(spec, "scope", &["Cluster", "Namespaced"], at, &mut found);
    }
    let parts = Parts { versions: path::list(spec, "versions"), before: old.map(|old| &old["spec"]) };
    versions(spec, &parts, at, &mut found);
    let (own, names_at) = (&spec["names"], at.field("names"));
    for field in ["plural", "singular", "kind", "listKind"] {
        check::required(own, field, names_at, &mut found);
    }
    forms_of_names(own, names_at, &mut found);
    parts.together(at, &mut found);
    conversion(spec, at.field("conversion"), &mut found);
    if let Some(old) = old {
        changes(spec, old, at, &mut found);
    }
    forms_of_names(&definition["status"]["acceptedNames"], At::root("status.acceptedNames"), &mut found);
    stored_versions(definition, &mut found);
    approval(definition, old, group, &mut found);
    if path::bool(spec, "preserveUnknownFields") {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        found.push(Violation::invalid(at.field("preserveUnknownFields"), true, detail));
    }
    found
}

/// How a definition stands to the community that owns its group: `k8s.io` and what is below it is protected.
/// <https://github.com/kubernetes/enhancements/pull/1111>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval<'a> {
    Missing,
    /// Somebody says that it needs none: `unapproved, …`.
    Bypassed(&'a str),
    Invalid(&'a str),
    /// The address of what approves it.
    Approved(&'a str),
}

impl<'a> Approval<'a> {
    /// By the annotations of a definition; None: its group belongs to nobody in particular.
    pub fn of(group: &str, annotations: &'a Value) -> Option<Self> {
        let is_protected = ["k8s.io", "kubernetes.io"].iter().any(|domain| {
            group.strip_suffix(domain).is_some_and(|front| front.is_empty() || front.ends_with('.'))
        });
        let said = annotations.get(APPROVED).and_then(Value::as_str).unwrap_or_default();
        let is_address = || {
            let rest = said.split_once("://").filter(|(scheme, _)| !scheme.is_empty());
            rest.is_some_and(|(_, rest)| !rest.split(['/', '?', '#']).next().unwrap_or_default().is_empty())
        };
        is_protected.then(|| match said {
            "" => Self::Missing,
            _ if said.starts_with("unapproved") => Self::Bypassed(said),
            _ if is_address() => Self::Approved(said),
            _ => Self::Invalid(said),
        })
    }

    /// What a definition that may not be there is told.
    pub fn refusal(self) -> Option<String> {
        let form = match self {
            Self::Bypassed(_) | Self::Approved(_) => return None,
            Self::Invalid(_) => " with either a URL or a reason starting with \"unapproved\"",
            Self::Missing => "",
        };
        Some(format!(
            "protected groups must have approval annotation \"{APPROVED}\"{form}, see https://github.com/kubernetes/enhancements/pull/1111"
        ))
    }
}

fn approval(definition: &Value, old: Option<&Value>, group: &str, found: &mut Found) {
    let of = |one: &'_ Value| path::get(one, "metadata.annotations").cloned().unwrap_or_default();
    let (new, before) = (of(definition), old.map(of));
    let Some(state) = Approval::of(group, &new) else { return };
    let was = before.as_ref().and_then(|before| Approval::of(group, before));
    // Who leaves it as it was is not told again.
    if was.is_some_and(|was| std::mem::discriminant(&was) == std::mem::discriminant(&state)) {
        return;
    }
    let at = At::root("metadata.annotations");
    match (state, state.refusal()) {
        (_, None) => {}
        (Approval::Invalid(text), Some(why)) => found.push(Violation::invalid(at.key(APPROVED), text, why)),
        (_, Some(why)) => found.push(Violation::required(at.key(APPROVED), why)),
    }
}

/// Names as they are asked for, or as they were accepted: those that are there.
fn forms_of_names(own: &Value, at: At<'_>, found: &mut Found) {
    for field in ["plural", "singular"] {
        check::follows(own, field, names::dns_1035_label, at, found);
    }
    for field in ["kind", "listKind"] {
        let text = path::text(own, field);
        for wrong in names::dns_1035_label(&text.to_lowercase()).into_iter().filter(|_| !text.is_empty()) {
            let detail = format!("may have mixed case, but should otherwise match: {wrong}");
            found.push(Violation::invalid(at.field(field), text, detail));
        }
    }
    let mut each = |field: &str| {
        for (index, name) in path::list(own, field).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let at = at.field(field);
            found.extend(Violation::all_invalid(at.index(index), name, names::dns_1035_label(name)));
        }
    };
    each("shortNames");
    each("categories");
    let kind = path::text(own, "kind");
    if !kind.is_empty() && kind == path::text(own, "listKind") {
        // Behind the short names, in front of the categories.
        let categories = format!("{}[", at.field("categories"));
        let place = found.iter().position(|one| one.field.starts_with(&categories)).unwrap_or(found.len());
        let detail = "kind and listKind may not be the same";
        found.insert(place, Violation::invalid(at.field("listKind"), kind, detail));
    }
}

fn versions(spec: &Value, parts: &Parts<'_>, at: At<'_>, found: &mut Found) {
    let list = at.field("versions");
    for (index, version) in parts.versions.iter().enumerate() {
        if path::get(version, "schema.openAPIV3Schema").is_none() {
            let at = list.index(index);
            found.push(Violation::required(at.field("schema.openAPIV3Schema"), ""));
        }
    }
    let mut taken: Vec<&str> = Vec::new();
    for (index, version) in parts.versions.iter().enumerate() {
        let (name, at) = (path::text(version, "name"), list.index(index));
        found.extend(Violation::all_invalid(at.field("name"), name, names::dns_1035_label(name)));
        deprecation_warning(version, at.field("deprecationWarning"), found);
        parts.apart(version, at, found);
        taken.push(name);
    }
    let first = taken.first().copied().unwrap_or_default();
    let count = taken.len();
    taken.sort_unstable();
    taken.dedup();
    if taken.len() != count {
        found.push(Violation::invalid(list, &spec["versions"], "must contain unique version names"));
    }
    if parts.versions.iter().filter(|version| path::bool(version, "storage")).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        found.push(Violation::invalid(list, &spec["versions"], detail));
    }
    if !first.is_empty() {
        // The internal form has the first one's name above the versions, too.
        found.extend(Violation::all_invalid(at.field("version"), first, names::dns_1035_label(first)));
    }
}

fn deprecation_warning(version: &Value, at: At<'_>, found: &mut Found) {
    let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else { return };
    let mut say = |why: String| found.push(Violation::invalid(at, warning, why));
    if !path::bool(version, "deprecated") {
        return say("can only be set for deprecated versions".into());
    }
    if warning.len() > WARNING_MAX {
        say(format!("must be <= {WARNING_MAX} characters long"));
    }
    if warning.is_empty() {
        say("must not be an empty string".into());
    }
    if let Some((index, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        say(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        ));
    }
}

/// A part of a version, as its check sees it.
struct Part<'a> {
    /// `openAPIV3Schema` of the version.
    schema: &'a Value,
    own: &'a Value,
    /// The version, or any where all have the part alike, has a status of its own.
    has_status: bool,
}

/// Where a part stands in a version, where its faults are told if all versions have it alike, and what they are.
type PartRow = (&'static str, &'static str, fn(&Part<'_>, At<'_>, &mut Found));

const PARTS: [PartRow; 4] = [
    ("schema.openAPIV3Schema", "validation.openAPIV3Schema", |part, at, found| {
        open_api(part.schema, part.has_status, at, found);
    }),
    ("subresources", "subresources", |part, at, found| {
        if let Some(scale) = part.own.get("scale").filter(|scale| !scale.is_null()) {
            scale_paths(scale, at.field("scale"), found);
        }
    }),
    ("additionalPrinterColumns", "additionalPrinterColumns", |part, at, found| {
        for (index, column) in part.own.as_array().into_iter().flatten().enumerate() {
            printer_column(column, at.index(index), found);
        }
    }),
    ("selectableFields", "selectableFields", |part, at, found| {
        selectable_fields(part.schema, part.own, at, found);
    }),
];

/// What versions are made of. What all of them have alike is told once, behind what they have apart.
struct Parts<'a> {
    versions: &'a [Value],
    /// The `spec` that an update changes.
    before: Option<&'a Value>,
}

static NOTHING: Value = Value::Null;

fn part<'a>(version: &'a Value, field: &str) -> &'a Value {
    path::get(version, field).unwrap_or(&NOTHING)
}

fn schema_of(version: &Value) -> &Value {
    part(version, "schema.openAPIV3Schema")
}

fn has_status(version: &Value) -> bool {
    path::get(version, "subresources.status").is_some_and(|status| !status.is_null())
}

impl Parts<'_> {
    fn are_alike(&self, field: &str) -> bool {
        let first = self.versions.first().map(|version| part(version, field));
        self.versions.iter().all(|version| Some(part(version, field)) == first)
    }

    /// What was let in once stays, however strict the rules become.
    fn is_known(&self, version: &Value, field: &str) -> bool {
        let before = self.before.map(|before| path::list(before, "versions")).unwrap_or_default();
        before
            .iter()
            .any(|old| part(old, field) == part(version, field) && schema_of(old) == schema_of(version))
    }

    fn apart(&self, version: &Value, at: At<'_>, found: &mut Found) {
        for (field, _, check) in PARTS {
            if self.are_alike(field) || self.is_known(version, field) {
                continue;
            }
            let (schema, own) = (schema_of(version), part(version, field));
            check(&Part { schema, own, has_status: has_status(version) }, at.field(field), found);
        }
    }

    fn together(&self, at: At<'_>, found: &mut Found) {
        let Some(first) = self.versions.first() else { return };
        for (field, together, check) in PARTS {
            if !self.are_alike(field) || self.is_known(first, field) {
                continue;
            }
            let has_status = self.versions.iter().any(has_status);
            let (schema, own) = (schema_of(first), part(first, field));
            check(&Part { schema, own, has_status }, at.field(together), found);
        }
    }
}

/// What keeps the schemas of a definition from being structural.
pub fn schemas(definition: &Value) -> Vec<Violation> {
    let versions = path::list(definition, "spec.versions").iter();
    versions
        .flat_map(|version| {
            structural::structure(schema_of(version), At::root("spec.validation.openAPIV3Schema"))
        })
        .collect()
}

/// What a schema may say at its root if the status is a resource of its own, whose schema is cut out of it.
const BESIDE_STATUS: [&str; 22] = [
    "Description",
    "Type",
    "Format",
    "Title",
    "Maximum",
    "ExclusiveMaximum",
    "Minimum",
    "ExclusiveMinimum",
    "MaxLength",
    "MinLength",
    "Pattern",
    "MaxItems",
    "MinItems",
    "UniqueItems",
    "MultipleOf",
    "Required",
    "Items",
    "Properties",
    "ExternalDocs",
    "Example",
    "XPreserveUnknownFields",
    "XValidations",
];

/// The name of a member in upstream's struct: `maxLength` is `MaxLength`, `x-kubernetes-validations` is `XValidations`.
fn struct_name(member: &str) -> String {
    let (front, rest) = member.strip_prefix("x-kubernetes-").map_or(("", member), |rest| ("X", rest));
    let words = rest.split('-').map(|word| {
        let mut letters = word.chars();
        letters.next().map_or(String::new(), |first| format!("{}{}", first.to_uppercase(), letters.as_str()))
    });
    format!("{front}{}", words.collect::<String>())
}

fn beside_status(schema: &Value, at: At<'_>, found: &mut Found) {
    let is_nothing = |value: &Value| {
        matches!(value, Value::Null | Value::Bool(false)) || value.as_str().is_some_and(str::is_empty)
    };
    let mut said = schema.as_object().into_iter().flatten().filter(|(_, value)| !is_nothing(value));
    let kind = path::text(schema, "type");
    if !kind.is_empty() && kind != "object" {
        let why = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        found.push(Violation::invalid(at.field("type"), kind, why));
    } else if said.any(|(name, _)| !BESIDE_STATUS.contains(&&*struct_name(name))) {
        let why = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            BESIDE_STATUS.join(" ")
        );
        found.push(Violation::invalid(at, schema, why));
    }
}

fn open_api(schema: &Value, has_status: bool, at: At<'_>, found: &mut Found) {
    if !schema.is_object() {
        return;
    }
    if has_status {
        beside_status(schema, at, found);
    }
    let review = structural::review(crate::types(), schema, at);
    let of_schemas: Vec<String> = review.found.iter().map(|one| one.field.clone()).collect();
    found.extend(review.found);
    // Rules are compiled for the types that a structure has.
    if review.is_sound {
        crate::definition_rules::check(schema, &of_schemas, at, found);
    }
}

/// <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#crd-selectable-fields>
fn selectable_fields(schema: &Value, fields: &Value, at: At<'_>, found: &mut Found) {
    let mut seen = check::Seen::default();
    let mut count = 0;
    for (index, field) in fields.as_array().into_iter().flatten().enumerate() {
        let text = path::text(field, "jsonPath");
        let at = at.index(index);
        let at = at.field("jsonPath");
        if text.is_empty() {
            found.push(Violation::required(at, ""));
            continue;
        }
        let (told, place) = match field_path::follow(schema, text, false) {
            Ok(found) => found,
            Err(why) => {
                found.push(Violation::invalid(at, text, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if told.split('.').next() == Some("metadata") {
            found.push(Violation::invalid(at, text, "must not point to fields in metadata"));
        }
        if !matches!(path::text(place, "type"), "boolean" | "integer" | "string") {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            found.push(Violation::invalid(at, text, detail));
        }
        if seen.repeats(told) {
            found.push(Violation::duplicate(at, text));
        } else {
            count += 1;
        }
    }
    if count > SELECTABLE_MAX {
        found.push(Violation::too_many(at, count, SELECTABLE_MAX));
    }
}

fn scale_paths(scale: &Value, at: At<'_>, found: &mut Found) {
    json_path(scale, "specReplicasPath", &[".spec."], "should be a json path under .spec", at, found);
    json_path(scale, "statusReplicasPath", &[".status."], "should be a json path under .status", at, found);
    if !path::text(scale, "labelSelectorPath").is_empty() {
        let detail = "should be a json path under either .spec or .status";
        json_path(scale, "labelSelectorPath", &[".spec.", ".status."], detail, at, found);
    }
}

fn json_path(scale: &Value, field: &str, roots: &[&str], detail: &str, at: At<'_>, found: &mut Found) {
    let text = path::text(scale, field);
    let at = at.field(field);
    if text.is_empty() {
        found.push(Violation::required(at, ""));
    } else if !text.starts_with('.') {
        found.push(Violation::invalid(at, text, NO_PATH));
    } else if !roots.iter().any(|root| text.starts_with(root)) {
        found.push(Violation::invalid(at, text, detail));
    }
}

fn printer_column(column: &Value, at: At<'_>, found: &mut Found) {
    check::required(column, "name", at, found);
    let (kind, detail) = (path::text(column, "type"), format!("must be one of {}", COLUMN_TYPES.join(",")));
    if kind.is_empty() {
        found.push(Violation::required(at.field("type"), detail));
    } else if !COLUMN_TYPES.contains(&kind) {
        found.push(Violation::invalid(at.field("type"), kind, detail));
    }
    let format = path::text(column, "format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        let detail = format!("must be one of {}", COLUMN_FORMATS.join(","));
        found.push(Violation::invalid(at.field("format"), format, detail));
    }
    // What cannot be read behind the dot is found when a table is made: it then has the columns of a definition without any.
    match path::text(column, "jsonPath") {
        "" => found.push(Violation::required(at.field("JSONPath"), "")),
        text if text.starts_with('.') => {}
        text => found.push(Violation::invalid(at.field("JSONPath"), text, NO_PATH)),
    }
}

/// The paths of a webhook's settings are those of upstream's internal form.
fn conversion(spec: &Value, at: At<'_>, found: &mut Found) {
    let own = &spec["conversion"];
    let (config_at, versions_at) = (at.field("webhookClientConfig"), at.field("conversionReviewVersions"));
    let config = path::get(own, "webhook.clientConfig");
    let versions = path::list(own, "webhook.conversionReviewVersions");
    let strategy = path::text(own, "strategy");
    match strategy {
        "" => found.push(Violation::required(at.field("strategy"), "")),
        "None" | "Webhook" => {}
        other => found.push(Violation::not_supported(at.field("strategy"), other, &["None", "Webhook"])),
    }
    if strategy == "Webhook" {
        match config {
            None => found.push(Violation::required(config_at, "required when strategy is set to Webhook")),
            Some(config) => webhook::client_config(config, config_at, found),
        }
        match versions {
            [] => found.push(Violation::required(versions_at, "")),
            versions => webhook::review_versions(versions, versions_at, found),
        }
        return;
    }
    let why = "should not be set when strategy is not set to Webhook";
    if config.is_some() {
        found.push(Violation::forbidden(config_at, why));
    }
    if !versions.is_empty() {
        found.push(Violation::forbidden(versions_at, why));
    }
}

fn stored_versions(definition: &Value, found: &mut Found) {
    let stored = path::list(definition, "status.storedVersions");
    let at = At::root("status.storedVersions");
    if stored.is_empty() {
        found.push(Violation::invalid(
            at,
            &definition["status"]["storedVersions"],
            "must have at least one stored version",
        ));
        return;
    }
    for version in path::list(definition, "spec.versions").iter().filter(|one| path::bool(one, "storage")) {
        let name = &version["name"];
        if !stored.contains(name) {
            let detail = format!("must have the storage version {}", path::text(version, "name"));
            found.push(Violation::invalid(at, stored, detail));
        }
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
    let conditions = path::list(old, "status.conditions");
    let is_established = conditions
        .iter()
        .any(|one| path::text(one, "type") == "Established" && path::text(one, "status") == "True");
    if is_established {
        check::immutable(spec, before, "scope", at, found);
        check::immutable(spec, before, "names.kind", at, found);
    }
    check::immutable(spec, before, "group", at, found);
    check::immutable(spec, before, "names.plural", at, found);
}
