use object::Resource;
use schema::{At, Kind, Strategy, Violation, names, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column};
use crate::expressions::{self, Wanted};
use crate::spec::admission_policy;
use crate::spec::check::{self, Found, Seen};
use crate::{row, strategy, subresource};

pub const VALIDATING_ADMISSION_POLICIES: Resource =
    Resource::new("validatingadmissionpolicies.admissionregistration.k8s.io");

pub static KIND: Kind = Kind {
    resource: VALIDATING_ADMISSION_POLICIES,
    group: "admissionregistration.k8s.io",
    version: "v1",
    kind: "ValidatingAdmissionPolicy",
    singular: "validatingadmissionpolicy",
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[subresource::STATUS],
    type_name: "admissionregistration.v1.ValidatingAdmissionPolicy",
    columns: &[
        NAME,
        column("Validations", "integer", "How many rules it has.", |object, _| {
            path::list(object, "spec.validations").len().into()
        }),
        column("ParamKind", "string", "What its parameters are.", |object, _| {
            match path::get(object, "spec.paramKind") {
                None => "<unset>".into(),
                Some(kind) => {
                    format!("{}/{}", path::text(kind, "apiVersion"), path::text(kind, "kind")).into()
                }
            }
        }),
        AGE,
    ],
    strategy: Strategy {
        unconditional_update: false,
        status_keeps_metadata: true,
        ..strategy::SPEC_AND_STATUS
    },
    validate,
    ..row::BASE
};

const ANNOTATIONS_MAX: usize = 20;
const EXPRESSION_MAX_BYTES: usize = 5120;

const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];

fn validate(policy: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&policy["spec"], At::root("spec"));
    admission_policy::shared(spec, at, &mut found);
    let (validations, annotations) = (path::list(spec, "validations"), path::list(spec, "auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        found.push(Violation::required(at.field("validations"), detail));
        found.push(Violation::required(at.field("auditAnnotations"), detail));
    }
    let env = expressions::check_variables(spec, at, &mut found);
    for (index, validation) in validations.iter().enumerate() {
        let at = at.field("validations");
        let at = at.index(index);
        if path::text(validation, "expression").trim().is_empty() {
            found.push(Violation::required(at.field("expression"), "expression is not specified"));
        }
        expressions::check(&env, validation, "expression", Wanted::Bool, at, &mut found);
        expressions::check(&env, validation, "messageExpression", Wanted::Text, at, &mut found);
        message(validation, at, &mut found);
        check::one_of(validation, "reason", &REASONS, at, &mut found);
    }
    let list = at.field("auditAnnotations");
    audit(path::text(policy, "metadata.name"), annotations, list, &mut found);
    for (index, annotation) in annotations.iter().enumerate() {
        expressions::check(
            &env,
            annotation,
            "valueExpression",
            Wanted::TextOrNull,
            list.index(index),
            &mut found,
        );
    }
    found
}

fn message(validation: &Value, at: At<'_>, found: &mut Found) {
    if let Some(message) = validation.get("message").and_then(Value::as_str) {
        let at = at.field("message");
        if message.trim().is_empty() {
            found.push(Violation::invalid(at, message, "must be non-empty if specified"));
        } else if message.contains(['\n', '\r']) {
            found.push(Violation::invalid(at, message, "must not contain line breaks"));
        }
    }
}

fn audit(policy: &str, annotations: &[Value], list: At<'_>, found: &mut Found) {
    if annotations.len() > ANNOTATIONS_MAX {
        let detail = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        found.push(Violation::invalid(list, annotations, detail));
    }
    let mut seen = Seen::default();
    for (index, annotation) in annotations.iter().enumerate() {
        let at = list.index(index);
        let key = path::text(annotation, "key");
        // So it will be called in the audit log.
        let name = format!("{policy}/{key}");
        found.extend(Violation::all_invalid(at.field("key"), &name, names::qualified_name(&name)));
        if seen.repeats(key) {
            found.push(Violation::duplicate(at.field("key"), key));
        }
        let expression = path::text(annotation, "valueExpression");
        let at = at.field("valueExpression");
        if expression.trim().is_empty() {
            found.push(Violation::required(at, "valueExpression is not specified"));
        } else if expression.len() > EXPRESSION_MAX_BYTES {
            let detail = format!("must not exceed {EXPRESSION_MAX_BYTES} bytes in length");
            found.push(Violation::required(at, detail));
        }
    }
}
