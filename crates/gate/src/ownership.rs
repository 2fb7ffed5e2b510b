//! Who owns which field: `metadata.managedFields` and server-side apply (KEP-555).

use object::{Reason, Status, Time};
use serde_json::Value;

use crate::request::Request;

/// A new object's fields belong to whoever created it.
pub(crate) fn created(_request: &Request<'_>, _object: &mut Value, _now: Time) {}

/// The fields that an update changed belong to whoever made it.
pub(crate) fn updated(_request: &Request<'_>, _new: &mut Value, _old: &Value, _now: Time) {}

/// The object that an apply leads to.
pub(crate) fn apply(
    _request: &Request<'_>,
    _applied: &Value,
    _old: &Value,
    _now: Time,
) -> Result<Value, Status> {
    Err(Status::new(Reason::UnsupportedMediaType, "apply"))
}

/// An apply of an absent object.
pub(crate) fn applied_new(_request: &Request<'_>, object: &Value, _now: Time) -> Result<Value, Status> {
    Ok(object.clone())
}
