//! MutatingAdmissionPolicy. <https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/>

use cel::to_json;
use kinds::expressions::Wanted;
use object::{Snapshot, Status};
use schema::path;
use serde_json::Value;

use super::Asked;
use super::expression::{CONDITIONS_BUDGET, Compiler, Expression, Inputs, Named, POLICY_BUDGET, Run};
use super::policy::{Bound, Head};

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

impl Bound<Policy> {
    /// Whether it takes part in a second round.
    pub fn is_reinvoked(&self) -> bool {
        self.policy.reinvoked
    }
}

/// Changes the object by one policy and binding.
pub fn run(
    bound: &Bound<Policy>,
    snapshot: &Snapshot,
    asked: &Asked,
    object: &mut Value,
) -> Result<(), Status> {
    let policy = &*bound.policy;
    let Some(served) = bound.version(&policy.head, snapshot, asked, Some(object)) else { return Ok(()) };
    // A policy writes the object in the version of the request; in another one it could only look at it.
    if served != asked.served {
        return Ok(());
    }
    let deny = |why: String, object: &Value| {
        if !policy.head.fails {
            return Ok(());
        }
        let (policy, binding) = (&policy.head.name, &bound.binding);
        let message = format!("policy '{policy}' with binding '{binding}' denied request: {why}");
        Err(asked.request.forbidden(Some(object), message))
    };
    let params = match bound.params(&policy.head, snapshot, asked) {
        Ok(params) => params,
        Err(why) => return deny(why, object),
    };
    for param in &params {
        for (index, mutation) in policy.mutations.iter().enumerate() {
            let inputs = Inputs::new(snapshot, asked, Some(object), param.as_ref(), served);
            if index == 0 {
                match Run::new(&inputs, &[], asked, CONDITIONS_BUDGET).conditions(&policy.conditions) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(why) => return deny(why, object),
                }
            }
            let run = Run::new(&inputs, &policy.variables, asked, POLICY_BUDGET);
            if let Err(why) = change(mutation, &run, asked, object) {
                return deny(why, object);
            }
        }
    }
    Ok(())
}

fn change<'a>(
    mutation: &'a Mutation,
    run: &Run<'a>,
    asked: &Asked,
    object: &mut Value,
) -> Result<(), String> {
    let (Mutation::Apply(expression) | Mutation::Patch(expression)) = mutation;
    let value = run.eval(expression)?;
    let document = to_json(&value)
        .ok_or_else(|| format!("expression '{}' gave what no object can hold", expression.text))?;
    match mutation {
        Mutation::Apply(_) => {
            forbid_metadata(&document)?;
            (asked.merge)(object, &document)
        }
        Mutation::Patch(_) => {
            schema::json_patch(object, &document).map_err(|error| format!("JSON Patch: {error}"))
        }
    }
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
