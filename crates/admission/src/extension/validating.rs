//! ValidatingAdmissionPolicy. <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/>

use cel::Value as Cel;
use kinds::expressions::Wanted;
use object::{Cause, Reason, Snapshot, Status};
use schema::path;
use serde_json::{Value, json};

use super::Asked;
use super::expression::{
    CONDITIONS_BUDGET, Compiler, Expression, Inputs, Named, OUT_OF_BUDGET, POLICY_BUDGET, Run,
};
use super::policy::{Bound, Head};
use crate::{PolicyCheck, Verdict};

/// Bytes of a message that an expression gives.
const MESSAGE_MAX: usize = 5 << 10;
/// Bytes of an entry of the audit log.
const ANNOTATION_MAX: usize = 10 << 10;

#[derive(Debug)]
pub struct Policy {
    head: Head,
    conditions: Vec<Named>,
    variables: Vec<Named>,
    validations: Vec<Validation>,
    annotations: Vec<Named>,
}

#[derive(Debug)]
struct Validation {
    holds: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: Reason,
}

/// A validation that does not hold, or cannot be worked out.
struct Failure {
    message: String,
    reason: Reason,
    /// Its place among the policy's validations.
    index: usize,
}

impl Failure {
    fn broken(message: String, index: usize) -> Self {
        Self { message, reason: Reason::Invalid, index }
    }
}

/// What a policy and binding refuse a request for.
pub struct Denial {
    message: String,
    reason: Reason,
}

impl Policy {
    pub fn read(policy: &Value) -> Self {
        let (head, spec) = (Head::read(policy), &policy["spec"]);
        let mut compiler = Compiler::new(head.param_kind.is_some());
        let conditions = compiler.conditions(spec);
        let variables = compiler.variables(spec);
        let validations = path::list(spec, "validations").iter();
        let validations = validations
            .map(|one| Validation {
                holds: compiler.one(path::text(one, "expression"), Wanted::Bool),
                message: path::text(one, "message").to_owned(),
                message_expression: compiler.optional(one, "messageExpression", Wanted::Text),
                reason: reason(path::text(one, "reason")),
            })
            .collect();
        let annotations = path::list(spec, "auditAnnotations").iter();
        let annotations = annotations
            .map(|one| Named {
                name: path::text(one, "key").to_owned(),
                expression: compiler.one(path::text(one, "valueExpression"), Wanted::TextOrNull),
            })
            .collect();
        Self { head, conditions, variables, validations, annotations }
    }
}

fn reason(text: &str) -> Reason {
    match text {
        "Unauthorized" => Reason::Unauthorized,
        "Forbidden" => Reason::Forbidden,
        "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
        _ => Reason::Invalid,
    }
}

/// Judges a request by one policy and binding; with what it found, for metrics.
pub fn run(
    bound: &Bound<Policy>,
    snapshot: &Snapshot,
    asked: &Asked,
    object: Option<&Value>,
    verdict: &mut Verdict,
    denials: &mut Vec<Denial>,
) -> Vec<PolicyCheck> {
    let policy = &*bound.policy;
    let mut checks = Vec::new();
    let Some(served) = bound.version(&policy.head, snapshot, asked, object) else { return checks };
    let params = match bound.params(&policy.head, snapshot, asked) {
        Ok(params) => params,
        Err(_) if !policy.head.fails => return checks,
        Err(wrong) => {
            let (binding, why) = wrong.told(&bound.binding);
            denials.push(Denial::new(bound, binding.as_deref(), &why, Reason::Invalid));
            return checks;
        }
    };
    for param in &params {
        let inputs = Inputs::new(snapshot, asked, object, param.as_ref(), served);
        let conditions = Run::new(&inputs, &[], asked, CONDITIONS_BUDGET).conditions(&policy.conditions);
        match conditions {
            Ok(false) => continue,
            Err(_) if !policy.head.fails => continue,
            Err(why) => checks.extend(follow(bound, Failure::broken(why, 0), verdict, denials)),
            Ok(true) => {
                let run = Run::new(&inputs, &policy.variables, asked, POLICY_BUDGET);
                let (failures, passed_by) = failures(policy, &run);
                for failure in failures {
                    checks.extend(follow(bound, failure, verdict, denials));
                }
                checks.extend(passed_by.iter().map(|why| bound.checked("allow", why)));
                let run = Run::new(&inputs, &policy.variables, asked, POLICY_BUDGET);
                annotate(bound, &run, verdict, denials);
            }
        }
    }
    checks
}

