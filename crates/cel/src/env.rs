use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::ast::Expr;
use crate::cost::{self, Estimate, Sizes};
use crate::error::{EvalError, Issue};
use crate::eval;
use crate::function::{Candidates, Function, Host, Nobody, Overload};
use crate::functions::STANDARD;
use crate::types::{Field, ObjectType, Type};
use crate::value::Value;
use crate::{check, parse};

/// What an expression may use: variables, messages and functions.
#[derive(Clone, Debug)]
pub struct Env {
    pub(crate) variables: BTreeMap<String, Variable>,
    messages: BTreeMap<String, Arc<ObjectType>>,
    open: Vec<&'static str>,
    functions: HashMap<&'static str, Vec<&'static Overload>>,
}

/// A variable's type, and how large it can be.
#[derive(Clone, Debug)]
pub struct Variable {
    pub r#type: Type,
    pub sizes: Sizes,
}

impl Default for Env {
    fn default() -> Self {
        let env = Self {
            variables: BTreeMap::new(),
            messages: BTreeMap::new(),
            open: Vec::new(),
            functions: HashMap::new(),
        };
        STANDARD.iter().fold(env, |env, library| env.library(library))
    }
}

impl Env {
    /// With functions besides the standard ones; of a known name they are further overloads.
    pub fn library(mut self, functions: &'static [Function]) -> Self {
        for function in functions {
            self.functions.entry(function.name).or_default().extend(function.overloads);
        }
        self
    }

    pub fn variable(mut self, name: &str, r#type: Type, sizes: Sizes) -> Self {
        self.variables.insert(name.to_owned(), Variable { r#type, sizes });
        self
    }

    /// Adds a variable that is an object, for now without fields. One that is there stays.
    pub fn object(&mut self, variable: &str) {
        self.variables.entry(variable.to_owned()).or_insert_with(|| Variable {
            r#type: Type::Object(Arc::new(ObjectType {
                name: variable.to_owned(),
                fields: BTreeMap::new(),
                open: false,
            })),
            sizes: Sizes::default(),
        });
    }

    /// Adds a field to the variable of this name, an object that comes to be with its first field.
    pub fn field(&mut self, variable: &str, field: Field) {
        self.object(variable);
        let Some(held) = self.variables.get_mut(variable) else { return };
        if let Type::Object(object) = &mut held.r#type {
            // Copied only if a program that was compiled before gives the object itself.
            Arc::make_mut(object).fields.insert(field.name.clone(), field);
        }
    }

    /// With a message that expressions can make by its name.
    pub fn message(mut self, object: Arc<ObjectType>) -> Self {
        self.messages.insert(object.name.clone(), object);
        self
    }

    /// With messages that expressions can make without a declaration: this name, and every name below it (`Object.spec`). Their fields are
    /// whatever they are given.
    pub fn makes(mut self, name: &'static str) -> Self {
        self.open.push(name);
        self
    }

    /// The message that an expression makes by a name.
    pub(crate) fn message_of(&self, name: &str) -> Option<Arc<ObjectType>> {
        let is_open = |root: &&str| {
            name.strip_prefix(*root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.messages.get(name).cloned().or_else(|| {
            self.open
                .iter()
                .any(is_open)
                .then(|| Arc::new(ObjectType { name: name.to_owned(), fields: BTreeMap::new(), open: true }))
        })
    }

    pub(crate) fn overloads(&self, name: &str) -> Option<&[&'static Overload]> {
        self.functions.get(name).map(Vec::as_slice)
    }

    /// Parses and checks. All issues that the checker finds are told.
    pub fn compile(&self, source: &str) -> Result<Program, Vec<Issue>> {
        let expr = parse::parse(source)?;
        let checked = check::check(self, &expr)?;
        let estimate = cost::estimate(self, &expr, &checked);
        Ok(Program { expr, calls: checked.calls, result: checked.result, estimate })
    }
}

/// An expression that passed the checker.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) expr: Expr,
    /// The overloads that each call may be, by the id of its part.
    pub(crate) calls: HashMap<usize, Candidates>,
    result: Type,
    estimate: Estimate,
}

impl Program {
    /// The type of what it gives.
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// What it costs at least and at most, by the sizes that the variables were declared with.
    pub fn estimate(&self) -> Estimate {
        self.estimate
    }

    /// Evaluates, and tells what it cost. It ends with [`EvalError::OverBudget`] once it would cost more than `budget`.
    pub fn eval<'a>(
        &self,
        variables: &[(&str, Value<'a>)],
        budget: u64,
    ) -> (Result<Value<'a>, EvalError>, u64) {
        eval::eval(self, variables, budget, &Nobody)
    }

    /// As [`Program::eval`], with somebody to ask.
    pub fn eval_with<'a>(
        &self,
        variables: &[(&str, Value<'a>)],
        budget: u64,
        host: &dyn Host<'a>,
    ) -> (Result<Value<'a>, EvalError>, u64) {
        eval::eval(self, variables, budget, host)
    }
}
