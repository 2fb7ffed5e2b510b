//! `int()`, `string()`, `size()`, …

use jiff::Timestamp as Instant;

use super::{overload, text};
use crate::error::EvalError;
use crate::function::Ty::{
    Bool, Bytes, Double, Duration, Dyn, Int, List, Map, Param, String, Timestamp, Type, Uint,
};
use crate::function::{Cost, Function, Overload, Ty};
use crate::value::Value;

const A: Ty = Param(0);
const B: Ty = Param(1);

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "bool",
        overloads: &[
            overload!((Bool) -> Bool, Cost::One, same),
            overload!((String) -> Bool, Cost::One, |args| match text(args, 0)? {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
                _ => Err(EvalError::new("type conversion error from 'string' to 'bool'")),
            }),
        ],
    },
    Function {
        name: "bytes",
        overloads: &[
            overload!((Bytes) -> Bytes, Cost::One, same),
            overload!((String) -> Bytes, Cost::Walk(&[0]), |args| Ok(Value::Bytes(text(args, 0)?.as_bytes().into()))),
        ],
    },
    Function {
        name: "double",
        overloads: &[
            overload!((Double) -> Double, Cost::One, to_double),
            overload!((Int) -> Double, Cost::One, to_double),
            overload!((Uint) -> Double, Cost::One, to_double),
            overload!((String) -> Double, Cost::One, to_double),
        ],
    },
    Function {
        name: "duration",
        overloads: &[
            overload!((Duration) -> Duration, Cost::One, same),
            overload!((String) -> Duration, Cost::One, |args| {
                let read = super::duration(text(args, 0)?);
                read.map(Value::Duration)
                    .ok_or_else(|| EvalError::new("type conversion error from 'string' to 'google.protobuf.Duration'"))
            }),
        ],
    },
    Function { name: "dyn", overloads: &[overload!((A) -> Dyn, Cost::One, same)] },
    Function {
        name: "int",
        overloads: &[
            overload!((Int) -> Int, Cost::One, to_int),
            overload!((Uint) -> Int, Cost::One, to_int),
            overload!((Double) -> Int, Cost::One, to_int),
            overload!((String) -> Int, Cost::One, to_int),
            overload!((Timestamp) -> Int, Cost::One, to_int),
        ],
    },
    Function { name: "size", overloads: SIZE },
    Function {
        name: "string",
        overloads: &[
            overload!((String) -> String, Cost::One, same),
            overload!((Bool) -> String, Cost::One, to_string),
            overload!((Int) -> String, Cost::One, to_string),
            overload!((Uint) -> String, Cost::One, to_string),
            overload!((Double) -> String, Cost::One, to_string),
            overload!((Bytes) -> String, Cost::Walk(&[0]), to_string),
            overload!((Timestamp) -> String, Cost::One, to_string),
            overload!((Duration) -> String, Cost::One, to_string),
            overload!((Ty::Opaque("net.IP")) -> String, Cost::One, to_string),
            overload!((Ty::Opaque("net.CIDR")) -> String, Cost::One, to_string),
        ],
    },
    Function {
        name: "timestamp",
        overloads: &[
            overload!((Timestamp) -> Timestamp, Cost::One, same),
            overload!((Int) -> Timestamp, Cost::One, to_timestamp),
            overload!((String) -> Timestamp, Cost::One, to_timestamp),
        ],
    },
    Function {
        name: "type",
        overloads: &[overload!((A) -> Type, Cost::One, |args| match args {
            [value] => Ok(Value::Type(value.type_name())),
            _ => Err(EvalError::no_such_overload()),
        })],
    },
    Function {
        name: "uint",
        overloads: &[
            overload!((Uint) -> Uint, Cost::One, to_uint),
            overload!((Int) -> Uint, Cost::One, to_uint),
            overload!((Double) -> Uint, Cost::One, to_uint),
            overload!((String) -> Uint, Cost::One, to_uint),
        ],
    },
];

const SIZE: &[Overload] = &[
    overload!((String) -> Int, Cost::One, size),
    overload!((Bytes) -> Int, Cost::One, size),
    overload!((List(&A)) -> Int, Cost::One, size),
    overload!((Map(&A, &B)) -> Int, Cost::One, size),
    overload!(member (String) -> Int, Cost::One, size),
    overload!(member (Bytes) -> Int, Cost::One, size),
    overload!(member (List(&A)) -> Int, Cost::One, size),
    overload!(member (Map(&A, &B)) -> Int, Cost::One, size),
];

fn size<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let [value] = args else { return Err(EvalError::no_such_overload()) };
    Ok(Value::Int(i64::try_from(value.size()).unwrap_or(i64::MAX)))
}

fn same<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    args.first().cloned().ok_or_else(EvalError::no_such_overload)
}

fn out_of_range(of: &str) -> EvalError {
    EvalError::new(format!("{of} overflow"))
}

fn unreadable(from: &str, to: &str) -> EvalError {
    EvalError::new(format!("type conversion error from '{from}' to '{to}'"))
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn to_int<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let number = match args {
        [Value::Int(number)] => *number,
        [Value::Uint(number)] => i64::try_from(*number).map_err(|_| out_of_range("integer"))?,
        [Value::Double(number)] if number.abs() < 9_223_372_036_854_775_807.0 => *number as i64,
        [Value::Double(_)] => return Err(out_of_range("integer")),
        [Value::String(text)] => text.parse().map_err(|_| unreadable("string", "int"))?,
        [Value::Timestamp(at)] => at.as_second(),
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(Value::Int(number))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
fn to_uint<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let number = match args {
        [Value::Uint(number)] => *number,
        [Value::Int(number)] => u64::try_from(*number).map_err(|_| out_of_range("unsigned integer"))?,
        [Value::Double(number)] if (0.0..18_446_744_073_709_551_615.0).contains(number) => *number as u64,
        [Value::Double(_)] => return Err(out_of_range("unsigned integer")),
        [Value::String(text)] => text.parse().map_err(|_| unreadable("string", "uint"))?,
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(Value::Uint(number))
}

#[expect(clippy::cast_precision_loss, reason = "that is what the conversion means")]
fn to_double<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let number = match args {
        [Value::Double(number)] => *number,
        [Value::Int(number)] => *number as f64,
        [Value::Uint(number)] => *number as f64,
        [Value::String(text)] => text.parse().map_err(|_| unreadable("string", "double"))?,
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(Value::Double(number))
}

fn to_string<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let [value] = args else { return Err(EvalError::no_such_overload()) };
    let text = match value {
        Value::Bytes(bytes) => std::str::from_utf8(bytes)
            .map_err(|_| EvalError::new("invalid UTF-8 in bytes, cannot convert to string"))?
            .to_owned(),
        other => super::text_format::plain(other).ok_or_else(EvalError::no_such_overload)?,
    };
    Ok(text.into())
}

fn to_timestamp<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let at = match args {
        [Value::Int(seconds)] => Instant::from_second(*seconds).map_err(|_| out_of_range("timestamp"))?,
        [Value::String(text)] => {
            text.parse().map_err(|_| unreadable("string", "google.protobuf.Timestamp"))?
        }
        _ => return Err(EvalError::no_such_overload()),
    };
    Ok(Value::Timestamp(at))
}
