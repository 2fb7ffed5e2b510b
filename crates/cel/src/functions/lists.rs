//! Kubernetes' list library, and `join`, `flatten`-like everyday functions of cel-go's.
//! <https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-list-library>

use std::cmp::Ordering;

use super::{elements, overload};
use crate::error::EvalError;
use crate::function::Ty::{Bool, Double, Duration, Int, List, Param, String, Uint};
use crate::function::{Cost, Function, Ty};
use crate::value::Value;

const A: Ty = Param(0);

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "indexOf",
        overloads: &[overload!(member (List(&A), A) -> Int, Cost::Elements(0), |args| {
            let list = elements(args, 0)?;
            Ok(place(list.iter().position(|element| args.get(1).is_some_and(|wanted| element.equals(wanted)))))
        })],
    },
    Function {
        name: "isSorted",
        overloads: &[overload!(member (List(&A)) -> Bool, Cost::Elements(0), |args| {
            let list = elements(args, 0)?;
            for pair in list.windows(2) {
                match pair[0].order(&pair[1]) {
                    Some(Ordering::Greater) => return Ok(Value::Bool(false)),
                    Some(_) => {}
                    None => return Err(EvalError::no_such_overload()),
                }
            }
            Ok(Value::Bool(true))
        })],
    },
    Function {
        name: "lastIndexOf",
        overloads: &[overload!(member (List(&A), A) -> Int, Cost::Elements(0), |args| {
            let list = elements(args, 0)?;
            Ok(place(list.iter().rposition(|element| args.get(1).is_some_and(|wanted| element.equals(wanted)))))
        })],
    },
    Function {
        name: "max",
        overloads: &[
            overload!(member (List(&A)) -> A, Cost::Elements(0), |args| extreme(args, Ordering::Greater, "max")),
        ],
    },
    Function {
        name: "min",
        overloads: &[
            overload!(member (List(&A)) -> A, Cost::Elements(0), |args| extreme(args, Ordering::Less, "min")),
        ],
    },
    Function {
        name: "sum",
        overloads: &[
            overload!(member (List(&Int)) -> Int, Cost::Elements(0), |args| sum(args, Value::Int(0))),
            overload!(member (List(&Uint)) -> Uint, Cost::Elements(0), |args| sum(args, Value::Uint(0))),
            overload!(member (List(&Double)) -> Double, Cost::Elements(0), |args| sum(args, Value::Double(0.0))),
            overload!(member (List(&Duration)) -> Duration, Cost::Elements(0), |args| {
                sum(args, Value::Duration(jiff::SignedDuration::ZERO))
            }),
        ],
    },
    Function {
        name: "join",
        overloads: &[
            overload!(member (List(&String)) -> String, Cost::Join(&[0]), |args| join(args, "")),
            overload!(member (List(&String), String) -> String, Cost::Join(&[0, 1]), |args| join(args, super::text(args, 1)?)),
        ],
    },
];

fn place<'a>(found: Option<usize>) -> Value<'a> {
    Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

fn extreme<'a>(args: &[Value<'a>], wanted: Ordering, name: &str) -> Result<Value<'a>, EvalError> {
    let mut best: Option<Value> = None;
    for element in elements(args, 0)? {
        best = match best {
            None => Some(element),
            Some(known) => match element.order(&known) {
                None => return Err(EvalError::no_such_overload()),
                Some(order) if order == wanted => Some(element),
                Some(_) => Some(known),
            },
        };
    }
    best.ok_or_else(|| EvalError::new(format!("{name} called on empty list")))
}

/// Overloads differ by what the list holds, which an empty list does not tell: then the first of them answers, with a zero.
fn sum<'a>(args: &[Value<'a>], zero: Value<'a>) -> Result<Value<'a>, EvalError> {
    let list = elements(args, 0)?;
    let zero = match list.first() {
        Some(Value::Uint(_)) => Value::Uint(0),
        Some(Value::Double(_)) => Value::Double(0.0),
        Some(Value::Duration(_)) => Value::Duration(jiff::SignedDuration::ZERO),
        _ => zero,
    };
    list.into_iter().try_fold(zero, |sum, element| super::operators::plus(&[sum, element]))
}

fn join<'a>(args: &[Value<'a>], between: &str) -> Result<Value<'a>, EvalError> {
    let mut parts = Vec::new();
    for element in elements(args, 0)? {
        match element {
            Value::String(text) => parts.push(text.to_string()),
            _ => return Err(EvalError::no_such_overload()),
        }
    }
    let length = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len() + between.len()));
    super::within_limit(length)?;
    Ok(parts.join(between).into())
}
