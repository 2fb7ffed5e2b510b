//! PATCH: a document applied to the object, or to the view of it that a subresource gives.

use object::Status;
use schema::{DecodeError, Violation, ViolationKind};
use serde_json::Value;

use crate::decode::{self, Form};
use crate::request::{PatchKind, Request};
use crate::subresource::Row;

/// The patched object, decoded and defaulted, with warnings about its fields.
pub(crate) fn apply(
    request: &Request<'_>,
    row: &Row,
    how: PatchKind,
    document: &Value,
    old: &Value,
) -> Result<(Value, Vec<String>), Status> {
    let type_name = row.type_name.unwrap_or(request.kind.type_name);
    let mut target = patched(request, row, type_name, how, document, old)?;
    let form = row.type_name.map_or(Form::Kind(request.kind), Form::Type);
    let warnings = decode::fields(&form, &mut target, request.options).map_err(|error| {
        // Decoding has taken the text apart; patching again for the message is cheaper than keeping it for every patch.
        let text = patched(request, row, type_name, how, document, old).unwrap_or_default().to_string();
        undecodable(&text, &error)
    })?;
    if row.view.is_none() {
        decode::finish(request, &mut target)?;
    } else {
        (row.decode)(request, &mut target)?;
    }
    Ok((target, warnings))
}

fn patched(
    request: &Request<'_>,
    row: &Row,
    type_name: &str,
    how: PatchKind,
    document: &Value,
    old: &Value,
) -> Result<Value, Status> {
    let mut target = match row.view {
        Some(view) => view(request.kind, old),
        None => decode::from_stored(request.kind, old.clone()),
    };
    match how {
        PatchKind::Merge => schema::merge_patch(&mut target, document),
        PatchKind::Json => schema::json_patch(&mut target, document).map_err(|error| Status::from(&error))?,
        PatchKind::Strategic | PatchKind::Apply => {
            let merged = kinds::types().strategic_merge(type_name, &mut target, document);
            merged.map_err(|error| Status::from(&error))?;
        }
    }
    Ok(target)
}

/// A patched object that is none of its kind any more.
fn undecodable(text: &str, error: &DecodeError) -> Status {
    let violation = Violation {
        kind: ViolationKind::Invalid,
        field: "patch".into(),
        value: Value::from(text).to_string(),
        detail: error.to_string(),
    };
    Violation::to_status(&[violation], "", "", "")
}
