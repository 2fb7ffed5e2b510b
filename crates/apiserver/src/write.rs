//! POST, PUT, PATCH and DELETE: bodies and options read, the gate asked, its outcome told.

use std::sync::Arc;

use bytes::Bytes;
use gate::{Answer as Done, Change, DeleteOptions, Options, Outcome, PatchKind, Preconditions};
use http::{HeaderMap, Request, StatusCode, header};
use hyper::body::Incoming;
use object::{Object, Reason, Status};
use plan::{Propagation, User};
use schema::{FieldValidation, Kind, Violation, ViolationKind, path};
use serde_json::{Value, json};

use crate::negotiate::{self, Asked, Media, Shape, View};
use crate::query::Query;
use crate::respond::{self, Answer};
use crate::route::Target;
use crate::shared::Shared;
use crate::show::{self, table};
use crate::{audit, body, cbor, items, list, protobuf};

pub(crate) async fn write(
    shared: &Arc<Shared>,
    user: &User,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    let (head, incoming) = request.into_parts();
    let headers = &head.headers;
    let cbor = shared.config.cbor;
    let view = negotiate::view(headers, query, &target.kind, asked(target), cbor)?;
    let mut options = options(target, query, headers)?;
    options.annotations = audit::annotations(&head.extensions);
    let limit = shared.config.limits.body_bytes;
    let to_gate = |options| gate::Request {
        user,
        kind: &target.kind,
        namespace: &target.namespace,
        name: &target.name,
        subresource: &target.subresource,
        options,
    };
    let outcome = match target.verb {
        "create" => {
            let encoding = body::encoding(headers, cbor)?;
            let (object, problems) = body::parse(
                &target.kind,
                &body::type_name(target),
                encoding,
                &body::read(incoming, limit).await?,
            )?;
            audit::heard(&head.extensions, &object);
            options.problems = problems;
            shared.gate.create(&to_gate(&options), object).await?
        }
        "update" => {
            let encoding = body::encoding(headers, cbor)?;
            let (object, problems) = body::parse(
                &target.kind,
                &body::type_name(target),
                encoding,
                &body::read(incoming, limit).await?,
            )?;
            audit::heard(&head.extensions, &object);
            options.problems = problems;
            let change = Change::Replace(object);
            shared.gate.update(&to_gate(&options), &change, &Preconditions::default()).await?
        }
        "patch" => {
            let (how, encoding) = patch_kind(&target.kind, headers, cbor)?;
            let (document, problems) = patch_document(encoding, &body::read(incoming, limit).await?)?;
            audit::heard(&head.extensions, &document);
            if let (Some(problem), FieldValidation::Strict) = (problems.first(), options.field_validation) {
                return Err(Status::bad_request(format!("error strict decoding YAML: {problem}")));
            }
            options.problems = problems;
            check_apply(how, &options, query)?;
            let change = Change::Patch(how, document);
            shared.gate.update(&to_gate(&options), &change, &Preconditions::default()).await?
        }
        "delete" => {
            let text = body::read(incoming, limit).await?;
            let delete = delete_options(query, headers, cbor, &text, &mut options)?;
            let outcome = shared.gate.delete(&to_gate(&options), &delete).await?;
            // It is done: what a Status tells of needs nobody who converts it.
            let outcome = match leaves_a_status(&target.kind, &outcome) {
                true => outcome,
                false => in_version(shared, &target.kind, outcome).await?,
            };
            return Ok(deleted(shared, target, view, outcome, &delete));
        }
        _ => {
            let text = body::read(incoming, limit).await?;
            let delete = delete_options(query, headers, cbor, &text, &mut options)?;
            let objects = list::selected(shared, target, query).await?;
            let gone = shared.gate.delete_collection(&to_gate(&options), &delete, &objects).await?;
            let metadata = json!({"resourceVersion": shared.store().snapshot().revision().to_string()});
            // They are gone, whether or not somebody can be asked how they look in this version.
            let gone = shared.gate.in_version(&target.kind, gone).await.unwrap_or_default();
            let gone = items::Objects::Chosen(gone.into_iter());
            return items::answer(shared, &target.kind, view, metadata, gone).await;
        }
    };
    let outcome = in_version(shared, &target.kind, outcome).await?;
    match &outcome.answer {
        Done::Made(scale) if target.subresource == "scale" => {
            let mut answer = table::scale(&target.kind, view, StatusCode::OK, scale, shared.gate.now())?;
            respond::warn(&mut answer, &outcome.warnings);
            Ok(answer)
        }
        _ => Ok(told(shared, &target.kind, view, outcome)),
    }
}

