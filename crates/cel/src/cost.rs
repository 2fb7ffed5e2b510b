//! What an expression may cost, before it runs: by the largest sizes that its variables can have. Units are cel-go's: a look at a field
//! is one, a string is walked ten characters at a time.

use std::collections::HashMap;

use crate::ast::{Comprehension, Expr, Fold, Kind, Select};
use crate::check::Checked;
use crate::env::Env;
use crate::function::Cost;
use crate::types::Type;

pub(crate) const LIST: u64 = 10;
pub(crate) const MAP: u64 = 30;
pub(crate) const MESSAGE: u64 = 40;

/// No bound is known.
pub const UNBOUNDED: u64 = u64::MAX;

/// A least and a most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    pub min: u64,
    pub max: u64,
}

/// How large a value can be: characters of a string, elements of a list, entries of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub max: u64,
    /// Of an element, or a map's value.
    pub element: Option<Box<Sizes>>,
    /// Of a map's key.
    pub key: Option<Box<Sizes>>,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { max: UNBOUNDED, element: None, key: None }
    }
}

impl Sizes {
    /// Of a text, or of anything without parts.
    pub fn most(max: u64) -> Self {
        Self { max, element: None, key: None }
    }

    pub fn list(max: u64, element: Sizes) -> Self {
        Self { max, element: Some(Box::new(element)), key: None }
    }

    pub fn map(max: u64, key: Sizes, value: Sizes) -> Self {
        Self { max, element: Some(Box::new(value)), key: Some(Box::new(key)) }
    }

    fn element(&self) -> Sizes {
        self.element.as_deref().cloned().unwrap_or_default()
    }

    fn join(self, other: Sizes) -> Sizes {
        let both = |one: Option<Box<Sizes>>, two: Option<Box<Sizes>>| match (one, two) {
            (Some(one), Some(two)) => Some(Box::new(one.join(*two))),
            (one, two) => one.or(two),
        };
        Self {
            max: self.max.max(other.max),
            element: both(self.element, other.element),
            key: both(self.key, other.key),
        }
    }
}

impl Estimate {
    fn of(cost: u64) -> Self {
        Self { min: cost, max: cost }
    }

    fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    /// Either of the two happens.
    fn or(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// It happens between none and so many times.
    fn up_to(self, times: u64) -> Self {
        Self { min: 0, max: self.max.saturating_mul(times) }
    }
}

/// A tenth of a size, rounded up.
pub(crate) fn tenth(size: u64) -> u64 {
    if size == UNBOUNDED { UNBOUNDED } else { size.div_ceil(10) }
}

/// What a call costs by the sizes of its arguments.
pub(crate) fn call(cost: Cost, sizes: &[u64]) -> u64 {
    let size = |index: usize| sizes.get(index).copied().unwrap_or(1);
    let sum = |indexes: &[usize]| indexes.iter().fold(0u64, |sum, &index| sum.saturating_add(size(index)));
    match cost {
        Cost::One => 1,
        Cost::Fixed(cost) => cost,
        Cost::Walk(indexes) | Cost::Join(indexes) => tenth(sum(indexes)).max(1),
        Cost::Copy(indexes) => sum(indexes).max(1),
        Cost::Shorter => tenth(size(0).min(size(1))).max(1),
        Cost::Search(text, part) => tenth(size(text)).saturating_mul(tenth(size(part))).max(1),
        Cost::Regex(text, pattern) => {
            tenth(size(text).saturating_add(1)).saturating_mul(size(pattern).div_ceil(4)).max(1)
        }
        Cost::Elements(index) => size(index).max(1),
        Cost::Pairs(one, two) => size(one).saturating_mul(size(two)).max(1),
    }
}

pub(crate) fn estimate(env: &Env, expr: &Expr, checked: &Checked) -> Estimate {
    let mut estimator = Estimator { env, checked, scopes: Vec::new() };
    estimator.expr(expr).0
}

struct Estimator<'e> {
    env: &'e Env,
    checked: &'e Checked,
    scopes: Vec<(String, Sizes)>,
}

/// What a part costs, and how large its value is.
type Seen = (Estimate, Sizes);

