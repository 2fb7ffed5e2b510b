//! PATCH: a document applied to the object, or to the view of it that a subresource gives.

use object::{Reason, Status};
use schema::{DecodeError, Violation, ViolationKind};
use serde_json::Value;

use crate::decode;
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
    let mut target = match row.view {
        Some(view) => view(request.kind, old),
        None => decode::from_stored(request.kind, old.clone()),
    };
    let type_name = row.type_name.unwrap_or(request.kind.type_name);
    match how {
        PatchKind::Merge => schema::merge_patch(&mut target, document),
        PatchKind::Json => schema::json_patch(&mut target, document).map_err(|_| rejected())?,
        PatchKind::Strategic | PatchKind::Apply => {
            kinds::types().strategic_merge(type_name, &mut target, document).map_err(|_| rejected())?;
        }
    }
    let text = target.to_string();
    let warnings = decode::fields(type_name, &mut target, request.options)
        .map_err(|error| undecodable(&text, &error))?;
    if row.view.is_none() {
        decode::finish(request, &mut target)?;
    } else {
        (row.decode)(request, &mut target)?;
    }
    Ok((target, warnings))
}

/// A patch that does not fit the object; upstream loses the library's text on the way.
fn rejected() -> Status {
    Status::new(Reason::Invalid, "the server rejected our request due to an error in our request")
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
