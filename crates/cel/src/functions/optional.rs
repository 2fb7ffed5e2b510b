//! Optionals. `or` and `orValue` are evaluated by the evaluator, which leaves the other side alone; they stand here for the checker.

use super::overload;
use crate::error::EvalError;
use crate::function::Ty::{Bool, Optional, Param};
use crate::function::{Cost, Function, Ty};
use crate::value::Value;

const A: Ty = Param(0);

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "hasValue",
        overloads: &[overload!(member (Optional(&A)) -> Bool, Cost::One, |args| match args {
            [Value::Optional(inner)] => Ok(Value::Bool(inner.is_some())),
            _ => Err(EvalError::no_such_overload()),
        })],
    },
    Function {
        name: "optional.none",
        overloads: &[overload!(() -> Optional(&A), Cost::One, |_| Ok(Value::Optional(None)))],
    },
    Function {
        name: "optional.of",
        overloads: &[overload!((A) -> Optional(&A), Cost::One, |args| match args {
            [value] => Ok(Value::some(value.clone())),
            _ => Err(EvalError::no_such_overload()),
        })],
    },
    Function {
        name: "optional.ofNonZeroValue",
        overloads: &[overload!((A) -> Optional(&A), Cost::One, |args| match args {
            [value] if is_zero(value) => Ok(Value::Optional(None)),
            [value] => Ok(Value::some(value.clone())),
            _ => Err(EvalError::no_such_overload()),
        })],
    },
    Function {
        name: "or",
        overloads: &[overload!(member (Optional(&A), Optional(&A)) -> Optional(&A), Cost::One, |_| {
            Err(EvalError::no_such_overload())
        })],
    },
    Function {
        name: "orValue",
        overloads: &[
            overload!(member (Optional(&A), A) -> A, Cost::One, |_| Err(EvalError::no_such_overload())),
        ],
    },
    Function {
        name: "value",
        overloads: &[overload!(member (Optional(&A)) -> A, Cost::One, |args| match args {
            [Value::Optional(Some(value))] => Ok((**value).clone()),
            [Value::Optional(None)] => Err(EvalError::new("optional.none() dereference")),
            _ => Err(EvalError::no_such_overload()),
        })],
    },
];

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Int(number) => *number == 0,
        Value::Uint(number) => *number == 0,
        Value::Double(number) => *number == 0.0,
        Value::Duration(length) => length.is_zero(),
        Value::Optional(inner) => inner.is_none(),
        Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Array(..) | Value::Map(_) => {
            value.size() == 0
        }
        Value::Entries(..) | Value::Object(..) | Value::Message(..) => value.size() == 0,
        _ => false,
    }
}
