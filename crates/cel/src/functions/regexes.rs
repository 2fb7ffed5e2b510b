//! `matches`, `find`, `findAll`. The syntax is RE2's, which the regex crate shares; both are linear in the text.

use regex::{Regex, RegexBuilder};

use super::{int, overload, text};
use crate::error::EvalError;
use crate::function::Ty::{Bool, Int, List, String};
use crate::function::{Cost, Function};
use crate::value::Value;

/// Bytes of a compiled expression, small enough to be compiled at each call.
const SIZE_LIMIT: usize = 1 << 16;

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "find",
        overloads: &[overload!(member (String, String) -> String, Cost::Regex(0, 1), |args| {
            let found = compiled(text(args, 1)?)?.find(text(args, 0)?).map(|found| found.as_str().to_owned());
            Ok(found.unwrap_or_default().into())
        })],
    },
    Function {
        name: "findAll",
        overloads: &[
            overload!(member (String, String) -> List(&String), Cost::Regex(0, 1), |args| find_all(args, -1)),
            overload!(member (String, String, Int) -> List(&String), Cost::Regex(0, 1), |args| {
                find_all(args, int(args, 2)?)
            }),
        ],
    },
    Function {
        name: "matches",
        overloads: &[
            overload!((String, String) -> Bool, Cost::Regex(0, 1), matches),
            overload!(member (String, String) -> Bool, Cost::Regex(0, 1), matches),
        ],
    },
];

fn compiled(pattern: &str) -> Result<Regex, EvalError> {
    RegexBuilder::new(pattern)
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(SIZE_LIMIT)
        .nest_limit(32)
        .build()
        .map_err(|_| EvalError::new(format!("error parsing regexp: `{pattern}`")))
}

fn matches<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(compiled(text(args, 1)?)?.is_match(text(args, 0)?)))
}

fn find_all<'a>(args: &[Value<'a>], limit: i64) -> Result<Value<'a>, EvalError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let pattern = compiled(text(args, 1)?)?;
    let found = pattern.find_iter(text(args, 0)?).take(limit);
    Ok(found.map(|found| Value::from(found.as_str().to_owned())).collect())
}