/// What was written, in the version that the client speaks.
async fn in_version(shared: &Shared, kind: &Kind, outcome: Outcome) -> Result<Outcome, Status> {
    let answer = match outcome.answer {
        Done::Object(object) => Done::Object(shared.in_version(kind, &object).await?),
        Done::Removed(object) => Done::Removed(shared.in_version(kind, &object).await?),
        made => made,
    };
    Ok(Outcome { answer, ..outcome })
}

/// The outcome of a create or an update.
fn told(shared: &Shared, kind: &Kind, view: View, outcome: Outcome) -> Answer {
    let code = if outcome.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut answer = match &outcome.answer {
        Done::Object(object) | Done::Removed(object) => shown(shared, kind, view, code, object),
        Done::Made(value) => respond::document(view.media, code, value),
    };
    respond::warn(&mut answer, &outcome.warnings);
    answer
}

/// Kinds whose DELETE answers with the object even when it is gone at once; the others answer with a `Status`.
const RETURNED_WHEN_DELETED: &[&str] = &[
    "csidrivers.storage.k8s.io",
    "csinodes.storage.k8s.io",
    "deviceclasses.resource.k8s.io",
    "namespaces",
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "resourceclaims.resource.k8s.io",
    "resourceclaimtemplates.resource.k8s.io",
    "resourcequotas",
    "resourceslices.resource.k8s.io",
    "serviceaccounts",
    "services",
    "storageclasses.storage.k8s.io",
    "volumeattachments.storage.k8s.io",
    "volumeattributesclasses.storage.k8s.io",
];

fn leaves_a_status(kind: &Kind, outcome: &Outcome) -> bool {
    matches!(outcome.answer, Done::Removed(_)) && !RETURNED_WHEN_DELETED.contains(&kind.resource.as_str())
}

fn deleted(
    shared: &Shared,
    target: &Target,
    view: View,
    outcome: Outcome,
    options: &DeleteOptions,
) -> Answer {
    let kind = &target.kind;
    let mut answer = match &outcome.answer {
        Done::Removed(object) if leaves_a_status(kind, &outcome) => {
            let mut details =
                json!({"name": &*object.key.name, "kind": kind.resource.plural(), "uid": &*object.meta.uid});
            if !kind.group.is_empty() {
                details["group"] = kind.group.into();
            }
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            respond::document(view.media, StatusCode::OK, &status)
        }
        Done::Removed(object) => shown(shared, kind, view, StatusCode::OK, object),
        Done::Object(object) => {
            let asked_to_wait = options.orphan_dependents == Some(false);
            let code = if asked_to_wait { StatusCode::ACCEPTED } else { StatusCode::OK };
            shown(shared, kind, view, code, object)
        }
        Done::Made(value) => respond::document(view.media, StatusCode::OK, value),
    };
    respond::warn(&mut answer, &outcome.warnings);
    answer
}

/// One object as an answer; the shared bytes themselves where they are what was asked for.
pub(crate) fn shown(
    shared: &Shared,
    kind: &Kind,
    view: View,
    code: StatusCode,
    object: &Arc<Object>,
) -> Answer {
    match text(shared, kind, view, object) {
        Ok(text) => respond::encoded(view.media, code, text),
        Err(status) => respond::failure(&status),
    }
}

