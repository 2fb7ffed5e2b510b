//! Admission policies and what binds them.

use schema::{At, Violation, names, path};
use serde_json::Value;

use super::check::{self, Found, Seen};
use super::{label_selector, webhook};

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const RESERVED: [&str; 18] = [
    "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let",
    "loop", "null", "package", "return", "true", "while",
];

/// What policies that validate and policies that mutate both have.
pub fn shared(spec: &Value, at: At<'_>, found: &mut Found) {
    if check::required(spec, "failurePolicy", at, found) {
        check::one_of(spec, "failurePolicy", &["Fail", "Ignore"], at, found);
    }
    if let Some(kind) = spec.get("paramKind") {
        param_kind(kind, at.field("paramKind"), found);
    }
    match spec.get("matchConstraints") {
        None => found.push(Violation::required(at.field("matchConstraints"), "")),
        Some(constraints) => {
            let at = at.field("matchConstraints");
            if path::list(constraints, "resourceRules").is_empty() {
                found.push(Violation::required(at.field("resourceRules"), ""));
            }
            match_resources(constraints, at, found);
        }
    }
    let params = spec.get("paramKind").is_some_and(|kind| !kind.is_null());
    let conditions = path::list(spec, "matchConditions");
    webhook::match_conditions(conditions, at.field("matchConditions"), params, found);
    for (index, variable) in path::list(spec, "variables").iter().enumerate() {
        let at = at.field("variables");
        variable_of(variable, at.index(index), found);
    }
}

fn param_kind(kind: &Value, at: At<'_>, found: &mut Found) {
    if check::required(kind, "apiVersion", at, found) {
        let text = path::text(kind, "apiVersion");
        let version = text.rsplit('/').next().unwrap_or_default();
        if text.matches('/').count() > 1 {
            let detail = format!("unexpected GroupVersion string: {text}");
            found.push(Violation::invalid(at.field("apiVersion"), text, detail));
        } else if version.is_empty() {
            found.push(Violation::invalid(at.field("apiVersion"), text, "version must be specified"));
        } else {
            found.extend(Violation::all_invalid(
                at.field("apiVersion"),
                text,
                names::dns_1035_label(version),
            ));
        }
    }
    if check::required(kind, "kind", at, found) {
        let text = path::text(kind, "kind");
        for wrong in names::dns_1035_label(&text.to_lowercase()) {
            let detail = format!("may have mixed case, but should otherwise match: {wrong}");
            found.push(Violation::invalid(at.field("kind"), text, detail));
        }
    }
}

fn match_resources(matched: &Value, at: At<'_>, found: &mut Found) {
    for field in ["namespaceSelector", "objectSelector"] {
        match matched.get(field) {
            None => found.push(Violation::required(at.field(field), "")),
            Some(selector) => label_selector::validate(selector, at.field(field), found),
        }
    }
    check::one_of(matched, "matchPolicy", &["Equivalent", "Exact"], at, found);
    for list in ["resourceRules", "excludeResourceRules"] {
        for (index, rule) in path::list(matched, list).iter().enumerate() {
            let at = at.field(list);
            let at = at.index(index);
            webhook::validate_rule(rule, &OPERATIONS, at, found);
            let names = path::list(rule, "resourceNames");
            let mut seen = Seen::default();
            for (index, name) in names.iter().enumerate() {
                let text = name.as_str().unwrap_or_default();
                let at = at.field("resourceNames");
                found.extend(Violation::all_invalid(
                    at.index(index),
                    text,
                    schema::names::path_segment(text),
                ));
                if seen.repeats(name.to_string()) {
                    found.push(Violation::duplicate(at.index(index), text));
                }
            }
        }
    }
}

fn variable_of(variable: &Value, at: At<'_>, found: &mut Found) {
    let name = path::text(variable, "name");
    let is_start = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let is_identifier = name.as_bytes().first().is_some_and(is_start)
        && name.bytes().all(|byte| is_start(&byte) || byte.is_ascii_digit())
        && !RESERVED.contains(&name);
    if name.is_empty() {
        found.push(Violation::required(at.field("name"), "name is not specified"));
    } else if !is_identifier {
        found.push(Violation::invalid(at.field("name"), name, "must be a valid CEL identifier"));
    }
    if path::text(variable, "expression").is_empty() {
        found.push(Violation::required(at.field("expression"), "expression is not specified"));
    }
}

/// A binding of a policy; one of a policy that validates also says what follows.
pub fn validate_binding(binding: &Value, has_actions: bool) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&binding["spec"], At::root("spec"));
    check::required_name(spec, "policyName", names::dns_subdomain, at, &mut found);
    if let Some(reference) = spec.get("paramRef") {
        param(reference, at.field("paramRef"), &mut found);
    }
    if let Some(matched) = spec.get("matchResources") {
        match_resources(matched, at.field("matchResources"), &mut found);
    }
    if has_actions {
        actions(path::list(spec, "validationActions"), at.field("validationActions"), &mut found);
    }
    found
}

fn param(reference: &Value, at: At<'_>, found: &mut Found) {
    const BOTH: &str = "name and selector are mutually exclusive";
    let (name, selector) = (path::text(reference, "name"), reference.get("selector"));
    if !name.is_empty() {
        found.extend(Violation::all_invalid(at.field("name"), name, names::path_segment(name)));
        if selector.is_some() {
            found.push(Violation::forbidden(at.field("name"), BOTH));
        }
    }
    if let Some(selector) = selector {
        label_selector::validate(selector, at.field("selector"), found);
        if !name.is_empty() {
            found.push(Violation::forbidden(at.field("selector"), BOTH));
        }
    }
    if name.is_empty() && selector.is_none() {
        found.push(Violation::required(at, "one of name or selector must be specified"));
    }
    if check::required(reference, "parameterNotFoundAction", at, found) {
        check::one_of(reference, "parameterNotFoundAction", &["Deny", "Allow"], at, found);
    }
}

fn actions(actions: &[Value], at: At<'_>, found: &mut Found) {
    if actions.is_empty() {
        found.push(Violation::required(at, "at least one validation action is required"));
    }
    let mut seen = Seen::default();
    for (index, action) in actions.iter().enumerate() {
        if !matches!(action.as_str(), Some("Audit" | "Deny" | "Warn")) {
            found.push(Violation::not_supported(at.index(index), action, &["Audit", "Deny", "Warn"]));
        }
        if seen.repeats(action.to_string()) {
            found.push(Violation::duplicate(at.index(index), action));
        }
    }
    let has = |wanted: &str| actions.iter().any(|one| one == wanted);
    if has("Deny") && has("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        found.push(Violation::invalid(at, actions, detail));
    }
}

/// The cell that shows a binding's parameters: `namespace/name`, or how they are selected.
pub fn param_ref(binding: &Value) -> Value {
    let Some(reference) = path::get(binding, "spec.paramRef") else {
        return "<unset>".into();
    };
    let (name, namespace) = (path::text(reference, "name"), path::text(reference, "namespace"));
    match (name, namespace) {
        ("", _) => reference.get("selector").and_then(label_selector::to_text).unwrap_or_default().into(),
        (name, "") => format!("*/{name}").into(),
        (name, namespace) => format!("{namespace}/{name}").into(),
    }
}
