//! Expressions of policies and webhooks: compiled with what went wrong, evaluated lazily.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;

use cel::{EvalError, Host, Program, Type, Value as Cel, from_json};
use kinds::expressions::{self, Given, Question, Verdict as Authorized, Wanted};
use object::Snapshot;
use plan::{Attributes, User};
use schema::path;
use serde_json::Value;

use super::{Asked, Served};
use crate::pod::joined;

/// What one expression may cost, and all conditions or all other expressions of one policy together: upstream's limits.
pub const CALL_BUDGET: u64 = 1_000_000;
pub const CONDITIONS_BUDGET: u64 = 2_500_000;
pub const POLICY_BUDGET: u64 = 10_000_000;
/// What is said of an expression that would cost more than is left.
pub const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";
/// How deep variables may stand on each other: each is an evaluation within an evaluation.
const NESTED_VARIABLES: usize = 16;

/// A compiled expression with its text, or why it cannot be evaluated.
#[derive(Debug)]
pub struct Expression {
    pub text: String,
    program: Result<Program, String>,
}

/// An expression with a name: a match condition or a variable.
#[derive(Debug)]
pub struct Named {
    pub name: String,
    pub expression: Expression,
}

impl Expression {
    fn compile(env: &cel::Env, text: &str, wanted: Wanted) -> Self {
        Self { text: text.to_owned(), program: expressions::compile(env, text, wanted) }
    }
}

/// Compiles the expressions of one policy or webhook; variables see those before them.
pub struct Compiler {
    env: cel::Env,
}

impl Compiler {
    pub fn new(params: bool) -> Self {
        Self { env: expressions::env(&Given { params, authorizer: true }) }
    }

    pub fn one(&self, text: &str, wanted: Wanted) -> Expression {
        Expression::compile(&self.env, text, wanted)
    }

    /// An expression that need not be there.
    pub fn optional(&self, of: &Value, field: &str, wanted: Wanted) -> Option<Expression> {
        let text = path::text(of, field);
        (!text.trim().is_empty()).then(|| self.one(text, wanted))
    }

    pub fn conditions(&self, of: &Value) -> Vec<Named> {
        let conditions = path::list(of, "matchConditions").iter();
        conditions
            .map(|condition| Named {
                name: path::text(condition, "name").to_owned(),
                expression: self.one(path::text(condition, "expression"), Wanted::Bool),
            })
            .collect()
    }

    pub fn variables(&mut self, of: &Value) -> Vec<Named> {
        let mut variables = Vec::new();
        for variable in path::list(of, "variables") {
            let name = path::text(variable, "name").to_owned();
            let expression = self.one(path::text(variable, "expression"), Wanted::Anything);
            let found = expression.program.as_ref().map_or(Type::Dyn, |program| program.result().clone());
            expressions::declare(&mut self.env, &name, found);
            variables.push(Named { name, expression });
        }
        variables
    }
}

/// What the variables of expressions are, in one request.
pub struct Inputs {
    object: Value,
    old: Value,
    request: Value,
    params: Value,
    namespace: Value,
    request_type: Type,
}

impl Inputs {
    pub fn new(
        snapshot: &Snapshot,
        asked: &Asked,
        object: Option<&Value>,
        params: Option<&Value>,
        served: Served<'_>,
    ) -> Self {
        let namespace = snapshot.find(kinds::NAMESPACES, "", &asked.request.key.namespace);
        let namespace = namespace.filter(|_| asked.request.namespaced);
        let seen = |object: Option<&Value>| (asked.seen)(served, object?);
        Self {
            object: seen(object).unwrap_or(Value::Null),
            old: seen(asked.request.old).unwrap_or(Value::Null),
            request: super::request_value(asked, object, served),
            params: params.cloned().unwrap_or(Value::Null),
            namespace: namespace.and_then(|namespace| namespace.to_value().ok()).unwrap_or(Value::Null),
            request_type: expressions::request_variable(),
        }
    }

    /// The object, in the version in which it is looked at, to be changed between two evaluations.
    pub fn object(&mut self) -> &mut Value {
        &mut self.object
    }
}

/// One evaluation of a policy: its budget, and its variables as they are worked out.
pub struct Run<'a> {
    inputs: &'a Inputs,
    variables: &'a [Named],
    asked: &'a Asked<'a>,
    left: RefCell<u64>,
    /// How deep variables are being worked out in each other.
    depth: std::cell::Cell<usize>,
    worked_out: RefCell<BTreeMap<String, Result<Cel<'a>, EvalError>>>,
}

