use schema::{At, Violation, metadata, names, path};
use serde_json::Value;

use super::check::Found;

/// `metav1.LabelSelector`
pub fn validate(selector: &Value, at: At<'_>, found: &mut Found) {
    metadata::labels(selector.get("matchLabels"), at.field("matchLabels"), found);
    for (index, requirement) in path::list(selector, "matchExpressions").iter().enumerate() {
        expression(requirement, at.field("matchExpressions").index(index), found);
    }
}

pub(super) fn expression(requirement: &Value, at: At<'_>, found: &mut Found) {
    let values = path::list(requirement, "values");
    match path::text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            found.push(Violation::required(at.field("values"), detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            found.push(Violation::forbidden(at.field("values"), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => found.push(Violation::invalid(at.field("operator"), other, "not a valid selector operator")),
    }
    let key = path::text(requirement, "key");
    found.extend(Violation::all_invalid(at.field("key"), key, names::qualified_name(key)));
    for (index, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        let at = at.field("values");
        found.extend(Violation::all_invalid(at.index(index), value, names::label_value(value)));
    }
}

/// Whether it selects everything.
pub fn is_empty(selector: &Value) -> bool {
    path::list(selector, "matchExpressions").is_empty()
        && path::members(selector, "matchLabels").next().is_none()
}

/// The requirements as text, as columns show them: `a=b,c in (d,e),!f`. None: an operator is unknown.
pub fn to_text(selector: &Value) -> Option<String> {
    let mut parts: Vec<(&str, String)> = path::members(selector, "matchLabels")
        .map(|(key, value)| (key.as_str(), format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    for requirement in path::list(selector, "matchExpressions") {
        let key = path::text(requirement, "key");
        let mut values: Vec<&str> =
            path::list(requirement, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match path::text(requirement, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        };
        parts.push((key, text));
    }
    parts.sort_by(|left, right| left.0.cmp(right.0));
    Some(parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(","))
}

/// Whether the labels at hand are selected.
pub fn matches(selector: &Value, labels: &Value) -> bool {
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let equal = path::members(selector, "matchLabels").all(|(key, value)| label(key) == value.as_str());
    equal
        && path::list(selector, "matchExpressions").iter().all(|requirement| {
            let held = label(path::text(requirement, "key"));
            let listed = path::list(requirement, "values").iter().any(|value| value.as_str() == held);
            match path::text(requirement, "operator") {
                "In" => held.is_some() && listed,
                "NotIn" => held.is_none() || !listed,
                "Exists" => held.is_some(),
                "DoesNotExist" => held.is_none(),
                _ => false,
            }
        })
}
