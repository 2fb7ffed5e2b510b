//! The `scale` subresource: `autoscaling/v1` `Scale` over anything with `spec.replicas` and a selector.

use object::{LabelSelector, Status, Time};
use schema::{Kind, Violation, ViolationKind, path};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::decode::{Form, fields};
use crate::metadata;
use crate::request::Request;

/// Of its body, in the table of types.
pub(crate) const TYPE: &str = "autoscaling.v1.Scale";

/// Where the built-ins keep what a scale is made of; a definition says it of its own.
pub(crate) fn places(kind: &Kind) -> (&str, &str) {
    let own = kind.custom.as_ref().and_then(|custom| custom.scale.as_ref());
    own.map_or(("spec.replicas", "status.replicas"), |own| (&own.spec_replicas, &own.status_replicas))
}

/// The selector as text. A definition's is a text already.
fn selector_of(kind: &Kind, object: &Value) -> String {
    match &kind.custom {
        Some(custom) => {
            let at = custom.scale.as_ref().and_then(|own| own.selector.as_deref());
            at.map_or("", |at| path::text(object, at)).to_owned()
        }
        None => selector_text(&object["spec"]["selector"]),
    }
}

/// The `Scale` of an object, for who reads it.
///
/// # Errors
/// A custom resource that does not say how many there should be has none.
pub fn read_scale(kind: &Kind, object: &Value) -> Result<Value, Status> {
    let (wanted, _) = places(kind);
    if kind.custom.is_some() && path::int(object, wanted).is_none() {
        return Err(Status::internal(format!(
            "the spec replicas field {:?} does not exist",
            format!(".{wanted}")
        )));
    }
    Ok(scale_of(kind, object))
}

/// The `Scale` of an object.
pub(crate) fn scale_of(kind: &Kind, object: &Value) -> Value {
    let (wanted, running) = places(kind);
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let mut status = json!({"replicas": path::int(object, running).unwrap_or(0)});
    let selector = selector_of(kind, object);
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    // Go's `omitempty`: none wanted is not written.
    let spec = match path::int(object, wanted) {
        Some(replicas) if replicas != 0 => json!({"replicas": replicas}),
        _ => json!({}),
    };
    json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": metadata,
        "spec": spec,
        "status": status,
    })
}

/// A ReplicationController's selector is a plain map, all others' a LabelSelector.
fn selector_text(selector: &Value) -> String {
    let structured = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let mut parsed = if structured {
        LabelSelector::deserialize(selector).unwrap_or_default()
    } else {
        let labels = selector.as_object().into_iter().flatten();
        LabelSelector::of_labels(labels.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))))
    };
    parsed.0.sort_by(|a, b| a.key.cmp(&b.key));
    parsed.to_string()
}

pub(crate) fn decode(request: &Request<'_>, body: &mut Value) -> Result<Vec<String>, Status> {
    crate::decode::members("Scale", body)?;
    let kind = path::text(body, "kind");
    let version = path::text(body, "apiVersion");
    if !matches!((version, kind), ("autoscaling/v1", "Scale") | ("", "")) {
        return Err(Status::bad_request(crate::decode::unfit("Scale", "autoscaling", version, kind)));
    }
    body["apiVersion"] = "autoscaling/v1".into();
    body["kind"] = "Scale".into();
    let warnings = fields(&Form::Type(TYPE), body, request.options).map_err(|error| {
        Status::bad_request(format!("Scale in version \"v1\" cannot be handled as a Scale: {error}"))
    })?;
    let name = metadata::text(body, "name");
    if name != request.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            request.name
        )));
    }
    Ok(warnings)
}

pub(crate) fn blend(kind: &Kind, given: Value, old: &Value, _now: Time) -> Result<Value, Status> {
    let replicas = path::int(&given, "spec.replicas").unwrap_or(0);
    if replicas < 0 {
        let violation = Violation {
            kind: ViolationKind::Invalid,
            field: "spec.replicas".into(),
            value: replicas.to_string(),
            detail: "must be greater than or equal to 0".into(),
        };
        return Err(Violation::to_status(
            &[violation],
            "autoscaling",
            "Scale",
            metadata::text(&given, "name"),
        ));
    }
    let mut new = old.clone();
    path::set(&mut new, places(kind).0, replicas.into());
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_told_as_text() {
        for (selector, text) in [
            (json!({"b": "2", "a": "1"}), "a=1,b=2"),
            (
                json!({"matchLabels": {"b": "2"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}),
                "a,b=2",
            ),
            (json!(null), ""),
        ] {
            assert_eq!(selector_text(&selector), text);
        }
    }
}
