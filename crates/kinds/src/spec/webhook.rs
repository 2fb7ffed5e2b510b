//! Admission webhooks: whom to call, when.

use std::collections::HashSet;

use schema::{At, Violation, names, path};
use serde_json::Value;

use crate::expressions::{self, Given, Wanted};

use super::check::{self, Found, Seen};
use super::label_selector;

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const CONDITIONS_MAX: usize = 64;
const TIMEOUT_MAX_SECONDS: i64 = 30;

/// The webhooks of a configuration.
pub fn validate_all(webhooks: &[Value]) -> Vec<Violation> {
    let mut found = Vec::new();
    let list = At::root("webhooks");
    let mut seen = Seen::default();
    for (index, webhook) in webhooks.iter().enumerate() {
        let at = list.index(index);
        let name = path::text(webhook, "name");
        if name.is_empty() {
            found.push(Violation::required(at.field("name"), ""));
        } else {
            found.extend(Violation::all_invalid(at.field("name"), name, names::dns_subdomain(name)));
            if name.split('.').count() < 3 {
                let detail = "should be a domain with at least three segments separated by dots";
                found.push(Violation::invalid(at.field("name"), name, detail));
            }
        }
        one(webhook, at, &mut found);
        if seen.repeats(name) {
            found.push(Violation::duplicate(at.field("name"), name));
        }
    }
    found
}

fn one(webhook: &Value, at: At<'_>, found: &mut Found) {
    for (index, rule) in path::list(webhook, "rules").iter().enumerate() {
        let at = at.field("rules");
        validate_rule(rule, &OPERATIONS, at.index(index), found);
    }
    check::one_of(webhook, "failurePolicy", &["Fail", "Ignore"], at, found);
    check::one_of(webhook, "matchPolicy", &["Equivalent", "Exact"], at, found);
    if path::text(webhook, "sideEffects").is_empty() {
        found.push(Violation::required(at.field("sideEffects"), "must specify one of None, NoneOnDryRun"));
    } else {
        check::one_of(webhook, "sideEffects", &["None", "NoneOnDryRun"], at, found);
    }
    if let Some(seconds) =
        path::int(webhook, "timeoutSeconds").filter(|one| !(1..=TIMEOUT_MAX_SECONDS).contains(one))
    {
        let detail = "the timeout value must be between 1 and 30 seconds";
        found.push(Violation::invalid(at.field("timeoutSeconds"), seconds, detail));
    }
    for field in ["namespaceSelector", "objectSelector"] {
        if let Some(selector) = webhook.get(field) {
            label_selector::validate(selector, at.field(field), found);
        }
    }
    check::one_of(webhook, "reinvocationPolicy", &["IfNeeded", "Never"], at, found);
    client_config(&webhook["clientConfig"], at.field("clientConfig"), found);
    match_conditions(path::list(webhook, "matchConditions"), at.field("matchConditions"), false, found);
    review_versions(
        path::list(webhook, "admissionReviewVersions"),
        at.field("admissionReviewVersions"),
        found,
    );
}

/// The versions of the review that a webhook understands.
pub fn review_versions(versions: &[Value], at: At<'_>, found: &mut Found) {
    if versions.is_empty() {
        found.push(Violation::required(at, "must specify one of v1, v1beta1"));
        return;
    }
    let mut seen = Seen::default();
    for (index, version) in versions.iter().enumerate() {
        let text = version.as_str().unwrap_or_default();
        if seen.repeats(version.to_string()) {
            found.push(Violation::invalid(at.index(index), text, "duplicate version"));
        }
        found.extend(Violation::all_invalid(at.index(index), text, names::dns_1035_label(text)));
    }
    if !versions.iter().any(|one| REVIEW_VERSIONS.contains(&one.as_str().unwrap_or_default())) {
        found.push(Violation::invalid(at, versions, "must include at least one of v1, v1beta1"));
    }
}

/// Where a webhook is: a URL or a service.
pub fn client_config(config: &Value, at: At<'_>, found: &mut Found) {
    match (config.get("url").and_then(Value::as_str), config.get("service")) {
        (Some(url), None) => web_address(url, at.field("url"), found),
        (None, Some(service)) => service_reference(service, at.field("service"), found),
        _ => found.push(Violation::required(at, "exactly one of url or service is required")),
    }
}

