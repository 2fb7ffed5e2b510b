//! MutatingAdmissionPolicy. <https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/>

use cel::to_json;
use kinds::expressions::Wanted;
use object::{Cause, Reason, Snapshot, Status};
use schema::{FieldValidation, PatchError, path};
use serde_json::Value;

use super::expression::{CONDITIONS_BUDGET, Compiler, Expression, Inputs, Named, POLICY_BUDGET, Run};
use super::policy::{Bound, Head};
use super::{Asked, Served};
use crate::Request;

#[derive(Debug)]
pub struct Policy {
    head: Head,
    conditions: Vec<Named>,
    variables: Vec<Named>,
    mutations: Vec<Mutation>,
    /// Wants to be asked again if others changed the object after it.
    reinvoked: bool,
}

#[derive(Debug)]
enum Mutation {
    Apply(Expression),
    Patch(Expression),
}

impl Policy {
    pub fn read(policy: &Value) -> Self {
        let (head, spec) = (Head::read(policy), &policy["spec"]);
        let mut compiler = Compiler::new(head.param_kind.is_some());
        let conditions = compiler.conditions(spec);
        let variables = compiler.variables(spec);
        let mutations = path::list(spec, "mutations").iter();
        let mutations = mutations
            .map(|one| match path::text(one, "patchType") {
                "JSONPatch" => {
                    Mutation::Patch(compiler.one(path::text(one, "jsonPatch.expression"), Wanted::Patch))
                }
                _ => Mutation::Apply(
                    compiler.one(path::text(one, "applyConfiguration.expression"), Wanted::Configuration),
                ),
            })
            .collect();
        let reinvoked = path::text(spec, "reinvocationPolicy") == "IfNeeded";
        Self { head, conditions, variables, mutations, reinvoked }
    }
}

/// A policy and binding that are about a request, with one of the binding's parameters.
pub struct Invocation {
    /// The place of both among those that are bound.
    bound: usize,
    /// Group and version in which the policy sees the request's objects.
    pub version: (String, String),
    param: Option<Value>,
}

/// Names an [`Invocation`] in both rounds: the place of policy and binding, and namespace and name of the parameter.
pub type InvocationKey = (usize, String);

