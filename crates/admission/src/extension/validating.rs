//! ValidatingAdmissionPolicy. <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/>

use cel::Value as Cel;
use kinds::expressions::Wanted;
use object::{Cause, Reason, Snapshot, Status};
use schema::path;
use serde_json::{Value, json};

use super::Asked;
use super::expression::{CONDITIONS_BUDGET, Compiler, Expression, Inputs, Named, POLICY_BUDGET, Run};
use super::policy::{Bound, Head};
use crate::Verdict;

/// Bytes of a message that an expression gives.
const MESSAGE_MAX: usize = 5 << 10;

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

/// A validation that does not hold.
struct Failure {
    message: String,
    reason: Reason,
    /// Its place among the policy's validations.
    index: usize,
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

/// Judges a request by one policy and binding.
pub fn run(
    bound: &Bound<Policy>,
    snapshot: &Snapshot,
    asked: &Asked,
    object: Option<&Value>,
    verdict: &mut Verdict,
) -> Result<(), Status> {
    let policy = &*bound.policy;
    let Some(served) = bound.version(&policy.head, snapshot, asked, object) else { return Ok(()) };
    let broken = |message: String| Failure { message, reason: Reason::Invalid, index: 0 };
    let params = match bound.params(&policy.head, snapshot, asked) {
        Ok(params) => params,
        Err(why) if policy.head.fails => return deny(bound, asked, object, &broken(why)),
        Err(_) => return Ok(()),
    };
    for param in &params {
        let inputs = Inputs::new(snapshot, asked, object, param.as_ref(), served);
        let conditions = Run::new(&inputs, &[], asked, CONDITIONS_BUDGET).conditions(&policy.conditions);
        match conditions {
            Ok(true) => {}
            Ok(false) => continue,
            Err(why) if policy.head.fails => return deny(bound, asked, object, &broken(why)),
            Err(_) => continue,
        }
        let run = Run::new(&inputs, &policy.variables, asked, POLICY_BUDGET);
        let failures = failures(policy, &run);
        annotate(policy, &run, verdict);
        follow(bound, asked, object, failures, verdict)?;
    }
    Ok(())
}

fn failures<'a>(policy: &'a Policy, run: &Run<'a>) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (index, validation) in policy.validations.iter().enumerate() {
        let message = match run.eval(&validation.holds) {
            Ok(Cel::Bool(true)) => continue,
            Ok(_) => message(validation, run),
            Err(_) if !policy.head.fails => continue,
            Err(why) => why,
        };
        failures.push(Failure { message, reason: validation.reason, index });
    }
    failures
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

fn annotate<'a>(policy: &'a Policy, run: &Run<'a>, verdict: &mut Verdict) {
    for annotation in &policy.annotations {
        if let Ok(Cel::String(text)) = run.eval(&annotation.expression) {
            let key = format!("{}/{}", policy.head.name, annotation.name);
            verdict.audit.push((key, text.to_string()));
        }
    }
}

/// Does what the binding says should follow.
fn follow(
    bound: &Bound<Policy>,
    asked: &Asked,
    object: Option<&Value>,
    failures: Vec<Failure>,
    verdict: &mut Verdict,
) -> Result<(), Status> {
    for failure in failures {
        for action in &bound.actions {
            match action.as_str() {
                "Deny" => return deny(bound, asked, object, &failure),
                "Warn" => verdict.warnings.push(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                    bound.policy.head.name, bound.binding, failure.message
                )),
                _ => verdict.audit.push((
                    "validation.policy.admission.k8s.io/validation_failure".into(),
                    json!([{
                        "message": failure.message, "policy": bound.policy.head.name, "binding": bound.binding,
                        "expressionIndex": failure.index, "validationActions": bound.actions,
                    }])
                    .to_string(),
                )),
            }
        }
    }
    Ok(())
}

fn deny(
    bound: &Bound<Policy>,
    asked: &Asked,
    object: Option<&Value>,
    failure: &Failure,
) -> Result<(), Status> {
    let message = format!(
        "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {}",
        bound.policy.head.name, bound.binding, failure.message
    );
    let mut status = asked.request.forbidden(object, message);
    status.code = Status::new(failure.reason, "").code;
    status.reason = failure.reason;
    status.causes.push(Cause { reason: "", message: failure.message.clone(), field: String::new() });
    Err(status)
}