/// One object as it is asked for.
fn text(shared: &Shared, kind: &Kind, view: View, object: &Arc<Object>) -> Result<Bytes, Status> {
    let json = if view.shape == Shape::Whole && kind.reads_as_stored(object) {
        object.body.clone()
    } else {
        let mut text = Vec::with_capacity(object.body.len());
        show::object(kind, view.shape, object, shared.gate.now(), &mut text);
        text.into()
    };
    match view.media {
        Media::Json => Ok(json),
        Media::Protobuf => {
            let mut made = Vec::with_capacity(json.len());
            match view.shape {
                Shape::Metadata(meta) => protobuf::partial(meta, &json, &mut made)?,
                _ => protobuf::whole(kind.type_name, &kind.api_version(), kind.kind, &json, &mut made)?,
            }
            Ok(made.into())
        }
        Media::Cbor | Media::Yaml => {
            let value = serde_json::from_slice(&json).map_err(Status::internal)?;
            respond::encode(view.media, &value).map(Bytes::from)
        }
    }
}

/// What a write is answered with: subresources with a type of their own (`Scale`, `Eviction`) are no objects of the kind.
fn asked(target: &Target) -> Asked {
    match target.kind.subresource(&target.subresource).and_then(|one| one.gvk) {
        Some(_) if target.subresource == "scale" => Asked::Scale,
        Some(_) => Asked::Document,
        None if target.verb == "deletecollection" => Asked::List,
        None => Asked::Object,
    }
}

pub(crate) fn options(target: &Target, query: &Query, headers: &HeaderMap) -> Result<Options, Status> {
    let kind = match target.verb {
        "create" => "CreateOptions",
        "update" => "UpdateOptions",
        "patch" => "PatchOptions",
        _ => "DeleteOptions",
    };
    // What is deleted is not looked at.
    let text = if kind == "DeleteOptions" { "" } else { query.get("fieldValidation") };
    let Some(field_validation) = FieldValidation::parse(text) else {
        let supported = "supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"";
        return Err(invalid(kind, ViolationKind::NotSupported, "fieldValidation", text.into(), supported));
    };
    let dry_run = check_dry_run(kind, &query.all("dryRun").collect::<Vec<_>>())?;
    let manager = query.get("fieldManager");
    if manager.len() > 128 {
        return Err(invalid(
            kind,
            ViolationKind::TooLong,
            "fieldManager",
            manager.into(),
            "may not be more than 128 bytes",
        ));
    }
    if let Some((at, wrong)) = manager.char_indices().find(|(_, one)| one.is_control()) {
        let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(wrong));
        return Err(invalid(kind, ViolationKind::Invalid, "fieldManager", manager.into(), &detail));
    }
    let field_manager = if manager.is_empty() { agent(headers) } else { manager };
    Ok(Options {
        dry_run,
        field_validation,
        field_manager: field_manager.into(),
        force: query.flag("force"),
        problems: Vec::new(),
        annotations: None,
    })
}

fn check_dry_run(kind: &str, values: &[&str]) -> Result<bool, Status> {
    if values.iter().any(|value| *value != "All") {
        let supported = "supported values: \"All\"";
        return Err(invalid(kind, ViolationKind::NotSupported, "dryRun", json!(values), supported));
    }
    Ok(!values.is_empty())
}

/// Who writes, if the client does not say: its user agent up to the first slash.
fn agent(headers: &HeaderMap) -> &str {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = agent.split('/').next().unwrap_or_default();
    let end = name
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|end| *end <= 128)
        .last()
        .unwrap_or(0);
    if end == 0 { "unknown" } else { &name[..end] }
}

fn invalid(kind: &str, how: ViolationKind, field: &str, value: Value, detail: &str) -> Status {
    let violation =
        Violation { kind: how, field: field.to_owned(), value: value.to_string(), detail: detail.to_owned() };
    Violation::to_status(&[violation], "meta.k8s.io", kind, "")
}

