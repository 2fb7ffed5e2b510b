//! `meta.k8s.io` `Table`: what `kubectl get` prints. Columns and cells come from the kind's row.

use http::StatusCode;
use object::{Object, Status, Time};
use schema::{Kind, human_duration};
use serde_json::{Value, json};

use super::{metadata, whole};
use crate::negotiate::{IncludeObject, Media, Meta, Shape, View};
use crate::protobuf;
use crate::respond::{self, Answer};

/// The columns of a kind.
pub(crate) fn columns(kind: &Kind) -> Value {
    let column = |column: &schema::Column| {
        json!({
            "name": column.name,
            "type": column.r#type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    };
    kind.columns().iter().map(column).collect()
}

/// A `Scale` as it is asked for, which is no object of a kind: `kubectl get deployment web --subresource=scale`.
pub(crate) fn scale(
    kind: &Kind,
    view: View,
    code: StatusCode,
    value: &Value,
    now: Time,
) -> Result<Answer, Status> {
    let partial = |meta: Meta| json!({"kind": "PartialObjectMetadata", "apiVersion": meta.api_version(), "metadata": value["metadata"]});
    match view.shape {
        Shape::Whole => Ok(respond::document(view.media, code, value)),
        Shape::Metadata(meta) if view.media == Media::Protobuf => {
            let mut text = Vec::new();
            protobuf::partial(meta, value.to_string().as_bytes(), &mut text)?;
            Ok(respond::encoded(view.media, code, text.into()))
        }
        Shape::Metadata(meta) => Ok(respond::document(view.media, code, &partial(meta))),
        Shape::Table(include, meta) => {
            let object = match include {
                IncludeObject::None => Value::Null,
                IncludeObject::Metadata => partial(meta),
                IncludeObject::Object => value.clone(),
            };
            let made: Option<Time> = schema::path::text(value, "metadata.creationTimestamp").parse().ok();
            let age = made.map_or("<unknown>".into(), |made| human_duration(now.secs_since(made)));
            let count = |path: &str| schema::path::int(value, path).unwrap_or_default();
            let cells =
                json!([value["metadata"]["name"], count("spec.replicas"), count("status.replicas"), age]);
            // As upstream's two ways to print one have it.
            let (name_format, age_type) =
                if kind.custom.is_some() { ("name", "date") } else { ("", "string") };
            let of = |name: &str, r#type: &str, format: &str, description: &str| json!({"name": name, "type": r#type, "format": format, "description": description, "priority": 0});
            let columns = [
                of("Name", "string", name_format, "The name, unique within its namespace."),
                of("Desired", "integer", "", "How many there should be."),
                of("Available", "integer", "", "How many there are."),
                of("Age", age_type, "", "The time since it was created."),
            ];
            let version = json!({"resourceVersion": value["metadata"]["resourceVersion"]});
            let table = json!({"kind": "Table", "apiVersion": meta.api_version(), "metadata": version,
                "columnDefinitions": columns, "rows": [{"cells": cells, "object": object}]});
            Ok(respond::document(view.media, code, &table))
        }
    }
}

/// One row: its cells, and as much of the object as was asked for.
pub(crate) fn row(
    kind: &Kind,
    include: IncludeObject,
    meta: Meta,
    object: &Object,
    now: Time,
    to: &mut Vec<u8>,
) {
    let value = super::value(kind, object);
    let cells: Value = kind.columns().iter().map(|column| column.cell(&value, now)).collect();
    to.extend_from_slice(b"{\"cells\":");
    to.extend_from_slice(cells.to_string().as_bytes());
    to.extend_from_slice(b",\"object\":");
    match include {
        IncludeObject::None => to.extend_from_slice(b"null"),
        IncludeObject::Metadata => metadata(meta, &object.body, to),
        IncludeObject::Object => whole(kind, object, to),
    }
    to.push(b'}');
}

/// A table of one object. In a watch only the first table describes its columns.
pub(crate) fn single(
    kind: &Kind,
    include: IncludeObject,
    meta: Meta,
    object: &Object,
    describe: bool,
    now: Time,
    to: &mut Vec<u8>,
) {
    let metadata = json!({"resourceVersion": object.revision.to_string()});
    head(kind, meta, &metadata, describe, to);
    row(kind, include, meta, object, now, to);
    to.extend_from_slice(b"]}");
}

/// Everything of a table before its rows.
pub(crate) fn head(kind: &Kind, meta: Meta, metadata: &Value, describe: bool, to: &mut Vec<u8>) {
    let columns = if describe { columns(kind) } else { Value::Null };
    let version = meta.api_version();
    let head = format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"{version}\",\"metadata\":{metadata},\"columnDefinitions\":{columns},\"rows\":["
    );
    to.extend_from_slice(head.as_bytes());
}