impl<'a> Run<'a> {
    pub fn new(inputs: &'a Inputs, variables: &'a [Named], asked: &'a Asked<'a>, budget: u64) -> Self {
        let worked_out = RefCell::default();
        let depth = std::cell::Cell::new(0);
        Self { inputs, variables, asked, left: RefCell::new(budget), depth, worked_out }
    }

    /// The value of an expression, or upstream's words for why there is none.
    pub fn eval(&self, expression: &'a Expression) -> Result<Cel<'a>, String> {
        let program = expression.program.as_ref().map_err(|why| {
            let text = &expression.text;
            format!("expression '{text}' resulted in error: {why}")
        })?;
        let budget = CALL_BUDGET.min(*self.left.borrow());
        let (value, used) = program.eval_with(&self.given(), budget, self);
        let mut left = self.left.borrow_mut();
        *left = left.saturating_sub(used);
        value.map_err(|error| match error {
            EvalError::OverBudget => OUT_OF_BUDGET.to_owned(),
            error => format!("expression '{}' resulted in error: {error}", expression.text),
        })
    }

    fn given(&self) -> [(&'static str, Cel<'a>); 7] {
        let Inputs { object, old, request, params, namespace, request_type } = self.inputs;
        let key = self.asked.request.key;
        let mut about = Question::begin().of_resource();
        about.group = key.resource.group().to_owned();
        about.resource = key.resource.plural().to_owned();
        about.subresource = self.asked.request.subresource.to_owned();
        about.namespace = key.namespace.to_string();
        about.name = key.name.to_string();
        [
            ("object", from_json(object, &Type::Dyn)),
            ("oldObject", from_json(old, &Type::Dyn)),
            ("request", from_json(request, request_type)),
            ("params", from_json(params, &Type::Dyn)),
            ("namespaceObject", from_json(namespace, &Type::Dyn)),
            ("authorizer", Cel::opaque(Question::begin())),
            ("authorizer.requestResource", Cel::opaque(about)),
        ]
    }

    /// Whether all conditions hold. An error counts unless another condition is false.
    pub fn conditions(&self, conditions: &'a [Named]) -> Result<bool, String> {
        let mut failed = Vec::new();
        for condition in conditions {
            match self.eval(&condition.expression) {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => return Ok(false),
                Ok(_) => failed.push(format!("match condition {:?} did not give a bool", condition.name)),
                Err(why) => failed.push(why),
            }
        }
        if failed.is_empty() { Ok(true) } else { Err(joined(&failed)) }
    }
}

impl<'a> Host<'a> for Run<'a> {
    fn field(&self, object: &str, field: &str, budget: u64) -> Option<(Result<Cel<'a>, EvalError>, u64)> {
        if object != "variables" {
            return None;
        }
        if let Some(known) = self.worked_out.borrow().get(field) {
            return Some((known.clone(), 0));
        }
        let variable = self.variables.iter().find(|variable| variable.name == field)?;
        if self.depth.get() >= NESTED_VARIABLES {
            return Some((
                Err(EvalError::new(format!("variables nest more than {NESTED_VARIABLES} deep"))),
                0,
            ));
        }
        self.depth.set(self.depth.get() + 1);
        let (value, used) = match &variable.expression.program {
            Ok(program) => program.eval_with(&self.given(), budget.min(CALL_BUDGET), self),
            Err(why) => (Err(EvalError::new(why.clone())), 0),
        };
        self.depth.set(self.depth.get() - 1);
        let value = value.map_err(|error| match error {
            EvalError::Failed(why) => {
                EvalError::new(format!("composited variable {field:?} fails to evaluate: {why}"))
            }
            other => other,
        });
        self.worked_out.borrow_mut().insert(field.to_owned(), value.clone());
        Some((value, used))
    }

    fn answer(&self, question: &dyn Any) -> Option<Cel<'a>> {
        let Question { service_account, path, group, resource, subresource, namespace, name, verb, .. } =
            question.downcast_ref()?;
        let attributes = Attributes {
            verb,
            group,
            version: "*",
            resource,
            subresource,
            namespace,
            name,
            path,
            ..Attributes::default()
        };
        let decision = match service_account {
            None => (self.asked.request.authorize)(&attributes),
            Some((namespace, name)) => {
                let user = User::new(
                    format!("system:serviceaccount:{namespace}:{name}"),
                    &[
                        "system:serviceaccounts",
                        &format!("system:serviceaccounts:{namespace}"),
                        "system:authenticated",
                    ],
                );
                (self.asked.authorize_as)(&user, &attributes)
            }
        };
        Some(Cel::opaque(Authorized { allowed: decision.allowed, reason: decision.reason }))
    }
}
