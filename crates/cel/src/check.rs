//! Which type every part has, and which overloads every call can be. Messages are cel-go's.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Comprehension, Expr, Fold, Kind, Select};
use crate::env::Env;
use crate::error::Issue;
use crate::function::{Candidates, Overload};
use crate::types::Type;
use crate::value::Value;

pub(crate) struct Checked {
    pub result: Type,
    pub types: HashMap<usize, Type>,
    pub calls: HashMap<usize, Candidates>,
}

pub(crate) fn check(env: &Env, expr: &Expr) -> Result<Checked, Vec<Issue>> {
    let mut checker = Checker {
        env,
        scopes: Vec::new(),
        checked: Checked { result: Type::Dyn, types: HashMap::new(), calls: HashMap::new() },
        issues: Vec::new(),
    };
    checker.checked.result = checker.expr(expr);
    if checker.issues.is_empty() { Ok(checker.checked) } else { Err(checker.issues) }
}

/// Types as values: `type(x) == int`.
pub(crate) fn type_value(name: &str) -> Option<&'static str> {
    Some(match name {
        "bool" => "bool",
        "bytes" => "bytes",
        "double" => "double",
        "int" => "int",
        "list" => "list",
        "map" => "map",
        "null_type" => "null_type",
        "optional_type" => "optional_type",
        "string" => "string",
        "type" => "type",
        "uint" => "uint",
        _ => return None,
    })
}

/// `sets` of `sets.contains`, if that is how a target is written.
pub(crate) fn qualified(target: &Expr, function: &str) -> Option<String> {
    match &target.kind {
        Kind::Ident(name) => Some(format!("{}.{function}", name.trim_start_matches('.'))),
        Kind::Select { operand, field, how: Select::Value } => {
            Some(format!("{}.{function}", qualified(operand, field)?))
        }
        _ => None,
    }
}

struct Checker<'e> {
    env: &'e Env,
    scopes: Vec<(String, Type)>,
    checked: Checked,
    issues: Vec<Issue>,
}

