//! Reviews of access: who asks what about whom.

use schema::{At, Violation, path};
use serde_json::{Value, json};

const ATTRIBUTES: [&str; 2] = ["nonResourceAttributes", "resourceAttributes"];

/// A review of what the asker itself may do.
pub fn validate_self(review: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&review["spec"], At::root("spec"));
    let held = ATTRIBUTES.map(|field| spec.get(field).is_some());
    match held {
        [true, true] => {
            let detail = "cannot be specified in combination with resourceAttributes";
            found.push(Violation::invalid(at.field(ATTRIBUTES[0]), as_go(&spec[ATTRIBUTES[0]]), detail));
        }
        [false, false] => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            found.push(Violation::invalid(at.field(ATTRIBUTES[1]), &spec[ATTRIBUTES[1]], detail));
        }
        _ => {}
    }
    let resource = At::root("spec.resourceAttributes");
    let asked = &spec["resourceAttributes"];
    selector(asked, "fieldSelector", resource, &mut found);
    selector(asked, "labelSelector", resource, &mut found);
    metadata(review, &[], &mut found);
    found
}

/// Nothing is stored of a review: it has no name, no labels, nothing that only stored objects have.
fn metadata(review: &Value, allowed: &[&str], found: &mut Vec<Violation>) {
    let members = review["metadata"].as_object().into_iter().flatten();
    let given = members.filter(|(name, value)| {
        let is_empty = value.is_null() || value.as_str() == Some("");
        !is_empty && *name != "managedFields" && !allowed.contains(&name.as_str())
    });
    if given.count() > 0 {
        let detail = if allowed.is_empty() { "must be empty" } else { "must be empty except for namespace" };
        found.push(Violation::invalid(At::root("metadata"), &review["metadata"], detail));
    }
}

/// `fieldSelector` or `labelSelector` of what is asked: a text or requirements. Operators that nobody here knows are let through: a newer
/// server may ask with them.
fn selector(asked: &Value, name: &str, at: At<'_>, found: &mut Vec<Violation>) {
    let Some(selector) = asked.get(name).filter(|selector| !selector.is_null()) else { return };
    let at = at.field(name);
    let (raw, requirements) = (path::text(selector, "rawSelector"), path::list(selector, "requirements"));
    match (raw.is_empty(), requirements.is_empty()) {
        (false, false) => {
            let detail = "may not specified at the same time as requirements";
            found.push(Violation::invalid(at.field("rawSelector"), raw, detail));
        }
        (true, true) => {
            let detail = format!("when {at} is specified, requirements or rawSelector is required");
            found.push(Violation::required(at.field("requirements"), detail));
        }
        _ => {}
    }
    let list = at.field("requirements");
    for (index, requirement) in requirements.iter().enumerate() {
        let at = list.index(index);
        if name == "labelSelector" {
            // As of any label selector, but for operators.
            let mut told = Vec::new();
            super::label_selector::expression(requirement, at, &mut told);
            found.extend(told.into_iter().filter(|one| one.detail != "not a valid selector operator"));
            continue;
        }
        let values = path::list(requirement, "values");
        if path::text(requirement, "key").is_empty() {
            found.push(Violation::required(at.field("key"), "must be specified"));
        }
        match path::text(requirement, "operator") {
            "" => found.push(Violation::required(at.field("operator"), "must be specified")),
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                found.push(Violation::required(at.field("values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                found.push(Violation::forbidden(at.field("values"), detail));
            }
            _ => {}
        }
    }
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
    // Its metadata may hold a namespace.
    let mut found = validate_subject(review, old);
    found.retain(|one| one.field != "metadata");
    metadata(review, &["namespace"], &mut found);
    let (spec, at) = (&review["spec"], At::root("spec"));
    let named = path::text(spec, "resourceAttributes.namespace");
    let is_about_one = spec.get(ATTRIBUTES[1]).is_some();
    if is_about_one && named != path::text(review, "metadata.namespace") {
        let at = at.field("resourceAttributes.namespace");
        found.push(Violation::invalid(at, named, "must match metadata.namespace"));
    }
    if let Some(attributes) = spec.get(ATTRIBUTES[0]) {
        let detail = "disallowed on this kind of request";
        found.push(Violation::invalid(at.field(ATTRIBUTES[0]), as_go(attributes), detail));
    }
    found
}

/// Upstream prints what it works with, whose members have the names of Go.
fn as_go(attributes: &Value) -> Value {
    json!({"Path": path::text(attributes, "path"), "Verb": path::text(attributes, "verb")})
}
