//! The options of a write: what its query says, or of a deletion its body.

use gate::{DeleteOptions, Options, PatchKind, Preconditions, Problems};
use http::{HeaderMap, header};
use object::Status;
use plan::Propagation;
use schema::{At, FieldValidation, Violation, go, path};
use serde_json::Value;

use crate::query::{self, Query};
use crate::route::Target;
use crate::{body, cbor, protobuf};

/// Who may write under a name of so many bytes.
const MANAGER_MAX_BYTES: usize = 128;

/// Of a create, an update or a patch.
///
/// # Errors
/// Everything that is wrong with them, in upstream's order.
pub(crate) fn of_write(
    target: &Target,
    query: &Query,
    headers: &HeaderMap,
    patch: Option<PatchKind>,
) -> Result<Options, Status> {
    let kind = match target.verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        _ => "PatchOptions",
    };
    let manager = query.get("fieldManager");
    let mut found = Vec::new();
    match patch {
        Some(PatchKind::Apply) if manager.is_empty() => {
            found.push(Violation::required(At::root("fieldManager"), "is required for apply patch"));
        }
        Some(PatchKind::Apply) | None => {}
        Some(_) if query.has("force") => {
            let why = "may not be specified for non-apply patch";
            found.push(Violation::forbidden(At::root("force"), why));
        }
        Some(_) => {}
    }
    check_manager(manager, &mut found);
    let dry_run = dry_run(query.all("dryRun"), &mut found);
    let text = query.get("fieldValidation");
    let field_validation = FieldValidation::parse(text);
    if field_validation.is_none() {
        let supported = ["", "Ignore", "Strict", "Warn"];
        found.push(Violation::not_supported(At::root("fieldValidation"), text, &supported));
    }
    refuse(kind, &found)?;
    let field_manager = if manager.is_empty() { agent(headers) } else { manager };
    Ok(Options {
        dry_run,
        field_validation: field_validation.unwrap_or_default(),
        field_manager: field_manager.into(),
        force: query.flag("force"),
        problems: Problems::default(),
        annotations: None,
    })
}

fn refuse(kind: &str, found: &[Violation]) -> Result<(), Status> {
    if found.is_empty() { Ok(()) } else { Err(Violation::to_status(found, "meta.k8s.io", kind, "")) }
}

fn check_manager(manager: &str, found: &mut Vec<Violation>) {
    let at = At::root("fieldManager");
    if manager.len() > MANAGER_MAX_BYTES {
        found.push(Violation::too_long(at, MANAGER_MAX_BYTES));
    }
    for (place, wrong) in manager.char_indices().filter(|(_, one)| !go::is_print(*one)) {
        let detail = format!("invalid character U+{:04X} (at position {place})", u32::from(wrong));
        found.push(Violation::invalid(at, manager, detail));
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, found: &mut Vec<Violation>) -> bool {
    let values: Vec<&str> = values.collect();
    if values.iter().any(|value| *value != "All") {
        found.push(Violation::not_supported(At::root("dryRun"), &values, &["All"]));
    }
    !values.is_empty()
}

/// Who writes, if the client does not say: its user agent up to the first slash.
fn agent(headers: &HeaderMap) -> &str {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = agent.split('/').next().unwrap_or_default();
    let end = name
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|end| *end <= MANAGER_MAX_BYTES)
        .last()
        .unwrap_or(0);
    if end == 0 { "unknown" } else { &name[..end] }
}

/// The body of a DELETE as `DeleteOptions`, of any group's version. The errors are those of upstream's decoders: a body of another kind
/// deletes nothing.
fn told_options(encoding: body::Encoding, text: &[u8]) -> Result<Value, String> {
    let value = match encoding {
        body::Encoding::Protobuf => protobuf::decode("meta.v1.DeleteOptions", text)?,
        body::Encoding::Cbor => {
            cbor::decode(text).map_err(|why| format!("unable to decode DeleteOptions: {why}"))?
        }
        body::Encoding::Json => serde_json::from_slice(text).map_err(|error| {
            format!("couldn't get version/kind; json parse error: {}", schema::go_words(&error, text))
        })?,
        body::Encoding::Yaml => {
            body::yaml(text).map_err(|why| format!("error converting YAML to JSON: {why}"))?
        }
    };
    if !value.is_object() && !value.is_null() {
        let what = go::noun(&value);
        let kinds = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
        return Err(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {what} into Go value of type {kinds}"
        ));
    }
    let (kind, version) = (path::text(&value, "kind"), path::text(&value, "apiVersion"));
    if !matches!(kind, "" | "DeleteOptions") {
        return Err(format!(
            "no kind {kind:?} is registered for version {version:?} in scheme \"pkg/runtime/scheme.go:111\""
        ));
    }
    let read = kinds::types().conform("meta.v1.DeleteOptions", value, FieldValidation::Ignore);
    read.map(|read| read.value).map_err(|error| error.to_string())
}

/// Of a deletion: from its body, or from the query if there is none. What is deleted is not looked at, and nobody owns it.
pub(crate) fn of_deletion(
    query: &Query,
    headers: &HeaderMap,
    cbor: bool,
    text: &[u8],
) -> Result<(Options, DeleteOptions), Status> {
    let body = match text {
        [] => Value::Null,
        text => told_options(body::encoding(headers, cbor)?, text).map_err(Status::bad_request)?,
    };
    let dry_runs = path::list(&body, "dryRun").iter().filter_map(Value::as_str);
    // The query speaks where no body does, and is not asked beside one: but a dry run is one, wherever it is said.
    let asked_to_try = query.all("dryRun");
    let nothing = Query::default();
    let query = if text.is_empty() { query } else { &nothing };
    let grace_seconds = match (path::int(&body, "gracePeriodSeconds"), query.get("gracePeriodSeconds")) {
        (Some(seconds), _) => Some(seconds),
        (None, "") => None,
        (None, text) => Some(query::whole(text)?),
    };
    let orphan_dependents = match path::get(&body, "orphanDependents") {
        Some(Value::Bool(orphan)) => Some(*orphan),
        _ => query.has("orphanDependents").then(|| query.flag("orphanDependents")),
    };
    let policy = match path::text(&body, "propagationPolicy") {
        "" => query.get("propagationPolicy"),
        text => text,
    };
    let mut found = Vec::new();
    let at = At::root("propagationPolicy");
    if orphan_dependents.is_some() && !policy.is_empty() {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        found.push(Violation::invalid(at, policy, why));
    }
    let propagation = match policy {
        "" => None,
        "Background" => Some(Propagation::Background),
        "Foreground" => Some(Propagation::Foreground),
        "Orphan" => Some(Propagation::Orphan),
        other => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            found.push(Violation::not_supported(at, other, &supported));
            None
        }
    };
    let dry_run = dry_run(dry_runs.chain(asked_to_try), &mut found);
    refuse("DeleteOptions", &found)?;
    let precondition = |name: &str| match path::text(&body, name) {
        "" => None,
        text => Some(text.into()),
    };
    let preconditions = Preconditions {
        uid: precondition("preconditions.uid"),
        revision: precondition("preconditions.resourceVersion"),
    };
    let options = Options { dry_run, field_manager: agent(headers).into(), ..Options::default() };
    Ok((options, DeleteOptions { grace_seconds, propagation, orphan_dependents, preconditions }))
}
