//! From what a client sent to an object of the kind that the path names: identity, types, defaults, validation.

use std::time::Instant;

use object::Status;
use schema::{DecodeError, FieldValidation, Kind, Violation};
use serde_json::{Map, Value};

use crate::measures::Measures;
use crate::metadata;
use crate::request::{Options, Request};

/// Makes a body the object that the path speaks of, in the form that is stored. Returns the warnings about its fields.
pub(crate) fn object(request: &Request<'_>, object: &mut Value) -> Result<Vec<String>, Status> {
    identify(request.kind, object)?;
    let warnings = fields(&Form::Kind(request.kind), object, request.options)
        .map_err(|error| unreadable(request.kind, &error))?;
    finish(request, object)?;
    Ok(warnings)
}

/// What follows once the fields of an object are known to be of their types.
pub(crate) fn finish(request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    identify(request.kind, object)?;
    place(request, object)?;
    default(request.kind, object);
    // A custom resource stays in the version of its request until it is committed.
    if request.kind.custom.is_none() {
        *object = request.kind.to_stored(object.take());
    }
    Ok(())
}

/// An object as the gate has it in the version that the request speaks: a custom resource is in it already.
pub(crate) fn from_stored(kind: &Kind, object: Value) -> Value {
    if kind.custom.is_some() { object } else { kind.read_stored(object) }
}

/// The members of a body, which must be an object: it says of which kind it should be.
pub(crate) fn members<'a>(kind: &str, object: &'a mut Value) -> Result<&'a mut Map<String, Value>, Status> {
    // Go reads null as nothing said.
    if object.is_null() {
        *object = Value::Object(Map::new());
    }
    let found = match object {
        Value::Object(members) => return Ok(members),
        Value::Array(_) => "array",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Null => "null",
    };
    Err(Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: \
         json: cannot unmarshal {found} into Go value of type struct"
    )))
}

/// The body says what it is, or the path says it for it.
pub(crate) fn identify(kind: &Kind, object: &mut Value) -> Result<(), Status> {
    let members = members(kind.kind, object)?;
    let expected = kind.api_version();
    let version = members.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let name = members.get("kind").and_then(Value::as_str).unwrap_or_default();
    let told = |said: &str, expected: &str| said.is_empty() || said == expected;
    // Validation says what those of a definition must be, besides of the path's version.
    let is_its_own = told(name, kind.kind) || kind.custom.is_some();
    if !told(version, &expected) || !is_its_own {
        let version = if version.is_empty() { &expected } else { version };
        let name = if name.is_empty() { kind.kind } else { name };
        return Err(Status::bad_request(match kind.custom {
            Some(_) => {
                format!(
                    "the API version in the data ({version}) does not match the expected API version ({expected})"
                )
            }
            None => unfit(kind.kind, kind.group, version, name),
        }));
    }
    let name = if kind.custom.is_some() && !name.is_empty() { name.to_owned() } else { kind.kind.to_owned() };
    members.insert("apiVersion".into(), expected.into());
    members.insert("kind".into(), name.into());
    Ok(())
}

/// Upstream's words for a body that says to be something else than `kind`, which the path wants.
pub(crate) fn unfit(kind: &str, group: &str, api_version: &str, name: &str) -> String {
    let version = api_version.rsplit('/').next().unwrap_or_default();
    // A list is known wherever its kind is; `List` and the like are of every version.
    let of = |row: &&Kind| row.api_version() == api_version && (row.kind == name || row.list_kind() == name);
    let why = if name == "List" && api_version == "v1" || kinds::all().iter().any(of) {
        // The internal package, and its group's first word: `core`, `apps`, `rbac`.
        let internal = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or_default() };
        let package = api_version.split_once('/').map_or("v1", |(_, version)| version);
        format!("converting ({package}.{name}) to ({internal}.{kind}): unknown conversion")
    } else {
        not_registered(api_version, name)
    };
    format!("{name} in version \"{version}\" cannot be handled as a {kind}: {why}")
}

/// Upstream's words for a kind that there is none of.
pub(crate) fn not_registered(api_version: &str, name: &str) -> String {
    format!(
        "no kind {name:?} is registered for version {api_version:?} in scheme \"pkg/runtime/scheme.go:111\""
    )
}