fn web_address(url: &str, at: At<'_>, found: &mut Found) {
    const FORM: &str = "; desired format: https://host[/path]";
    let Some(rest) = url.strip_prefix("https://") else {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        let detail = format!("'https' is the only allowed URL scheme{FORM}");
        found.push(Violation::invalid(at, scheme, detail));
        return;
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    // Each is told with the part that is wrong.
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (tail, fragment) = tail.split_once('#').unwrap_or((tail, ""));
    let query = tail.split_once('?').map_or("", |(_, query)| query);
    if host.is_empty() {
        found.push(Violation::invalid(at, "", format!("host must be specified{FORM}")));
    }
    for (part, why) in [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ] {
        if !part.is_empty() {
            found.push(Violation::invalid(at, part, why));
        }
    }
}

fn service_reference(service: &Value, at: At<'_>, found: &mut Found) {
    for field in ["name", "namespace"] {
        check::required(service, field, at, found);
    }
    if let Some(port) = path::int(service, "port") {
        for wrong in names::port_number(port) {
            found.push(Violation::invalid(at.field("port"), port, format!("port is not valid: {wrong}")));
        }
    }
    let text = path::text(service, "path");
    if matches!(text, "" | "/") {
        return;
    }
    let at = at.field("path");
    if !text.starts_with('/') {
        found.push(Violation::invalid(at, text, "must start with a '/'"));
    }
    // As upstream, which takes the first character for a slash even if it is none.
    let mut rest = text.chars();
    rest.next();
    let rest = rest.as_str();
    for (index, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            found.push(Violation::invalid(at, text, format!("segment[{index}] may not be empty")));
        }
        for wrong in if segment.is_empty() { Vec::new() } else { names::dns_subdomain(segment) } {
            found.push(Violation::invalid(at, text, format!("segment[{index}]: {wrong}")));
        }
    }
}

/// Conditions in CEL: named, each once, and such that they give a bool.
pub fn match_conditions(conditions: &[Value], list: At<'_>, params: bool, found: &mut Found) {
    if conditions.len() > CONDITIONS_MAX {
        found.push(Violation::too_many(list, conditions.len(), CONDITIONS_MAX));
    }
    if conditions.is_empty() {
        return;
    }
    let env = expressions::env(&Given { params, authorizer: true });
    let mut seen = Seen::default();
    for (index, condition) in conditions.iter().enumerate() {
        let at = list.index(index);
        if check::required(condition, "expression", at, found) {
            expressions::check(&env, condition, "expression", Wanted::Bool, at, found);
        }
        check::required_name(condition, "name", names::qualified_name, at, found);
        if seen.repeats(condition["name"].to_string()) {
            found.push(Violation::duplicate(at.field("name"), &condition["name"]));
        }
    }
}

/// What is matched: operations on resources.
pub fn validate_rule(rule: &Value, operations: &[&str], at: At<'_>, found: &mut Found) {
    let own = path::list(rule, "operations");
    let list = at.field("operations");
    if own.is_empty() {
        found.push(Violation::required(list, ""));
    }
    alone(own, "operations", list, found);
    for (index, operation) in own.iter().enumerate() {
        if !operations.contains(&operation.as_str().unwrap_or_default()) {
            found.push(Violation::not_supported(list.index(index), operation, operations));
        }
    }
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let values = path::list(rule, field);
        if values.is_empty() {
            found.push(Violation::required(at.field(field), ""));
        }
        alone(values, what, at.field(field), found);
        let list = at.field(field);
        for (index, value) in values.iter().enumerate() {
            // The group without a name is the core's.
            if field == "apiVersions" && value == "" {
                found.push(Violation::required(list.index(index), ""));
            }
        }
    }
    resources(path::list(rule, "resources"), at.field("resources"), found);
    check::one_of(rule, "scope", &["*", "Cluster", "Namespaced"], at, found);
}

fn alone(values: &[Value], what: &str, at: At<'_>, found: &mut Found) {
    if values.len() > 1 && values.iter().any(|one| one == "*") {
        let detail = format!("if '*' is present, must not specify other {what}");
        found.push(Violation::invalid(at, values, detail));
    }
}

fn resources(resources: &[Value], list: At<'_>, found: &mut Found) {
    if resources.is_empty() {
        found.push(Violation::required(list, ""));
    }
    let texts: Vec<&str> = resources.iter().filter_map(Value::as_str).collect();
    // What stands before an entry makes it needless; of those without a subresource the last one counts, as upstream has it.
    let mut held: HashSet<&str> = HashSet::new();
    let mut has_plain = false;
    for (index, text) in texts.iter().enumerate() {
        let at = list.index(index);
        if text.is_empty() {
            found.push(Violation::required(at, ""));
            continue;
        }
        let Some((resource, sub)) = text.split_once('/') else {
            has_plain = *text != "*";
            held.insert(text);
            continue;
        };
        for wider in [format!("{resource}/*"), format!("*/{sub}")] {
            if held.contains(wider.as_str()) {
                let detail = format!("if '{wider}' is present, must not specify {text}");
                found.push(Violation::invalid(at, text, detail));
            }
        }
        held.insert(text);
    }
    if texts.len() > 1 && held.contains("*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        found.push(Violation::invalid(list, &texts, detail));
    }
    if held.contains("*") && has_plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        found.push(Violation::invalid(list, &texts, detail));
    }
}
