//! Reviews of access: who asks what about whom.

use schema::{At, Violation, path};
use serde_json::Value;

const ATTRIBUTES: [&str; 2] = ["nonResourceAttributes", "resourceAttributes"];

/// A review of what the asker itself may do.
pub fn validate_self(review: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&review["spec"], At::root("spec"));
    let held = ATTRIBUTES.map(|field| spec.get(field).is_some());
    match held {
        [true, true] => {
            let detail = "cannot be specified in combination with resourceAttributes";
            found.push(Violation::invalid(at.field(ATTRIBUTES[0]), &spec[ATTRIBUTES[0]], detail));
        }
        [false, false] => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            found.push(Violation::invalid(at.field(ATTRIBUTES[1]), &spec[ATTRIBUTES[1]], detail));
        }
        _ => {}
    }
    found
}

/// A review of what somebody may do.
pub fn validate_subject(review: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = validate_self(review, old);
    let spec = &review["spec"];
    if path::text(spec, "user").is_empty() && path::list(spec, "groups").is_empty() {
        let detail = "at least one of user or group must be specified";
        found.push(Violation::invalid(At::root("spec.user"), path::text(spec, "user"), detail));
    }
    found
}

/// The same within one namespace.
pub fn validate_local(review: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = validate_subject(review, old);
    let (spec, at) = (&review["spec"], At::root("spec"));
    let named = path::text(spec, "resourceAttributes.namespace");
    if named != path::text(review, "metadata.namespace") {
        let at = at.field("resourceAttributes.namespace");
        found.push(Violation::invalid(at, named, "must match metadata.namespace"));
    }
    if let Some(attributes) = spec.get(ATTRIBUTES[0]) {
        let detail = "disallowed on this kind of request";
        found.push(Violation::invalid(at.field(ATTRIBUTES[0]), attributes, detail));
    }
    found
}