impl Checker<'_> {
    fn expr(&mut self, expr: &Expr) -> Type {
        let found = self.kind(expr);
        self.checked.types.insert(expr.id, found.clone());
        found
    }

    fn issue(&mut self, at: usize, message: String) -> Type {
        self.issues.push(Issue::new(at, message));
        Type::Dyn
    }

    fn undeclared(&mut self, at: usize, name: &str) -> Type {
        self.issue(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn kind(&mut self, expr: &Expr) -> Type {
        match &expr.kind {
            Kind::Literal(value) => literal(value),
            Kind::Ident(name) => match self.variable(name) {
                Some(found) => found,
                None if type_value(name).is_some() => Type::Type,
                None => self.undeclared(expr.at, name.trim_start_matches('.')),
            },
            Kind::Select { operand, field, how } => self.select(expr, operand, field, *how),
            Kind::Call { target, function, args } => self.call(expr, target.as_deref(), function, args),
            Kind::List(elements) => {
                let types: Vec<_> =
                    elements.iter().map(|(element, optional)| self.entry(element, *optional)).collect();
                Type::list(common(types))
            }
            Kind::Map(entries) => {
                let keys: Vec<_> = entries.iter().map(|(key, _, _)| self.key(key)).collect();
                let values =
                    entries.iter().map(|(_, value, optional)| self.entry(value, *optional)).collect();
                Type::map(common(keys), common(values))
            }
            Kind::Struct { name, fields } => self.message(expr, name, fields),
            Kind::Comprehension(comprehension) => self.comprehension(comprehension),
            Kind::Bind { name, value, body } => {
                let bound = self.expr(value);
                self.within(vec![(name.clone(), bound)], |checker| checker.expr(body))
            }
        }
    }

    /// The type of a map's key: only what has no parts can be one, or types would grow without bound.
    fn key(&mut self, key: &Expr) -> Type {
        match self.expr(key) {
            found @ (Type::Bool | Type::Int | Type::Uint | Type::String | Type::Dyn) => found,
            other => self.issue(key.at, format!("unsupported map key type '{other}'")),
        }
    }

    /// The type of an element or value: what is inside, if it is given as an optional.
    fn entry(&mut self, value: &Expr, optional: bool) -> Type {
        match self.expr(value) {
            found if !optional => found,
            Type::Optional(inner) => *inner,
            Type::Dyn => Type::Dyn,
            other => self.issue(value.at, format!("expected type 'optional_type(dyn)' but found '{other}'")),
        }
    }

    fn variable(&self, name: &str) -> Option<Type> {
        if let Some(name) = name.strip_prefix('.') {
            return self.env.variables.get(name).map(|variable| variable.r#type.clone());
        }
        let scoped = self.scopes.iter().rev().find(|(known, _)| known == name);
        scoped
            .map(|(_, found)| found.clone())
            .or_else(|| self.env.variables.get(name).map(|variable| variable.r#type.clone()))
    }

    fn within<T>(&mut self, names: Vec<(String, Type)>, inside: impl FnOnce(&mut Self) -> T) -> T {
        let depth = self.scopes.len();
        self.scopes.extend(names);
        let result = inside(self);
        self.scopes.truncate(depth);
        result
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &str, how: Select) -> Type {
        // A variable may have a dot in its name: `authorizer.requestResource`.
        if let Some(declared) = qualified(operand, field).and_then(|name| self.env.variables.get(&name)) {
            return declared.r#type.clone();
        }
        let of = self.expr(operand);
        let (of, was_optional) = match of {
            Type::Optional(inner) => (*inner, true),
            other => (other, false),
        };
        let found = match &of {
            Type::Dyn => Type::Dyn,
            Type::Map(_, value) => (**value).clone(),
            Type::Object(object) => match object.fields.get(field) {
                Some(field) => field.r#type.clone(),
                None if object.open => Type::Dyn,
                None => self.issue(expr.at, format!("undefined field '{field}'")),
            },
            other => self.issue(expr.at, format!("type '{other}' does not support field selection")),
        };
        match how {
            Select::Test => Type::Bool,
            Select::Value if !was_optional => found,
            _ => match found {
                Type::Optional(_) => found,
                found => Type::optional(found),
            },
        }
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, function: &str, args: &[Expr]) -> Type {
        if let Some(target) = target
            && let Some(name) = qualified(target, function)
            && self.variable(name.split('.').next().unwrap_or_default()).is_none()
            && self.env.overloads(&name).is_some()
        {
            let types: Vec<_> = args.iter().map(|arg| self.expr(arg)).collect();
            return self.resolve(expr, &name, false, &types);
        }
        let operands: Vec<&Expr> = target.into_iter().chain(args).collect();
        let types: Vec<_> = operands.iter().map(|operand| self.expr(operand)).collect();
        match (function, types.as_slice()) {
            ("_?_:_", [condition, yes, no]) => {
                if !Type::Bool.accepts(condition) {
                    return self.no_overload(expr, function, false, &types);
                }
                yes.clone().join(no.clone())
            }
            ("_==_" | "_!=_", [one, two]) => {
                if !one.accepts(two) && !two.accepts(one) {
                    return self.no_overload(expr, function, false, &types);
                }
                Type::Bool
            }
            ("_[_]" | "_[?_]", [of, index]) => {
                let (inner, was_optional) = match of {
                    Type::Optional(inner) => ((**inner).clone(), true),
                    other => (other.clone(), false),
                };
                let found = match &inner {
                    Type::Dyn => Type::Dyn,
                    Type::List(element) if Type::Int.accepts(index) => (**element).clone(),
                    Type::Map(key, value) if key.accepts(index) => (**value).clone(),
                    _ => return self.no_overload(expr, function, false, &types),
                };
                if was_optional || function == "_[?_]" { Type::optional(found) } else { found }
            }
            _ => self.resolve(expr, function, target.is_some(), &types),
        }
    }

    fn no_overload(&mut self, expr: &Expr, function: &str, member: bool, types: &[Type]) -> Type {
        let mut names = types.iter().map(ToString::to_string);
        let receiver = if member { names.next().map(|name| format!("{name}.")) } else { None };
        let args = names.collect::<Vec<_>>().join(", ");
        let receiver = receiver.unwrap_or_default();
        let message = format!("found no matching overload for '{function}' applied to '{receiver}({args})'");
        self.issue(expr.at, message)
    }

    /// The overloads that fit the types, and the type of what they give.
    fn resolve(&mut self, expr: &Expr, name: &str, member: bool, types: &[Type]) -> Type {
        let Some(overloads) = self.env.overloads(name) else {
            return self.undeclared(expr.at, name);
        };
        let mut candidates: Vec<&'static Overload> = Vec::new();
        let mut result: Option<Type> = None;
        for overload in overloads {
            if overload.member != member || overload.params.len() != types.len() {
                continue;
            }
            let mut bound = HashMap::new();
            let fits = overload
                .params
                .iter()
                .zip(types)
                .all(|(param, found)| unify(&param.to_type(), found, &mut bound));
            if fits {
                candidates.push(overload);
                let gives = substitute(&overload.result.to_type(), &bound);
                result = Some(match result {
                    None => gives,
                    Some(known) if known == gives => known,
                    Some(_) => Type::Dyn,
                });
            }
        }
        let Some(result) = result else {
            return self.no_overload(expr, name, member, types);
        };
        self.checked.calls.insert(expr.id, Candidates(Arc::from(candidates)));
        result
    }

    fn message(&mut self, expr: &Expr, name: &str, fields: &[(String, Expr, bool)]) -> Type {
        let Some(object) = self.env.message_of(name) else {
            return self.undeclared(expr.at, name);
        };
        for (field, value, optional) in fields {
            let found = self.entry(value, *optional);
            match object.fields.get(field) {
                Some(known) if !known.r#type.accepts(&found) => {
                    let wanted = &known.r#type;
                    let message = format!(
                        "expected type of field '{field}' is '{wanted}' but provided type is '{found}'"
                    );
                    self.issue(value.at, message);
                }
                None if !object.open => {
                    self.issue(value.at, format!("undefined field '{field}'"));
                }
                _ => {}
            }
        }
        Type::Object(object)
    }

    fn comprehension(&mut self, of: &Comprehension) -> Type {
        let range = self.expr(&of.range);
        let (key, value, single) = match &range {
            Type::List(element) => (Type::Int, (**element).clone(), (**element).clone()),
            Type::Map(key, value) => ((**key).clone(), (**value).clone(), (**key).clone()),
            Type::Dyn => (Type::Dyn, Type::Dyn, Type::Dyn),
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                return self.issue(of.range.at, message);
            }
        };
        let names = match &of.second {
            Some(second) => vec![(of.variable.clone(), key.clone()), (second.clone(), value)],
            None => vec![(of.variable.clone(), single.clone())],
        };
        self.within(names, |checker| checker.fold(&of.fold, key, single))
    }

    fn fold(&mut self, fold: &Fold, key: Type, element: Type) -> Type {
        match fold {
            Fold::All(predicate) => self.predicate(predicate, "_&&_"),
            Fold::Exists(predicate) => self.predicate(predicate, "_||_"),
            Fold::ExistsOne(predicate) => self.predicate(predicate, "_?_:_"),
            Fold::Filter(predicate) => {
                self.predicate(predicate, "_?_:_");
                Type::list(element)
            }
            Fold::Map { predicate, value } => {
                self.optional_predicate(predicate.as_ref());
                Type::list(self.expr(value))
            }
            Fold::TransformMap { predicate, value } => {
                self.optional_predicate(predicate.as_ref());
                Type::map(key, self.expr(value))
            }
            Fold::TransformMapEntry { predicate, value } => {
                self.optional_predicate(predicate.as_ref());
                match self.expr(value) {
                    found @ (Type::Map(..) | Type::Dyn) => found,
                    other => {
                        self.issue(value.at, format!("expected type 'map(dyn, dyn)' but found '{other}'"))
                    }
                }
            }
        }
    }

    fn optional_predicate(&mut self, predicate: Option<&Expr>) {
        if let Some(predicate) = predicate {
            self.predicate(predicate, "_?_:_");
        }
    }

    fn predicate(&mut self, predicate: &Expr, operator: &str) -> Type {
        let found = self.expr(predicate);
        if Type::Bool.accepts(&found) {
            return Type::Bool;
        }
        let message = format!("found no matching overload for '{operator}' applied to '(bool, {found})'");
        self.issue(predicate.at, message);
        Type::Bool
    }
}

fn literal(value: &Value) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::String(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        _ => Type::Dyn,
    }
}

fn common(types: Vec<Type>) -> Type {
    types.into_iter().reduce(Type::join).unwrap_or(Type::Dyn)
}

/// Whether an argument fits a parameter, with what the parameter's type variables stand for so far.
fn unify(param: &Type, found: &Type, bound: &mut HashMap<u8, Type>) -> bool {
    match (param, found) {
        (Type::Param(number), _) => {
            let Some(known) = bound.get(number).cloned() else {
                bound.insert(*number, found.clone());
                return true;
            };
            if !known.accepts(found) {
                return false;
            }
            if known.is_dyn() || matches!(known, Type::Null) {
                return true;
            }
            bound.insert(*number, known.join(found.clone()));
            true
        }
        (Type::List(param), Type::List(found)) | (Type::Optional(param), Type::Optional(found)) => {
            unify(param, found, bound)
        }
        (Type::Map(key, value), Type::Map(found_key, found_value)) => {
            unify(key, found_key, bound) && unify(value, found_value, bound)
        }
        _ => param.accepts(found),
    }
}

fn substitute(result: &Type, bound: &HashMap<u8, Type>) -> Type {
    match result {
        Type::Param(number) => bound.get(number).cloned().unwrap_or(Type::Dyn),
        Type::List(element) => Type::list(substitute(element, bound)),
        Type::Optional(inner) => Type::optional(substitute(inner, bound)),
        Type::Map(key, value) => Type::map(substitute(key, bound), substitute(value, bound)),
        other => other.clone(),
    }
}
