//! PATCH: a document applied to the object, or to the view of it that a subresource gives.

use object::Status;
use schema::{Violation, ViolationKind};
use serde_json::Value;

use crate::decode::{self, Form};
use crate::metadata;
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
    let gives_up = metadata::gives_up_tracking(&target);
    let form = row.type_name.map_or(Form::Kind(request.kind), Form::Type);
    let decoded = match another_kind(request, row, how, &mut target) {
        Some(why) => Err(why),
        None => decode::fields(&form, &mut target, request.options).map_err(|error| error.to_string()),
    };
    let warnings = decoded.map_err(|why| {
        // Decoding has taken the text apart; patching again for the message is cheaper than keeping it for every patch.
        let text = patched(request, row, type_name, how, document, old).unwrap_or_default().to_string();
        undecodable(&text, why)
    })?;
    if row.view.is_none() {
        decode::finish(request, &mut target)?;
        metadata::give_up_tracking(&mut target, gives_up);
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

/// Why a patch that makes an object one of another kind cannot be decoded: upstream decodes it as that kind. A strategic patch is of the
/// type that it begins with, whatever it says.
fn another_kind(request: &Request<'_>, row: &Row, how: PatchKind, target: &mut Value) -> Option<String> {
    if request.kind.custom.is_some() {
        return None;
    }
    let (version, name) = match row.type_name {
        Some(_) => ("autoscaling/v1".to_owned(), "Scale"),
        None => (request.kind.api_version(), request.kind.kind),
    };
    let Value::Object(members) = &mut *target else {
        let noun = schema::go::noun(target);
        return Some(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {noun} into Go value of type struct"
        ));
    };
    if how == PatchKind::Strategic {
        members.insert("apiVersion".into(), version.into());
        members.insert("kind".into(), name.into());
        return None;
    }
    let said = |member: &str| members.get(member).and_then(Value::as_str).filter(|said| !said.is_empty());
    let (said_version, said_name) = (said("apiVersion").unwrap_or(&version), said("kind").unwrap_or(name));
    if said_version == version && said_name == name {
        return None;
    }
    let other = kinds::all().iter().find(|row| row.api_version() == said_version && row.kind == said_name);
    let Some(other) = other else { return Some(decode::not_registered(said_version, said_name)) };
    let told = format!("unable to decode {said_version}, Kind={said_name} into a {name}");
    Some(match kinds::conform(other, target.clone(), request.options.field_validation) {
        Err(error) => error.to_string(),
        Ok(_) => told,
    })
}

/// A patched object that is none of its kind any more.
fn undecodable(text: &str, why: String) -> Status {
    let violation = Violation {
        kind: ViolationKind::Invalid,
        field: "patch".into(),
        value: Value::from(text).to_string(),
        detail: why,
    };
    Violation::to_status(&[violation], "", "", "")
}