impl Estimator<'_> {
    fn expr(&mut self, expr: &Expr) -> Seen {
        match &expr.kind {
            Kind::Literal(value) => (Estimate::default(), Sizes::most(value.size())),
            Kind::Ident(name) => (Estimate::of(1), self.variable(name)),
            Kind::Select { operand, field, how } => {
                let (cost, sizes) = self.expr(operand);
                let sizes =
                    if *how == Select::Test { Sizes::most(1) } else { self.field(operand, field, &sizes) };
                (cost.plus(Estimate::of(1)), sizes)
            }
            Kind::Call { target, function, args } => self.call(expr, target.as_deref(), function, args),
            Kind::List(elements) => {
                let (cost, element) = self.all(elements.iter().map(|(element, _)| element));
                (cost.plus(Estimate::of(LIST)), Sizes::list(elements.len() as u64, element))
            }
            Kind::Map(entries) => {
                let (keys_cost, key) = self.all(entries.iter().map(|(key, _, _)| key));
                let (values_cost, value) = self.all(entries.iter().map(|(_, value, _)| value));
                let cost = keys_cost.plus(values_cost).plus(Estimate::of(MAP));
                (cost, Sizes::map(entries.len() as u64, key, value))
            }
            Kind::Struct { fields, .. } => {
                let (cost, _) = self.all(fields.iter().map(|(_, value, _)| value));
                (cost.plus(Estimate::of(MESSAGE)), Sizes::most(fields.len() as u64))
            }
            Kind::Comprehension(comprehension) => self.comprehension(comprehension),
            Kind::Bind { name, value, body } => {
                let (cost, sizes) = self.expr(value);
                self.scopes.push((name.clone(), sizes));
                let (body_cost, sizes) = self.expr(body);
                self.scopes.pop();
                (cost.plus(body_cost), sizes)
            }
        }
    }

    /// The cost of all together, and the size that fits any of them.
    fn all<'x>(&mut self, exprs: impl Iterator<Item = &'x Expr>) -> Seen {
        let mut cost = Estimate::default();
        let mut sizes: Option<Sizes> = None;
        for expr in exprs {
            let (one, size) = self.expr(expr);
            cost = cost.plus(one);
            sizes = Some(match sizes {
                Some(known) => known.join(size),
                None => size,
            });
        }
        (cost, sizes.unwrap_or_else(|| Sizes::most(0)))
    }

    fn variable(&self, name: &str) -> Sizes {
        let scoped = self.scopes.iter().rev().find(|(known, _)| known == name);
        let declared = || self.env.variables.get(name.trim_start_matches('.'));
        scoped.map_or_else(
            || declared().map(|variable| variable.sizes.clone()).unwrap_or_default(),
            |(_, sizes)| sizes.clone(),
        )
    }

    fn field(&self, operand: &Expr, field: &str, sizes: &Sizes) -> Sizes {
        let of = self.checked.types.get(&operand.id);
        let of = match of {
            Some(Type::Optional(inner)) => Some(&**inner),
            other => other,
        };
        match of {
            Some(Type::Object(object)) => {
                object.fields.get(field).map(|field| field.sizes.clone()).unwrap_or_default()
            }
            _ => sizes.element(),
        }
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, function: &str, args: &[Expr]) -> Seen {
        // Of a qualified function the target is part of the name.
        let is_method = target.is_some_and(|target| self.checked.types.contains_key(&target.id));
        let operands = target.filter(|_| is_method).into_iter().chain(args);
        let seen: Vec<Seen> = operands.map(|operand| self.expr(operand)).collect();
        let costs: Vec<Estimate> = seen.iter().map(|(cost, _)| *cost).collect();
        let all = costs.iter().fold(Estimate::default(), |sum, cost| sum.plus(*cost));
        match (function, seen.as_slice()) {
            ("_&&_" | "_||_", [(one, _), (two, _)]) => {
                (Estimate { min: one.min, max: one.plus(*two).max }, Sizes::most(1))
            }
            ("_?_:_", [(condition, _), (yes, large), (no, larger)]) => {
                (condition.plus(yes.or(*no)), large.clone().join(larger.clone()))
            }
            ("_[_]" | "_[?_]", [(_, of), _]) => (all.plus(Estimate::of(1)), of.element()),
            ("_==_" | "_!=_", [(_, one), (_, two)]) => {
                let [one, two] =
                    [(&args[0], one), (&args[1], two)].map(|(of, sizes)| self.compared(of, sizes));
                (all.plus(Estimate { min: 1, max: call(Cost::Shorter, &[one, two]) }), Sizes::most(1))
            }
            _ => {
                let sizes: Vec<u64> = seen.iter().map(|(_, sizes)| sizes.max).collect();
                let candidates = self.checked.calls.get(&expr.id);
                let overloads = candidates.map(|candidates| candidates.0.to_vec()).unwrap_or_default();
                let costs = overloads.iter().map(|overload| call(overload.cost, &sizes));
                let most = costs.max().unwrap_or(1);
                let joins =
                    overloads.iter().any(|overload| matches!(overload.cost, Cost::Join(_) | Cost::Copy(_)));
                // A text that is made of something else is as long as it likes, for all that cel-go knows.
                let is_made = function == "string" && args.iter().any(|of| !self.is_text(of));
                let size = if is_made {
                    UNBOUNDED
                } else if joins {
                    sizes.iter().fold(0u64, |sum, size| sum.saturating_add(*size))
                } else {
                    seen.first().map_or(1, |(_, sizes)| sizes.max)
                };
                let inner = seen.into_iter().map(|(_, sizes)| sizes).reduce(Sizes::join).unwrap_or_default();
                (all.plus(Estimate { min: 1, max: most }), Sizes { max: size, ..inner })
            }
        }
    }

    fn is_text(&self, expr: &Expr) -> bool {
        matches!(self.checked.types.get(&expr.id), Some(Type::String | Type::Bytes))
    }

    /// How large a side of a comparison is: what has no parts is one, however it was computed.
    fn compared(&self, side: &Expr, sizes: &Sizes) -> u64 {
        match self.checked.types.get(&side.id) {
            Some(
                Type::Bytes
                | Type::Dyn
                | Type::List(_)
                | Type::Map(..)
                | Type::Object(_)
                | Type::Optional(_)
                | Type::String,
            )
            | None => sizes.max,
            Some(_) => 1,
        }
    }

    fn comprehension(&mut self, of: &Comprehension) -> Seen {
        let (range_cost, range) = self.expr(&of.range);
        let is_map = matches!(self.checked.types.get(&of.range.id), Some(Type::Map(..)));
        let key = range.key.as_deref().cloned().unwrap_or_default();
        let depth = self.scopes.len();
        match &of.second {
            Some(second) => {
                let first = if is_map { key.clone() } else { Sizes::most(1) };
                self.scopes.push((of.variable.clone(), first));
                self.scopes.push((second.clone(), range.element()));
            }
            None => {
                let element = if is_map { key.clone() } else { range.element() };
                self.scopes.push((of.variable.clone(), element));
            }
        }
        let parts: HashMap<usize, Seen> =
            of.fold.parts().into_iter().map(|part| (part.id, self.expr(part))).collect();
        self.scopes.truncate(depth);
        let cost_of = |part: &Expr| parts.get(&part.id).map(|(cost, _)| *cost).unwrap_or_default();
        let size_of = |part: &Expr| parts.get(&part.id).map(|(_, sizes)| sizes.clone()).unwrap_or_default();
        let inner =
            of.fold.parts().into_iter().fold(Estimate::default(), |sum, part| sum.plus(cost_of(part)));
        let step = inner.plus(Estimate::of(overhead(&of.fold)));
        let sizes = match &of.fold {
            Fold::All(_) | Fold::Exists(_) | Fold::ExistsOne(_) => Sizes::most(1),
            Fold::Filter(_) => Sizes::list(range.max, if is_map { key } else { range.element() }),
            Fold::Map { value, .. } => Sizes::list(range.max, size_of(value)),
            Fold::TransformMap { value, .. } => Sizes::map(range.max, key, size_of(value)),
            Fold::TransformMapEntry { .. } => Sizes::map(range.max, Sizes::default(), Sizes::default()),
        };
        (range_cost.plus(step.up_to(range.max)).plus(Estimate::of(1)), sizes)
    }
}

/// What one step costs besides its own expressions: the accumulator, the loop's condition, the list that is added.
pub(crate) fn overhead(fold: &Fold) -> u64 {
    match fold {
        Fold::All(_) => 3,
        Fold::Exists(_) => 4,
        Fold::ExistsOne(_) => 2,
        Fold::Filter(_) => 3 + LIST,
        Fold::Map { .. } => 2 + LIST,
        Fold::TransformMap { .. } | Fold::TransformMapEntry { .. } => 2 + MAP,
    }
}
