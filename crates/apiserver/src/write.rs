//! POST, PUT, PATCH and DELETE: bodies and options read, the gate asked, its outcome told.

use std::sync::Arc;

use bytes::Bytes;
use gate::{Answer as Done, Change, DeleteOptions, Outcome, PatchKind, Preconditions, Problems};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use object::{Key, Object, Status};
use plan::User;
use schema::Kind;
use serde_json::json;

use crate::metrics::Listing;
use crate::negotiate::{self, Asked, Media, Shape, View};
use crate::query::Query;
use crate::respond::{self, Answer};
use crate::route::Target;
use crate::shared::Shared;
use crate::show::{self, table};
use crate::{audit, body, items, list, options, patches, protobuf};

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
    let patch = match target.verb {
        "patch" => Some(patches::kind(&target.kind, headers, cbor)?),
        _ => None,
    };
    let view = negotiate::view(headers, query, &target.kind, asked(target), cbor)?;
    if target.verb == "create" {
        body::encoding(headers, cbor)?;
    }
    let text = body::read(incoming, shared.config.limits.body_bytes).await?;
    shared.requests.body(target, text.len());
    let (mut options, delete) = match target.verb {
        "delete" | "deletecollection" => {
            let (options, delete) = options::of_deletion(query, headers, cbor, &text)?;
            (options, Some(delete))
        }
        _ => (options::of_write(target, query, headers, patch.map(|(how, _)| how))?, None),
    };
    options.annotations = audit::annotations(&head.extensions);
    let to_gate = |options| gate::Request {
        user,
        kind: &target.kind,
        namespace: &target.namespace,
        name: &target.name,
        subresource: &target.subresource,
        options,
    };
    let outcome = match (target.verb, patch, delete) {
        ("delete", _, Some(delete)) => {
            let outcome = shared.gate.delete(&to_gate(&options), &delete).await?;
            // It is done: what a Status tells of needs nobody who converts it.
            let outcome = match leaves_a_status(&target.kind, &outcome) {
                true => outcome,
                false => in_version(shared, &target.kind, outcome).await?,
            };
            return Ok(deleted(shared, target, view, outcome, &delete));
        }
        (_, _, Some(delete)) => {
            let objects = list::selected(shared, target, query).await?;
            let gone = shared.gate.delete_collection(&to_gate(&options), &delete, &objects).await?;
            let metadata = json!({"resourceVersion": shared.store().snapshot().revision().to_string()});
            // They are gone, whether or not somebody can be asked how they look in this version.
            let gone = shared.gate.in_version(&target.kind, gone).await.unwrap_or_default();
            let gone = items::Objects::Chosen(gone.into_iter());
            return items::answer(shared, &target.kind, view, metadata, gone, Listing::default()).await;
        }
        (_, Some((how, encoding)), _) => {
            let read = patches::read(how, encoding, &text, options.field_validation);
            // What is not there is not patched by anything, whatever the patch says.
            let (document, told) = read.map_err(|error| missing(shared, target, how).unwrap_or(error))?;
            audit::heard(&head.extensions, &document);
            options.problems = Problems { told, text: None };
            let change = Change::Patch(how, document);
            shared.gate.update(&to_gate(&options), &change, &Preconditions::default()).await?
        }
        (verb, ..) => {
            let encoding = body::encoding(headers, cbor)?;
            let (object, problems) = body::parse(&target.kind, &body::type_name(target), encoding, &text)?;
            audit::heard(&head.extensions, &object);
            options.problems = problems;
            if verb == "create" {
                shared.gate.create(&to_gate(&options), object).await?
            } else {
                let change = Change::Replace(object);
                shared.gate.update(&to_gate(&options), &change, &Preconditions::default()).await?
            }
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

/// The 404 of a patch of an object that is not there; None: it is there, or an apply will make it.
fn missing(shared: &Shared, target: &Target, how: PatchKind) -> Option<Status> {
    let key = Key::new(target.kind.resource, &*target.namespace, &*target.name);
    let is_there = how == PatchKind::Apply || shared.store().snapshot().get(&key).is_some();
    (!is_there).then(|| Status::not_found(&key))
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
