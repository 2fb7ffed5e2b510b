//! Pod templates: their validation, and the columns of those who have one.

use schema::{At, Violation, metadata, path};
use serde_json::Value;

use super::check::Found;
use super::pod_spec::{self, Context};
use super::label_selector;
use crate::column;

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

/// Whether the labels of the spec's template are selected by its selector.
pub fn selects_itself(spec: &Value) -> bool {
    let labels = path::get(spec, "template.metadata.labels").unwrap_or(&Value::Null);
    label_selector::matches(&spec["selector"], labels)
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