/// What became of one.
#[derive(Default)]
pub struct Ran {
    /// The object as the policy left it, in the policy's version; none if it had nothing to change.
    pub object: Option<Value>,
    /// It wants to be asked again if others change the object after it.
    pub is_reinvoked: bool,
    /// Policy and binding, and what came of them: `no_error` or `invalid_error`. None if they were not asked.
    pub check: Option<(String, String, &'static str)>,
    refusals: Vec<Refusal>,
}

/// Why a policy that must not be passed by could not be carried out.
pub struct Refusal {
    message: String,
    reason: Reason,
}

impl Refusal {
    fn new(policy: &str, binding: Option<&str>, why: &str, reason: Reason) -> Self {
        let message = match binding {
            Some(binding) => format!("policy '{policy}' with binding '{binding}' denied request: {why}"),
            None => format!("policy {policy:?} denied request: {why}"),
        };
        Self { message, reason }
    }
}

impl Invocation {
    pub fn key(&self) -> InvocationKey {
        let text = |field: &str| self.param.as_ref().map_or("", |param| path::text(param, field));
        (self.bound, format!("{}/{}", text("metadata.namespace"), text("metadata.name")))
    }
}

impl Ran {
    pub fn take_refusals(&mut self) -> Vec<Refusal> {
        std::mem::take(&mut self.refusals)
    }
}

/// The invocations of a request, in the order in which they are made: decided on the object as it is before the first.
pub fn invocations(
    all: &[Bound<Policy>],
    snapshot: &Snapshot,
    asked: &Asked,
    object: &Value,
) -> (Vec<Invocation>, Vec<Refusal>) {
    let (mut found, mut refusals) = (Vec::new(), Vec::new());
    for (index, bound) in all.iter().enumerate() {
        let head = &bound.policy.head;
        let Some(served) = bound.version(head, snapshot, asked, Some(object)) else { continue };
        let version = (served.group.to_owned(), served.version.to_owned());
        match bound.params(head, snapshot, asked) {
            Ok(params) => found.extend(params.into_iter().map(|param| Invocation {
                bound: index,
                version: version.clone(),
                param,
            })),
            Err(_) if !head.fails => {}
            Err(wrong) => {
                let (binding, why) = wrong.told(&bound.binding);
                refusals.push(Refusal::new(&head.name, binding.as_deref(), &why, Reason::Forbidden));
            }
        }
    }
    (found, refusals)
}

/// Makes an invocation; `may_run` is whether it takes part in this round.
pub fn run(
    all: &[Bound<Policy>],
    invocation: &Invocation,
    snapshot: &Snapshot,
    asked: &Asked,
    object: &Value,
    may_run: bool,
) -> Ran {
    let Some(bound) = all.get(invocation.bound) else { return Ran::default() };
    let policy = &*bound.policy;
    let served = Served { group: &invocation.version.0, version: &invocation.version.1 };
    let mut inputs = Inputs::new(snapshot, asked, Some(object), invocation.param.as_ref(), served);
    let mut ran = Ran::default();
    let mut refuse = |why: &str| {
        ran.check = Some(bound.check("invalid_error"));
        if policy.head.fails {
            let refusal = Refusal::new(&policy.head.name, Some(&bound.binding), why, Reason::Invalid);
            ran.refusals.push(refusal);
        }
    };
    match Run::new(&inputs, &[], asked, CONDITIONS_BUDGET).conditions(&policy.conditions) {
        Ok(true) if may_run => {}
        Ok(_) => return ran,
        Err(why) => {
            refuse(&why);
            return ran;
        }
    }
    let mut is_changed = false;
    for mutation in &policy.mutations {
        let document = evaluate(mutation, &Run::new(&inputs, &policy.variables, asked, POLICY_BUDGET));
        let object = inputs.object();
        let changed = document
            .map_err(Failure::Refuses)
            .and_then(|document| change(mutation, &document, served, asked, object));
        match changed {
            Ok(()) => is_changed = true,
            Err(Failure::Refuses(why)) => refuse(&why),
            Err(Failure::Breaks(message)) => {
                ran.refusals.push(Refusal { message, reason: Reason::InternalError });
                return ran;
            }
        }
    }
    ran.check.get_or_insert_with(|| bound.check("no_error"));
    ran.object = is_changed.then(|| inputs.object().take());
    ran.is_reinvoked = policy.reinvoked;
    ran
}

impl Bound<Policy> {
    fn check(&self, error: &'static str) -> (String, String, &'static str) {
        (self.policy.head.name.clone(), self.binding.clone(), error)
    }
}

/// A request is refused if a policy that must not be passed by failed: with what the first says, and what all say beside it.
pub fn refuse(request: &Request, object: Option<&Value>, refusals: Vec<Refusal>) -> Result<(), Status> {
    let Some(first) = refusals.first() else { return Ok(()) };
    if let Some(broken) = refusals.iter().find(|one| one.reason == Reason::InternalError) {
        return Err(Status::internal(&broken.message));
    }
    let mut status = request.forbidden(object, "");
    status.message.clone_from(&first.message);
    status.reason = first.reason;
    let causes = refusals.into_iter();
    status.causes.extend(causes.map(|one| Cause { reason: "", message: one.message, field: String::new() }));
    Err(status)
}

/// The configuration or the patch that an expression gives.
fn evaluate<'a>(mutation: &'a Mutation, run: &Run<'a>) -> Result<Value, String> {
    let (Mutation::Apply(expression) | Mutation::Patch(expression)) = mutation;
    let value = run.eval(expression)?;
    to_json(&value).ok_or_else(|| format!("expression '{}' gave what no object can hold", expression.text))
}

/// Why a mutation came to nothing.
enum Failure {
    /// As the policy's `failurePolicy` has it.
    Refuses(String),
    /// It made something that is no object of the kind: no policy may be passed by for that.
    Breaks(String),
}

fn change(
    mutation: &Mutation,
    document: &Value,
    served: Served<'_>,
    asked: &Asked,
    object: &mut Value,
) -> Result<(), Failure> {
    match mutation {
        Mutation::Apply(_) => {
            forbid_metadata(document).map_err(Failure::Refuses)?;
            let merged = (asked.merge)(served, object, document);
            merged.map_err(|why| Failure::Refuses(format!("error applying patch: {why}")))
        }
        Mutation::Patch(_) => {
            let mut patched = object.clone();
            match schema::json_patch(&mut patched, document) {
                Ok(()) => {
                    readable(served, &patched).map_err(Failure::Breaks)?;
                    *object = patched;
                }
                // A test that does not hold means that there is nothing to do.
                Err(PatchError::TestFailed(_)) => {}
                Err(error) => return Err(Failure::Refuses(format!("JSON Patch: {error}"))),
            }
            Ok(())
        }
    }
}

/// What a patch makes of a built-in object must be one, to the last field.
fn readable(served: Served<'_>, object: &Value) -> Result<(), String> {
    let Some(kind) = kinds::by_gvk(served.group, served.version, path::text(object, "kind")) else {
        return Ok(());
    };
    let read = kinds::conform(kind, object.clone(), FieldValidation::Strict);
    read.map(drop).map_err(|error| error.to_string())
}

/// A configuration says what should be, never which object it is.
fn forbid_metadata(configuration: &Value) -> Result<(), String> {
    for field in
        ["apiVersion", "kind", "metadata.name", "metadata.generateName", "metadata.namespace", "metadata.uid"]
    {
        if path::get(configuration, field).is_some() {
            return Err(format!("the applied configuration must not set {field}"));
        }
    }
    Ok(())
}
