//! `meta.k8s.io` `Table`: what `kubectl get` prints. Columns and cells come from the kind's row.

use object::{Object, Time};
use schema::Kind;
use serde_json::{Value, json};

use crate::negotiate::{IncludeObject, Meta};
use crate::show;

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

/// One row: its cells, and as much of the object as was asked for.
pub(crate) fn row(
    kind: &Kind,
    include: IncludeObject,
    meta: Meta,
    object: &Object,
    now: Time,
    to: &mut Vec<u8>,
) {
    let value = show::value(kind, object);
    let cells: Value = kind.columns().iter().map(|column| column.cell(&value, now)).collect();
    to.extend_from_slice(b"{\"cells\":");
    to.extend_from_slice(cells.to_string().as_bytes());
    to.extend_from_slice(b",\"object\":");
    match include {
        IncludeObject::None => to.extend_from_slice(b"null"),
        IncludeObject::Metadata => show::metadata(meta, &object.body, to),
        IncludeObject::Object => show::whole(kind, object, to),
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
