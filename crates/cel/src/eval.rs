//! Walks an expression. Errors are values that `&&`, `||` and the folds over them may absorb; the budget is not.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Comprehension, Expr, Fold, Kind, Select};
use crate::check::type_value;
use crate::cost;
use crate::env::Program;
use crate::error::EvalError;
use crate::function::{Call, Host};
use crate::value::{Key, Value};

type Evaluated<'a> = Result<Value<'a>, EvalError>;

pub(crate) fn eval<'a>(
    program: &Program,
    variables: &[(&str, Value<'a>)],
    budget: u64,
    host: &dyn Host<'a>,
) -> (Evaluated<'a>, u64) {
    let mut run = Run { program, variables, host, scopes: Vec::new(), used: 0, budget };
    let value = run.expr(&program.expr);
    (value, run.used)
}

struct Run<'r, 'a> {
    program: &'r Program,
    variables: &'r [(&'r str, Value<'a>)],
    host: &'r dyn Host<'a>,
    scopes: Vec<(&'r str, Value<'a>)>,
    used: u64,
    budget: u64,
}

/// What a comprehension walks: each step binds one or two variables.
type Steps<'a> = Vec<(Value<'a>, Option<Value<'a>>)>;

impl<'r, 'a> Run<'r, 'a> {
    fn pay(&mut self, cost: u64) -> Result<(), EvalError> {
        self.used = self.used.saturating_add(cost);
        if self.used > self.budget { Err(EvalError::OverBudget) } else { Ok(()) }
    }

    fn expr(&mut self, expr: &'r Expr) -> Evaluated<'a> {
        match &expr.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Ident(name) => {
                self.pay(1)?;
                self.variable(name)
            }
            Kind::Select { operand, field, how } => {
                if let Some(worked_out) = self.lazy(operand, field, *how) {
                    return worked_out;
                }
                if let Some(value) = self.dotted(operand, field) {
                    self.pay(1)?;
                    return Ok(value);
                }
                let of = self.expr(operand)?;
                self.pay(1)?;
                select(&of, field, *how)
            }
            Kind::Call { target, function, args } => self.call(expr, target.as_deref(), function, args),
            Kind::List(elements) => self.list(elements),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.message(name, fields),
            Kind::Comprehension(comprehension) => self.comprehension(comprehension),
            Kind::Bind { name, value, body } => {
                let value = self.expr(value)?;
                self.scopes.push((name, value));
                let result = self.expr(body);
                self.scopes.pop();
                result
            }
        }
    }

    /// A field of a variable that the host works out when it is asked for.
    fn lazy(&mut self, operand: &'r Expr, field: &str, how: Select) -> Option<Evaluated<'a>> {
        let Kind::Ident(name) = &operand.kind else { return None };
        if self.scopes.iter().any(|(known, _)| known == name) {
            return None;
        }
        let (value, cost) = self.host.field(name, field, self.budget.saturating_sub(self.used))?;
        let value = match (how, value) {
            (Select::Value, value) => value,
            // It is declared, so that it is there; whether it can be worked out is another question.
            (Select::Test, _) => Ok(Value::Bool(true)),
            (Select::Optional, value) => value.map(Value::some),
        };
        Some(self.pay(cost.saturating_add(2)).and(value))
    }

    /// A variable that has a dot in its name.
    fn dotted(&self, operand: &Expr, field: &str) -> Option<Value<'a>> {
        let Kind::Ident(first) = &operand.kind else { return None };
        let is_it = |name: &str| {
            name.strip_prefix(first.as_str()).and_then(|rest| rest.strip_prefix('.')) == Some(field)
        };
        self.variables.iter().find(|(name, _)| is_it(name)).map(|(_, value)| value.clone())
    }

    fn variable(&self, name: &str) -> Evaluated<'a> {
        let scoped = self.scopes.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value);
        let plain = name.trim_start_matches('.');
        let given = || self.variables.iter().find(|(known, _)| *known == plain).map(|(_, value)| value);
        if let Some(value) = scoped.or_else(given) {
            return Ok(value.clone());
        }
        match type_value(plain) {
            Some(name) => Ok(Value::Type(name.into())),
            None => Err(EvalError::new(format!("no such attribute(s): {plain}"))),
        }
    }

    /// The value behind an optional entry; none if it is to be left out.
    fn entry(&mut self, expr: &'r Expr, optional: bool) -> Result<Option<Value<'a>>, EvalError> {
        match self.expr(expr)? {
            value if !optional => Ok(Some(value)),
            Value::Optional(inner) => Ok(inner.map(|value| (*value).clone())),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn list(&mut self, elements: &'r [(Expr, bool)]) -> Evaluated<'a> {
        let mut values = Vec::with_capacity(elements.len());
        for (element, optional) in elements {
            values.extend(self.entry(element, *optional)?);
        }
        self.pay(cost::LIST)?;
        values.iter().try_for_each(|value| self.pay_for_parts(value))?;
        Ok(Value::List(Arc::new(values)))
    }

    /// What is put into something larger is walked whenever that is compared or shown: it is paid for here, or values that hold
    /// the same one many times over would cost nothing to make and forever to look at.
    fn pay_for_parts(&mut self, value: &Value) -> Result<(), EvalError> {
        let left = self.budget.saturating_sub(self.used);
        self.pay(parts(value, left))
    }

    fn map(&mut self, entries: &'r [(Expr, Expr, bool)]) -> Evaluated<'a> {
        let mut map = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = Key::of(&self.expr(key)?)?;
            let Some(value) = self.entry(value, *optional)? else { continue };
            if map.contains_key(&key) {
                return Err(EvalError::new(format!("duplicate map key: {key}")));
            }
            map.insert(key, value);
        }
        self.pay(cost::MAP)?;
        map.values().try_for_each(|value| self.pay_for_parts(value))?;
        Ok(Value::Map(Arc::new(map)))
    }

    fn message(&mut self, name: &str, fields: &'r [(String, Expr, bool)]) -> Evaluated<'a> {
        let mut members = BTreeMap::new();
        for (field, value, optional) in fields {
            if let Some(value) = self.entry(value, *optional)? {
                members.insert(field.clone(), value);
            }
        }
        self.pay(cost::MESSAGE)?;
        members.values().try_for_each(|value| self.pay_for_parts(value))?;
        Ok(Value::Message(name.into(), Arc::new(members)))
    }

    fn call(
        &mut self,
        expr: &'r Expr,
        target: Option<&'r Expr>,
        function: &str,
        args: &'r [Expr],
    ) -> Evaluated<'a> {
        match (function, args) {
            ("_&&_", [one, two]) => return self.logic(one, two, false),
            ("_||_", [one, two]) => return self.logic(one, two, true),
            ("_?_:_", [condition, yes, no]) => {
                return match self.expr(condition)? {
                    Value::Bool(true) => self.expr(yes),
                    Value::Bool(false) => self.expr(no),
                    _ => Err(EvalError::no_such_overload()),
                };
            }
            ("_==_" | "_!=_", [one, two]) => {
                let (one, two) = (self.expr(one)?, self.expr(two)?);
                self.pay(cost::call(crate::Cost::Shorter, &[one.size(), two.size()]))?;
                return Ok(Value::Bool(one.equals(&two) == (function == "_==_")));
            }
            ("_[_]" | "_[?_]", [of, index]) => {
                let (of, index) = (self.expr(of)?, self.expr(index)?);
                self.pay(1)?;
                return index_of(&of, &index, function == "_[?_]");
            }
            ("or" | "orValue", [other]) if target.is_some() => {
                return self.optional_or(target, other, function == "or");
            }
            _ => {}
        }
        let Some(candidates) = self.program.calls.get(&expr.id) else {
            return Err(EvalError::no_such_overload());
        };
        // The candidates are all members or none is: of a qualified name the target is no operand.
        let is_member = candidates.0.first().is_some_and(|overload| overload.member);
        let mut values = Vec::with_capacity(args.len() + 1);
        if let Some(target) = target.filter(|_| is_member) {
            values.push(self.expr(target)?);
        }
        for arg in args {
            values.push(self.expr(arg)?);
        }
        let overload = candidates.pick(&values).ok_or_else(EvalError::no_such_overload)?;
        let sizes: Vec<u64> = values.iter().map(Value::size).collect();
        self.pay(cost::call(overload.cost, &sizes))?;
        match overload.call {
            Call::Pure(call) => call(&values),
            Call::Ask(call) => call(&values, self.host),
        }
    }

    /// `a || b` with `decides` true, `a && b` with false: one side that decides makes the other side's error not matter.
    fn logic(&mut self, one: &'r Expr, two: &'r Expr, decides: bool) -> Evaluated<'a> {
        let first = self.expr(one);
        match &first {
            Ok(Value::Bool(flag)) if *flag == decides => return first,
            Err(EvalError::OverBudget) => return first,
            _ => {}
        }
        let second = self.expr(two);
        match (first, second) {
            (_, Err(EvalError::OverBudget)) => Err(EvalError::OverBudget),
            (_, Ok(Value::Bool(flag))) if flag == decides => Ok(Value::Bool(decides)),
            (Err(error), _) | (Ok(Value::Bool(_)), Err(error)) => Err(error),
            (Ok(Value::Bool(_)), Ok(Value::Bool(flag))) => Ok(Value::Bool(flag)),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    /// `a.or(b)` and `a.orValue(b)`: the other one is not evaluated if there is a value.
    fn optional_or(&mut self, target: Option<&'r Expr>, other: &'r Expr, keeps: bool) -> Evaluated<'a> {
        let Some(target) = target else { return Err(EvalError::no_such_overload()) };
        let of = self.expr(target)?;
        self.pay(1)?;
        match of {
            Value::Optional(Some(_)) if keeps => Ok(of),
            Value::Optional(Some(value)) => Ok((*value).clone()),
            Value::Optional(None) => self.expr(other),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn comprehension(&mut self, of: &'r Comprehension) -> Evaluated<'a> {
        let range = self.expr(&of.range)?;
        let steps = steps(&range, of.second.is_some())?;
        let depth = self.scopes.len();
        let result = self.fold(of, steps);
        self.scopes.truncate(depth);
        self.pay(1)?;
        result
    }

    fn fold(&mut self, of: &'r Comprehension, steps: Steps<'a>) -> Evaluated<'a> {
        let overhead = cost::overhead(&of.fold);
        let mut failed: Option<EvalError> = None;
        let mut count = 0;
        let mut values = Vec::new();
        let mut map = BTreeMap::new();
        let depth = self.scopes.len();
        for (first, second) in steps {
            self.scopes.truncate(depth);
            let element = first.clone();
            self.scopes.push((&of.variable, first));
            if let (Some(name), Some(second)) = (&of.second, second) {
                self.scopes.push((name, second));
            }
            self.pay(overhead)?;
            match &of.fold {
                Fold::All(predicate) | Fold::Exists(predicate) => {
                    let decides = matches!(of.fold, Fold::Exists(_));
                    match self.flag(predicate) {
                        Ok(flag) if flag == decides => return Ok(Value::Bool(decides)),
                        Ok(_) => {}
                        Err(EvalError::OverBudget) => return Err(EvalError::OverBudget),
                        Err(error) => failed = failed.or(Some(error)),
                    }
                }
                Fold::ExistsOne(predicate) => count += u64::from(self.flag(predicate)?),
                Fold::Filter(predicate) => {
                    if self.flag(predicate)? {
                        values.push(element);
                    }
                }
                Fold::Map { predicate, value } => {
                    if self.passes(predicate.as_ref())? {
                        let value = self.expr(value)?;
                        self.pay_for_parts(&value)?;
                        values.push(value);
                    }
                }
                Fold::TransformMap { predicate, value } => {
                    if self.passes(predicate.as_ref())? {
                        let value = self.expr(value)?;
                        self.pay_for_parts(&value)?;
                        map.insert(Key::of(&element)?, value);
                    }
                }
                Fold::TransformMapEntry { predicate, value } => {
                    if self.passes(predicate.as_ref())? {
                        let entry = self.expr(value)?;
                        for key in entry.keys().ok_or_else(EvalError::no_such_overload)? {
                            let inner = entry.index(&key)?;
                            let key = Key::of(&key)?;
                            if map.contains_key(&key) {
                                return Err(EvalError::new(format!(
                                    "insert failed: key {key} already exists"
                                )));
                            }
                            map.extend(inner.map(|inner| (key, inner)));
                        }
                    }
                }
            }
        }
        match &of.fold {
            Fold::All(_) => failed.map_or(Ok(Value::Bool(true)), Err),
            Fold::Exists(_) => failed.map_or(Ok(Value::Bool(false)), Err),
            Fold::ExistsOne(_) => Ok(Value::Bool(count == 1)),
            Fold::Filter(_) | Fold::Map { .. } => Ok(Value::List(Arc::new(values))),
            Fold::TransformMap { .. } | Fold::TransformMapEntry { .. } => Ok(Value::Map(Arc::new(map))),
        }
    }

    fn flag(&mut self, predicate: &'r Expr) -> Result<bool, EvalError> {
        match self.expr(predicate)? {
            Value::Bool(flag) => Ok(flag),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn passes(&mut self, predicate: Option<&'r Expr>) -> Result<bool, EvalError> {
        predicate.map_or(Ok(true), |predicate| self.flag(predicate))
    }
}

/// How many values are inside one that an expression made, up to a limit; a document is as large as it is, and counts for nothing.
fn parts(value: &Value, limit: u64) -> u64 {
    let inner: Box<dyn Iterator<Item = &Value>> = match value {
        Value::List(values) => Box::new(values.iter()),
        Value::Map(entries) => Box::new(entries.values()),
        Value::Message(_, fields) => Box::new(fields.values()),
        Value::Optional(Some(inner)) => Box::new(std::iter::once(&**inner)),
        _ => return 0,
    };
    let mut sum = 0;
    for value in inner {
        sum += 1 + parts(value, limit.saturating_sub(sum));
        if sum > limit {
            break;
        }
    }
    sum
}

fn select<'a>(of: &Value<'a>, field: &str, how: Select) -> Evaluated<'a> {
    if let Value::Optional(inner) = of {
        let found = inner.as_ref().and_then(|value| value.field(field));
        return match how {
            Select::Test => Ok(Value::Bool(found.is_some())),
            _ => Ok(Value::Optional(found.map(Arc::new))),
        };
    }
    if !of.has_fields() {
        return Err(EvalError::no_such_overload());
    }
    let found = of.field(field);
    match how {
        // A member that is null is not there, for messages; in a map it is.
        Select::Test if matches!(of, Value::Object(..)) => {
            Ok(Value::Bool(found.is_some_and(|value| !matches!(value, Value::Null))))
        }
        Select::Test => Ok(Value::Bool(found.is_some())),
        Select::Optional => Ok(Value::Optional(found.map(Arc::new))),
        Select::Value => found.ok_or_else(|| EvalError::no_such_key(field)),
    }
}

fn index_of<'a>(of: &Value<'a>, index: &Value<'a>, optional: bool) -> Evaluated<'a> {
    if optional || matches!(of, Value::Optional(_)) {
        let found = match of.index(index) {
            Err(_) if matches!(of, Value::List(_) | Value::Array(..)) => None,
            found => found?,
        };
        return Ok(Value::Optional(found.map(Arc::new)));
    }
    let is_list = matches!(of, Value::List(_) | Value::Array(..));
    of.index(index)?.ok_or_else(|| match Key::of(index) {
        Ok(key) if is_list => EvalError::new(format!("index out of bounds: {key}")),
        Ok(key) => EvalError::no_such_key(key),
        Err(error) => error,
    })
}

fn steps<'a>(range: &Value<'a>, both: bool) -> Result<Steps<'a>, EvalError> {
    if let Some(elements) = range.elements() {
        let numbered = elements.into_iter().zip(0i64..);
        return Ok(match both {
            true => numbered.map(|(element, index)| (Value::Int(index), Some(element))).collect(),
            false => numbered.map(|(element, _)| (element, None)).collect(),
        });
    }
    let keys = range.keys().ok_or_else(EvalError::no_such_overload)?;
    let mut steps = Vec::with_capacity(keys.len());
    for key in keys {
        let value = if both { range.index(&key)? } else { None };
        steps.push((key, value));
    }
    Ok(steps)
}
