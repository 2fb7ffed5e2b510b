//! Pod templates: their validation, and the columns of those who have one.

use schema::{At, Column, Violation, metadata, path};
use serde_json::Value;

use super::check::Found;
use super::label_selector;
use super::pod_spec::{self, Context};
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
    let empty = Value::Null;
    let spec = template.get("spec").unwrap_or(&empty);
    let at = at.field("spec");
    pod_spec::validate(spec, &Context { pod_name: "", is_template: true }, at, found);
    if !path::list(spec, "ephemeralContainers").is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        found.push(Violation::forbidden(at.field("ephemeralContainers"), detail));
    }
}

/// What every controller of endless pods asks of its spec: a selector that selects, the template's own pods among them, and pods that go
/// on. `kind` and `owner` are the words of upstream's messages.
pub fn validate_controlled(spec: &Value, kind: &str, owner: &str, found: &mut Found) {
    let at = At::root("spec");
    let selector = &spec["selector"];
    let selector_at = at.field("selector");
    if selector.is_null() {
        found.push(Violation::required(selector_at, ""));
    } else {
        label_selector::validate(selector, selector_at, found);
        if label_selector::is_empty(selector) {
            let detail = format!("empty selector is invalid for {kind}");
            found.push(Violation::invalid(selector_at, selector, detail));
        }
    }
    let template = &spec["template"];
    let at = at.field("template");
    let labels = path::get(template, "metadata.labels").unwrap_or(&Value::Null);
    // None selects nothing; of one that selects everything is told that it is empty.
    let is_empty = !selector.is_null() && label_selector::is_empty(selector);
    if !is_empty && (selector.is_null() || !label_selector::matches(selector, labels)) {
        let detail = "`selector` does not match template `labels`";
        found.push(Violation::invalid(at.field("metadata.labels"), labels, detail));
    }
    validate(template, at, found);
    goes_on(template, owner, at, found);
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