/// What custom resources know: a schema has no strategies to merge by.
const CUSTOM_PATCHES: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// Which patch a body is, and how it is written.
fn patch_kind(kind: &Kind, headers: &HeaderMap, cbor: bool) -> Result<(PatchKind, Media), Status> {
    match negotiate::content_type(headers) {
        "application/json-patch+json" => Ok((PatchKind::Json, Media::Json)),
        "application/merge-patch+json" => Ok((PatchKind::Merge, Media::Json)),
        "application/strategic-merge-patch+json" if kind.custom.is_none() => {
            Ok((PatchKind::Strategic, Media::Json))
        }
        "application/apply-patch+yaml" => Ok((PatchKind::Apply, Media::Yaml)),
        "application/apply-patch+cbor" if cbor => Ok((PatchKind::Apply, Media::Cbor)),
        _ if kind.custom.is_none() => {
            // Upstream's router knows the patches of what it serves itself.
            let words = "415: Unsupported Media Type";
            Err(Status::of_no_resource(Reason::UnsupportedMediaType, words))
        }
        _ => {
            let more = if cbor { ", application/apply-patch+cbor" } else { "" };
            Err(body::unsupported(&format!("{CUSTOM_PATCHES}{more}")))
        }
    }
}

/// A patch, and what is wrong with it that can be lived with.
fn patch_document(encoding: Media, text: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let fine = |value| (value, Vec::new());
    let read = match encoding {
        Media::Cbor => cbor::decode(text).map(fine).map_err(|why| format!("error decoding CBOR: {why}")),
        Media::Yaml => body::yaml_with_repeats(text).map_err(|why| format!("error decoding YAML: {why}")),
        _ => serde_json::from_slice(text).map(fine).map_err(|why| format!("error decoding patch: {why}")),
    };
    read.map_err(Status::bad_request)
}

fn check_apply(how: PatchKind, options: &Options, query: &Query) -> Result<(), Status> {
    match how {
        PatchKind::Apply if query.get("fieldManager").is_empty() => Err(invalid(
            "PatchOptions",
            ViolationKind::Required,
            "fieldManager",
            "".into(),
            "is required for apply patch",
        )),
        PatchKind::Apply => Ok(()),
        _ if options.force => Err(invalid(
            "PatchOptions",
            ViolationKind::Forbidden,
            "force",
            "".into(),
            "may not be specified for non-apply patch",
        )),
        _ => Ok(()),
    }
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
    let what = match &value {
        Value::Object(_) | Value::Null => "",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
    };
    if !what.is_empty() {
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

/// DeleteOptions from the body, or from the query if there is none.
fn delete_options(
    query: &Query,
    headers: &HeaderMap,
    cbor: bool,
    text: &[u8],
    options: &mut Options,
) -> Result<DeleteOptions, Status> {
    let body = match text {
        [] => Value::Null,
        text => told_options(body::encoding(headers, cbor)?, text).map_err(Status::bad_request)?,
    };
    let dry_run: Vec<&str> = path::list(&body, "dryRun").iter().filter_map(Value::as_str).collect();
    options.dry_run |= check_dry_run("DeleteOptions", &dry_run)?;
    // The query speaks where no body does, and is not asked beside one.
    let asked = Query::default();
    let query = if text.is_empty() { query } else { &asked };
    let policy = match path::text(&body, "propagationPolicy") {
        "" => query.get("propagationPolicy"),
        text => text,
    };
    let propagation = match policy {
        "" => None,
        "Background" => Some(Propagation::Background),
        "Foreground" => Some(Propagation::Foreground),
        "Orphan" => Some(Propagation::Orphan),
        other => {
            let supported = "supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"";
            return Err(invalid(
                "DeleteOptions",
                ViolationKind::NotSupported,
                "propagationPolicy",
                other.into(),
                supported,
            ));
        }
    };
    let grace_seconds = match (path::int(&body, "gracePeriodSeconds"), query.get("gracePeriodSeconds")) {
        (Some(seconds), _) => Some(seconds),
        (None, "") => None,
        (None, text) => Some(text.parse().map_err(|_| {
            Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
        })?),
    };
    let orphan_dependents = match path::get(&body, "orphanDependents") {
        Some(Value::Bool(orphan)) => Some(*orphan),
        _ => query.has("orphanDependents").then(|| query.flag("orphanDependents")),
    };
    let precondition = |name: &str| match path::text(&body, name) {
        "" => None,
        text => Some(text.into()),
    };
    Ok(DeleteOptions {
        grace_seconds,
        propagation,
        orphan_dependents,
        preconditions: Preconditions {
            uid: precondition("preconditions.uid"),
            revision: precondition("preconditions.resourceVersion"),
        },
    })
}
