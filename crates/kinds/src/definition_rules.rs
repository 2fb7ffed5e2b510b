//! Rules in schemas (`x-kubernetes-validations`). Nothing compiles them yet, so a definition that has some is refused.

use std::sync::Arc;

use schema::custom::Rules;
use schema::{At, Violation};
use serde_json::Value;

/// The compiled rules of one schema, told as it is written. A definition with rules is not stored, see [`check`].
pub fn compile(_schema: &Value) -> Option<Arc<dyn Rules>> {
    None
}

/// What is wrong with the rules of one schema.
pub fn check(schema: &Value, at: At<'_>, found: &mut Vec<Violation>) {
    let has_rules = schema["x-kubernetes-validations"].as_array().is_some_and(|rules| !rules.is_empty());
    if has_rules {
        let why =
            "this server does not evaluate validation rules yet; take them out, or validate with a webhook";
        found.push(Violation::forbidden(at.field("x-kubernetes-validations"), why));
    }
}
