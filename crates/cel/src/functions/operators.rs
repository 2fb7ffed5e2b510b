//! Operators, by cel-go's names. `&&`, `||`, `?:`, `==`, `!=` and indexing are the evaluator's own; the first two stand here for the checker.

use std::cmp::Ordering;
use std::sync::Arc;

use super::overload;
use crate::error::EvalError;
use crate::function::Ty::{Bool, Bytes, Double, Duration, Int, List, Map, Param, String, Timestamp, Uint};
use crate::function::{Cost, Function, Overload, Ty};
use crate::value::Value;

const A: Ty = Param(0);
const B: Ty = Param(1);

pub const FUNCTIONS: &[Function] = &[
    Function { name: "!_", overloads: &[overload!((Bool) -> Bool, Cost::One, not)] },
    Function {
        name: "-_",
        overloads: &[
            overload!((Int) -> Int, Cost::One, negate),
            overload!((Double) -> Double, Cost::One, negate),
        ],
    },
    Function { name: "@in", overloads: IN },
    Function {
        name: "_%_",
        overloads: &[
            overload!((Int, Int) -> Int, Cost::One, rest),
            overload!((Uint, Uint) -> Uint, Cost::One, rest),
        ],
    },
    Function { name: "_&&_", overloads: LOGIC },
    Function { name: "_*_", overloads: &number_overloads(times) },
    Function { name: "_+_", overloads: PLUS },
    Function { name: "_-_", overloads: MINUS },
    Function { name: "_/_", overloads: &number_overloads(divided) },
    Function { name: "_<=_", overloads: &ordered(|args| compare(args, |order| order.is_le())) },
    Function { name: "_<_", overloads: &ordered(|args| compare(args, |order| order.is_lt())) },
    Function { name: "_>=_", overloads: &ordered(|args| compare(args, |order| order.is_ge())) },
    Function { name: "_>_", overloads: &ordered(|args| compare(args, |order| order.is_gt())) },
    Function { name: "_||_", overloads: LOGIC },
];

type Pure = for<'a> fn(&[Value<'a>]) -> Result<Value<'a>, EvalError>;

const LOGIC: &[Overload] =
    &[overload!((Bool, Bool) -> Bool, Cost::One, |_| Err(EvalError::no_such_overload()))];

const fn number_overloads(call: Pure) -> [Overload; 3] {
    [
        overload!((Int, Int) -> Int, Cost::One, call),
        overload!((Uint, Uint) -> Uint, Cost::One, call),
        overload!((Double, Double) -> Double, Cost::One, call),
    ]
}

const IN: &[Overload] = &[
    overload!((A, List(&A)) -> Bool, Cost::Elements(1), |args| {
        let [wanted, list] = args else { return Err(EvalError::no_such_overload()) };
        let elements = list.elements().ok_or_else(EvalError::no_such_overload)?;
        Ok(Value::Bool(elements.iter().any(|element| element.equals(wanted))))
    }),
    overload!((A, Map(&A, &B)) -> Bool, Cost::One, |args| {
        let [wanted, map] = args else { return Err(EvalError::no_such_overload()) };
        Ok(Value::Bool(map.index(wanted)?.is_some()))
    }),
];

const PLUS: &[Overload] = &[
    overload!((Int, Int) -> Int, Cost::One, plus),
    overload!((Uint, Uint) -> Uint, Cost::One, plus),
    overload!((Double, Double) -> Double, Cost::One, plus),
    overload!((String, String) -> String, Cost::Join(&[0, 1]), plus),
    overload!((Bytes, Bytes) -> Bytes, Cost::Join(&[0, 1]), plus),
    overload!((List(&A), List(&A)) -> List(&A), Cost::Copy(&[0, 1]), plus),
    overload!((Timestamp, Duration) -> Timestamp, Cost::One, plus),
    overload!((Duration, Timestamp) -> Timestamp, Cost::One, plus),
    overload!((Duration, Duration) -> Duration, Cost::One, plus),
];

const MINUS: &[Overload] = &[
    overload!((Int, Int) -> Int, Cost::One, minus),
    overload!((Uint, Uint) -> Uint, Cost::One, minus),
    overload!((Double, Double) -> Double, Cost::One, minus),
    overload!((Timestamp, Timestamp) -> Duration, Cost::One, minus),
    overload!((Timestamp, Duration) -> Timestamp, Cost::One, minus),
    overload!((Duration, Duration) -> Duration, Cost::One, minus),
];

/// Everything that has an order, and numbers of different types among each other.
const fn ordered(call: Pure) -> [Overload; 14] {
    [
        overload!((Bool, Bool) -> Bool, Cost::One, call),
        overload!((Int, Int) -> Bool, Cost::One, call),
        overload!((Int, Double) -> Bool, Cost::One, call),
        overload!((Int, Uint) -> Bool, Cost::One, call),
        overload!((Uint, Uint) -> Bool, Cost::One, call),
        overload!((Uint, Double) -> Bool, Cost::One, call),
        overload!((Uint, Int) -> Bool, Cost::One, call),
        overload!((Double, Double) -> Bool, Cost::One, call),
        overload!((Double, Int) -> Bool, Cost::One, call),
        overload!((Double, Uint) -> Bool, Cost::One, call),
        overload!((String, String) -> Bool, Cost::Shorter, call),
        overload!((Bytes, Bytes) -> Bool, Cost::Shorter, call),
        overload!((Timestamp, Timestamp) -> Bool, Cost::One, call),
        overload!((Duration, Duration) -> Bool, Cost::One, call),
    ]
}

