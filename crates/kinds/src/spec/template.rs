//! Pod templates: their validation, and the columns of those who have one.

use schema::{At, Column, Violation, metadata, path};
use serde_json::Value;

use super::check::Found;
use super::pod_spec::{self, Context};
use super::{annotations, label_selector};
use crate::column::{self, wide};

/// The columns of a kind with `spec.template`.
pub const CONTAINERS: Column =
    wide("Containers", "string", "The names of the containers in its template.", |object, _| {
        container_names(path::get(object, "spec.template"))
    });
pub const IMAGES: Column =
    wide("Images", "string", "The images of the containers in its template.", |object, _| {
        images(path::get(object, "spec.template"))
    });
/// The column of a kind with `spec.selector`.
pub const SELECTOR: Column = wide("Selector", "string", "Which pods it counts as its own.", |object, _| {
    selector_text(path::get(object, "spec.selector"))
});

/// Fills the template at a path (`spec.template`).
pub fn default(object: &mut Value, at: &str) {
    if let Some(spec) = path::get_mut(object, at).and_then(|template| template.get_mut("spec")) {
        pod_spec::default(spec);
    }
}

pub fn validate(template: &Value, at: At<'_>, found: &mut Found) {
    metadata::labels(path::get(template, "metadata.labels"), at.field("labels"), found);
    metadata::annotations(path::get(template, "metadata.annotations"), at.field("annotations"), found);
    annotations::validate(template, at.field("annotations"), found);
    let empty = Value::Null;
    let spec = template.get("spec").unwrap_or(&empty);
    let at = at.field("spec");
    pod_spec::validate(spec, &Context { pod_name: "", is_template: true }, at, found);
    annotations::match_fields(template, at, found);
    if !path::list(spec, "ephemeralContainers").is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        found.push(Violation::forbidden(at.field("ephemeralContainers"), detail));
    }
}

/// A selector that selects something: whether it can be asked which pods are its own. `kind` and `unreadable` are words of upstream's
/// messages.
pub fn validate_selector(
    selector: &Value,
    kind: &str,
    unreadable: &str,
    at: At<'_>,
    found: &mut Found,
) -> bool {
    if selector.is_null() {
        found.push(Violation::required(at, ""));
        return true;
    }
    let before = found.len();
    label_selector::validate(selector, at, found);
    let is_readable = found.len() == before;
    if label_selector::is_empty(selector) {
        found.push(Violation::invalid(at, selector, format!("empty selector is invalid for {kind}")));
    }
    if !is_readable {
        found.push(Violation::invalid(at, selector, unreadable));
    }
    is_readable
}

/// The template's own pods must be among those selected.
pub fn validate_selected(selector: &Value, template: &Value, at: At<'_>, found: &mut Found) {
    let labels = path::get(template, "metadata.labels").unwrap_or(&Value::Null);
    // None selects nothing; of one that selects everything is told that it is empty.
    let is_empty = !selector.is_null() && label_selector::is_empty(selector);
    if !is_empty && (selector.is_null() || !label_selector::matches(selector, labels)) {
        let detail = "`selector` does not match template `labels`";
        found.push(Violation::invalid(at.field("metadata.labels"), labels, detail));
    }
}

/// What a Deployment and a ReplicaSet ask of their specs: a selector that selects, the template's own pods among them, and pods that go on.
pub fn validate_replicated(spec: &Value, found: &mut Found) {
    let at = At::root("spec");
    let selector = &spec["selector"];
    let unreadable = "invalid label selector";
    if !validate_selector(selector, "deployment", unreadable, at.field("selector"), found) {
        return;
    }
    let (template, at) = (&spec["template"], at.field("template"));
    validate_selected(selector, template, at, found);
    validate(template, at, found);
    goes_on(template, "ReplicaSet", at, found);
}

/// Pods that are replaced when they end may not end by themselves.
pub fn goes_on(template: &Value, owner: &str, at: At<'_>, found: &mut Found) {
    let policy = path::text(template, "spec.restartPolicy");
    if !matches!(policy, "" | "Always") {
        found.push(Violation::not_supported(at.field("spec.restartPolicy"), policy, &["Always"]));
    }
    if path::get(template, "spec.activeDeadlineSeconds").is_some() {
        let detail = format!("activeDeadlineSeconds in {owner} is not Supported");
        found.push(Violation::forbidden(at.field("spec.activeDeadlineSeconds"), detail));
    }
}

/// The names of the template's containers: `a,b`.
pub fn container_names(template: Option<&Value>) -> Value {
    let containers = template.map(|template| path::list(template, "spec.containers")).unwrap_or_default();
    column::join(containers, |container| path::text(container, "name")).into()
}

/// The images of the template's containers: `nginx:1,busybox`.
pub fn images(template: Option<&Value>) -> Value {
    let containers = template.map(|template| path::list(template, "spec.containers")).unwrap_or_default();
    column::join(containers, |container| path::text(container, "image")).into()
}

/// A selector as columns show it: `<none>` if it selects nothing in particular, `<error>` if it is wrong.
pub fn selector_text(selector: Option<&Value>) -> Value {
    match selector.map(label_selector::to_text) {
        None => "<none>".into(),
        Some(None) => "<error>".into(),
        Some(Some(text)) if text.is_empty() => "<none>".into(),
        Some(Some(text)) => text.into(),
    }
}