/// What is refused is refused for the first reason, in the order of the names of policies and bindings.
pub fn refuse(asked: &Asked, object: Option<&Value>, denials: Vec<Denial>) -> Result<(), Status> {
    let Some(Denial { message, reason }) = denials.into_iter().next() else { return Ok(()) };
    let mut status = asked.request.forbidden(object, &message);
    status.code = Status::new(reason, "").code;
    status.reason = reason;
    status.causes.push(Cause { reason: "", message, field: String::new() });
    Err(status)
}

/// What does not hold, and why others could not be worked out that may be passed by.
fn failures<'a>(policy: &'a Policy, run: &Run<'a>) -> (Vec<Failure>, Vec<String>) {
    let (mut failures, mut passed_by) = (Vec::new(), Vec::new());
    for (index, validation) in policy.validations.iter().enumerate() {
        match run.eval(&validation.holds) {
            Ok(Cel::Bool(true)) => {}
            Ok(_) => {
                let message = message(validation, run);
                failures.push(Failure { message, reason: validation.reason, index });
            }
            Err(why) if !policy.head.fails => passed_by.push(why),
            // Then nothing has been decided.
            Err(why) if why == OUT_OF_BUDGET => return (vec![Failure::broken(why, 0)], passed_by),
            Err(why) => failures.push(Failure::broken(why, index)),
        }
    }
    (failures, passed_by)
}

impl Bound<Policy> {
    fn checked(&self, action: &'static str, why: &str) -> PolicyCheck {
        let error = if why == OUT_OF_BUDGET { "out_of_budget" } else { "invalid_error" };
        PolicyCheck { policy: self.policy.head.name.clone(), binding: self.binding.clone(), action, error }
    }
}

/// What a validation says when it does not hold: its expression's text if that gives one line, else its fixed text.
fn message<'a>(validation: &'a Validation, run: &Run<'a>) -> String {
    if let Some(expression) = &validation.message_expression
        && let Ok(Cel::String(text)) = run.eval(expression)
    {
        let text = text.trim();
        if !text.is_empty() && text.len() <= MESSAGE_MAX && !text.contains('\n') {
            return text.to_owned();
        }
    }
    match validation.message.trim() {
        "" => format!("failed expression: {}", validation.holds.text.trim()),
        text => text.to_owned(),
    }
}

/// Entries of one key are told together, each once.
fn annotate<'a>(bound: &'a Bound<Policy>, run: &Run<'a>, verdict: &mut Verdict, denials: &mut Vec<Denial>) {
    let policy = &bound.policy;
    for annotation in &policy.annotations {
        let text = match run.eval(&annotation.expression) {
            Ok(Cel::String(text)) => text,
            Ok(_) => continue,
            Err(_) if !policy.head.fails => continue,
            Err(why) => {
                denials.push(Denial::new(bound, Some(&bound.binding), &why, Reason::Invalid));
                continue;
            }
        };
        let text = text.trim();
        let text = &text[..text.floor_char_boundary(ANNOTATION_MAX)];
        if text.is_empty() {
            continue;
        }
        let key = format!("{}/{}", policy.head.name, annotation.name);
        match verdict.audit.iter_mut().find(|(held, _)| *held == key) {
            None => verdict.audit.push((key, text.to_owned())),
            Some((_, held)) if held.split(", ").any(|one| one == text) => {}
            Some((_, held)) => *held = format!("{held}, {text}"),
        }
    }
}

/// Does what the binding says should follow, and tells what did.
fn follow(
    bound: &Bound<Policy>,
    failure: Failure,
    verdict: &mut Verdict,
    denials: &mut Vec<Denial>,
) -> Vec<PolicyCheck> {
    let policy = &bound.policy.head.name;
    let Failure { message, reason, index } = failure;
    let mut checks = Vec::new();
    for action in &bound.actions {
        let word = match action.as_str() {
            "Deny" => "deny",
            "Warn" => "warn",
            _ => "audit",
        };
        checks.push(bound.checked(word, &message));
        match action.as_str() {
            "Deny" => denials.push(Denial::new(bound, Some(&bound.binding), &message, reason)),
            "Warn" => verdict.warnings.push(format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{}': {message}",
                bound.binding
            )),
            _ => verdict.audit.push((
                "validation.policy.admission.k8s.io/validation_failure".into(),
                json!([{
                    "message": message, "policy": policy, "binding": bound.binding,
                    "expressionIndex": index, "validationActions": bound.actions,
                }])
                .to_string(),
            )),
        }
    }
    checks
}

impl Denial {
    fn new(bound: &Bound<Policy>, binding: Option<&str>, why: &str, reason: Reason) -> Self {
        let with = binding.map(|binding| format!(" with binding '{binding}'")).unwrap_or_default();
        let message =
            format!("ValidatingAdmissionPolicy '{}'{with} denied request: {why}", bound.policy.head.name);
        Self { message, reason }
    }
}