/// What a body is read as.
pub(crate) enum Form<'a> {
    Kind(&'a Kind),
    /// A type of the table, of a subresource: `autoscaling.v1.Scale`.
    Type(&'a str),
}

/// Makes the body of a request that stores nothing one of its type: `kind` is its group, version and kind. Returns the warnings about its
/// fields.
///
/// # Errors
/// 400 what is of another kind, or cannot be read as one of this.
pub fn document(
    kind: (&str, &str, &str),
    type_name: &str,
    object: &mut Value,
    options: &Options,
) -> Result<Vec<String>, Status> {
    let (group, version, name) = kind;
    let expected = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let members = members(name, object)?;
    let said = |member: &str| members.get(member).and_then(Value::as_str).filter(|said| !said.is_empty());
    let (said_version, said_name) = (said("apiVersion").unwrap_or(&expected), said("kind").unwrap_or(name));
    if said_version != expected || said_name != name {
        return Err(Status::bad_request(unfit(name, group, said_version, said_name)));
    }
    members.insert("apiVersion".into(), expected.into());
    members.insert("kind".into(), name.into());
    fields(&Form::Type(type_name), object, options).map_err(|error| {
        Status::bad_request(format!("{name} in version {version:?} cannot be handled as a {name}: {error}"))
    })
}

/// Checks types, drops unknown fields and nulls. What the reader of the body found counts as found here.
pub(crate) fn fields(
    form: &Form<'_>,
    object: &mut Value,
    options: &Options,
) -> Result<Vec<String>, DecodeError> {
    let strict = options.field_validation == FieldValidation::Strict;
    // Conform tells what is unknown in both modes that tell; Strict is decided here, where the reader's findings are known too.
    let mode = if strict { FieldValidation::Warn } else { options.field_validation };
    let decoded = match form {
        Form::Kind(kind) => kinds::conform(kind, object.take(), mode)?,
        Form::Type(name) => kinds::types().conform(name, object.take(), mode)?,
    };
    *object = decoded.value;
    let mut found = [&options.problems.told[..], &decoded.warnings].concat();
    if let Some(text) = options.problems.text.as_ref().filter(|_| found.len() > 1) {
        schema::sort_findings(text, &mut found);
    }
    match options.field_validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Strict if !found.is_empty() => Err(DecodeError::Strict(found)),
        _ => Ok(found),
    }
}

/// Drops what the kind does not know of from what an extension made of an object. A value of the wrong type is the extension's fault.
pub(crate) fn prune(kind: &Kind, object: &mut Value) -> Result<(), Status> {
    let decoded = kinds::conform(kind, object.take(), FieldValidation::Ignore).map_err(Status::internal)?;
    *object = decoded.value;
    Ok(())
}

fn unreadable(kind: &Kind, error: &DecodeError) -> Status {
    Status::bad_request(format!(
        "{0} in version \"{1}\" cannot be handled as a {0}: {error}",
        kind.kind, kind.version
    ))
}

/// Name and namespace of the body must be those of the path.
fn place(request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
    let namespace = metadata::text(object, "namespace");
    if request.kind.namespaced && !namespace.is_empty() && namespace != request.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let name = metadata::text(object, "name");
    if !request.name.is_empty() && name != request.name {
        return Err(Status::bad_request(if name.is_empty() {
            format!(
                "the name of the object ({} based on URL) was undeterminable: name must be provided",
                request.name
            )
        } else {
            format!("the name of the object ({name}) does not match the name on the URL ({})", request.name)
        }));
    }
    let metadata = metadata::metadata(object);
    if request.kind.namespaced {
        metadata.insert("namespace".into(), request.namespace.into());
    } else {
        metadata.remove("namespace");
    }
    Ok(())
}

pub(crate) fn default(kind: &Kind, object: &mut Value) {
    kinds::default(kind, object);
}

/// Everything that is wrong with an object, as one 422. Without `old`, or unless it `compares`, nothing is said about what may not change
/// but by the rules of the subresource. `kind` is the stored row: of a built-in one, the version that is asked for may know more rules.
/// To `warnings` comes what an update may keep, though it would be refused if it were new.
pub(crate) fn validate(
    request: &Request<'_>,
    kind: &Kind,
    new: &Value,
    old: Option<&Value>,
    compares: bool,
    warnings: &mut Vec<String>,
    measures: &Measures,
) -> Result<(), Status> {
    let asked = if kind.custom.is_some() { kind } else { request.kind };
    let compared = old.filter(|_| compares);
    let mut violations = asked.violations_but_rules(new, compared);
    let began = Instant::now();
    if let Some(broken) = asked.broken_rules(new, compared, &violations) {
        measures.asked_rules(began.elapsed());
        violations.extend(broken);
    }
    if let (Some(old), false) = (old, request.subresource.is_empty()) {
        violations.extend((asked.validate_part)(request.subresource, new, old));
    }
    if let Some(old) = old.filter(|_| kind.custom.is_some()) {
        let began = Instant::now();
        warnings.extend(kind.ratcheted(new, old, &violations));
        measures.ratcheted(began.elapsed());
    }
    if violations.is_empty() {
        return Ok(());
    }
    // What says to be of another kind is told as that.
    let said = new.get("kind").and_then(Value::as_str).filter(|_| kind.custom.is_some());
    let told = said.unwrap_or(kind.kind);
    Err(Violation::to_status(&violations, kind.group, told, metadata::text(new, "name")))
}
