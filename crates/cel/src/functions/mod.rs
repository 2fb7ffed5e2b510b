//! The functions that every expression may use: a file a library, a row a function.

mod conversions;
mod lists;
mod net;
mod operators;
mod optional;
mod regexes;
mod semver;
mod sets;
mod strings;
mod text_format;
mod time;
mod url;

pub(crate) use time::{duration, duration_text};

use crate::error::EvalError;
use crate::function::Function;
use crate::value::Value;

/// All of them.
pub(crate) const STANDARD: &[&[Function]] = &[
    conversions::FUNCTIONS,
    lists::FUNCTIONS,
    net::FUNCTIONS,
    operators::FUNCTIONS,
    optional::FUNCTIONS,
    regexes::FUNCTIONS,
    semver::FUNCTIONS,
    sets::FUNCTIONS,
    strings::FUNCTIONS,
    time::FUNCTIONS,
    url::FUNCTIONS,
];

use crate::overload;

/// Bytes of a text that a function makes: as large as an object can be.
const TEXT_LIMIT: usize = 3 << 20;

/// Refuses what would be longer than any text may be.
fn within_limit(bytes: usize) -> Result<(), EvalError> {
    if bytes > TEXT_LIMIT {
        Err(EvalError::new(format!("the text would be longer than {TEXT_LIMIT} bytes")))
    } else {
        Ok(())
    }
}

/// The argument as a string. An overload is only called with what fits it, so that the error is for what cannot happen.
fn text<'v>(args: &'v [Value<'_>], index: usize) -> Result<&'v str, EvalError> {
    match args.get(index) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// The argument as an integer.
fn int(args: &[Value], index: usize) -> Result<i64, EvalError> {
    match args.get(index) {
        Some(Value::Int(number)) => Ok(*number),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// The elements of an argument that is a list.
fn elements<'a>(args: &[Value<'a>], index: usize) -> Result<Vec<Value<'a>>, EvalError> {
    args.get(index).and_then(Value::elements).ok_or_else(EvalError::no_such_overload)
}

/// A library's own value in an argument.
fn opaque<'v, T: 'static>(args: &'v [Value<'_>], index: usize) -> Result<&'v T, EvalError> {
    args.get(index).and_then(Value::as_opaque).ok_or_else(EvalError::no_such_overload)
}