fn compare<'a>(args: &[Value<'a>], fits: fn(Ordering) -> bool) -> Result<Value<'a>, EvalError> {
    let [one, two] = args else { return Err(EvalError::no_such_overload()) };
    match (one.order(two), one, two) {
        (Some(order), _, _) => Ok(Value::Bool(fits(order))),
        // Not a number: neither less nor more.
        (None, Value::Double(_), _) | (None, _, Value::Double(_)) => Ok(Value::Bool(false)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn overflow(of: &str) -> EvalError {
    EvalError::new(format!("{of} overflow"))
}

fn not<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match args {
        [Value::Bool(flag)] => Ok(Value::Bool(!flag)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn negate<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match args {
        [Value::Int(number)] => number.checked_neg().map(Value::Int).ok_or_else(|| overflow("integer")),
        [Value::Double(number)] => Ok(Value::Double(-number)),
        _ => Err(EvalError::no_such_overload()),
    }
}

pub(super) fn plus<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let [one, two] = args else { return Err(EvalError::no_such_overload()) };
    Ok(match (one, two) {
        (Value::Int(one), Value::Int(two)) => {
            Value::Int(one.checked_add(*two).ok_or_else(|| overflow("integer"))?)
        }
        (Value::Uint(one), Value::Uint(two)) => {
            Value::Uint(one.checked_add(*two).ok_or_else(|| overflow("unsigned integer"))?)
        }
        (Value::Double(one), Value::Double(two)) => Value::Double(one + two),
        (Value::String(one), Value::String(two)) => format!("{}{}", &**one, &**two).into(),
        (Value::Bytes(one), Value::Bytes(two)) => Value::Bytes([&**one, &**two].concat().into()),
        (Value::Timestamp(at), Value::Duration(length)) | (Value::Duration(length), Value::Timestamp(at)) => {
            Value::Timestamp(at.checked_add(*length).map_err(|_| overflow("timestamp"))?)
        }
        (Value::Duration(one), Value::Duration(two)) => {
            Value::Duration(one.checked_add(*two).ok_or_else(|| overflow("duration"))?)
        }
        _ => {
            let mut all = one.elements().ok_or_else(EvalError::no_such_overload)?;
            all.extend(two.elements().ok_or_else(EvalError::no_such_overload)?);
            Value::List(Arc::new(all))
        }
    })
}

fn minus<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let [one, two] = args else { return Err(EvalError::no_such_overload()) };
    Ok(match (one, two) {
        (Value::Int(one), Value::Int(two)) => {
            Value::Int(one.checked_sub(*two).ok_or_else(|| overflow("integer"))?)
        }
        (Value::Uint(one), Value::Uint(two)) => {
            Value::Uint(one.checked_sub(*two).ok_or_else(|| overflow("unsigned integer"))?)
        }
        (Value::Double(one), Value::Double(two)) => Value::Double(one - two),
        (Value::Timestamp(one), Value::Timestamp(two)) => Value::Duration(one.duration_since(*two)),
        (Value::Timestamp(at), Value::Duration(length)) => {
            Value::Timestamp(at.checked_sub(*length).map_err(|_| overflow("timestamp"))?)
        }
        (Value::Duration(one), Value::Duration(two)) => {
            Value::Duration(one.checked_sub(*two).ok_or_else(|| overflow("duration"))?)
        }
        _ => return Err(EvalError::no_such_overload()),
    })
}

fn times<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match args {
        [Value::Int(one), Value::Int(two)] => {
            one.checked_mul(*two).map(Value::Int).ok_or_else(|| overflow("integer"))
        }
        [Value::Uint(one), Value::Uint(two)] => {
            one.checked_mul(*two).map(Value::Uint).ok_or_else(|| overflow("unsigned integer"))
        }
        [Value::Double(one), Value::Double(two)] => Ok(Value::Double(one * two)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn divided<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            Err(EvalError::new("division by zero"))
        }
        [Value::Int(one), Value::Int(two)] => {
            one.checked_div(*two).map(Value::Int).ok_or_else(|| overflow("integer"))
        }
        [Value::Uint(one), Value::Uint(two)] => Ok(Value::Uint(one / two)),
        [Value::Double(one), Value::Double(two)] => Ok(Value::Double(one / two)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn rest<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
            Err(EvalError::new("modulus by zero"))
        }
        [Value::Int(one), Value::Int(two)] => {
            one.checked_rem(*two).map(Value::Int).ok_or_else(|| overflow("integer"))
        }
        [Value::Uint(one), Value::Uint(two)] => Ok(Value::Uint(one % two)),
        _ => Err(EvalError::no_such_overload()),
    }
}
