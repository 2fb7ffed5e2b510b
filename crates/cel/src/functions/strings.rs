//! Strings: the standard functions and cel-go's extension of them. Places are counted in characters.

use super::{elements, int, overload, text, text_format};
use crate::error::EvalError;
use crate::function::Ty::{Bool, Dyn, Int, List, String};
use crate::function::{Cost, Function};
use crate::value::Value;

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "charAt",
        overloads: &[overload!(member (String, Int) -> String, Cost::One, |args| {
            let (text, at) = (text(args, 0)?, int(args, 1)?);
            let length = text.chars().count();
            match usize::try_from(at) {
                Ok(at) if at < length => Ok(text.chars().nth(at).map(std::string::String::from).unwrap_or_default().into()),
                Ok(at) if at == length => Ok("".into()),
                _ => Err(out_of_range(at)),
            }
        })],
    },
    Function {
        name: "contains",
        overloads: &[overload!(member (String, String) -> Bool, Cost::Search(0, 1), |args| {
            Ok(Value::Bool(text(args, 0)?.contains(text(args, 1)?)))
        })],
    },
    Function {
        name: "endsWith",
        overloads: &[overload!(member (String, String) -> Bool, Cost::Walk(&[1]), |args| {
            Ok(Value::Bool(text(args, 0)?.ends_with(text(args, 1)?)))
        })],
    },
    Function {
        name: "format",
        overloads: &[overload!(member (String, List(&Dyn)) -> String, Cost::Join(&[0, 1]), |args| {
            Ok(text_format::format(text(args, 0)?, &elements(args, 1)?)?.into())
        })],
    },
    Function {
        name: "indexOf",
        overloads: &[
            overload!(member (String, String) -> Int, Cost::Search(0, 1), |args| index_of(args, 0)),
            overload!(member (String, String, Int) -> Int, Cost::Search(0, 1), |args| index_of(args, int(args, 2)?)),
        ],
    },
    Function {
        name: "lastIndexOf",
        overloads: &[
            overload!(member (String, String) -> Int, Cost::Search(0, 1), |args| last_index_of(args, None)),
            overload!(member (String, String, Int) -> Int, Cost::Search(0, 1), |args| {
                last_index_of(args, Some(int(args, 2)?))
            }),
        ],
    },
    Function {
        name: "lowerAscii",
        overloads: &[
            overload!(member (String) -> String, Cost::Walk(&[0]), |args| Ok(text(args, 0)?.to_ascii_lowercase().into())),
        ],
    },
    Function {
        name: "replace",
        overloads: &[
            overload!(member (String, String, String) -> String, Cost::Join(&[0, 2]), |args| {
                replace(args, usize::MAX)
            }),
            overload!(member (String, String, String, Int) -> String, Cost::Join(&[0, 2]), |args| {
                replace(args, usize::try_from(int(args, 3)?).unwrap_or(usize::MAX))
            }),
        ],
    },
    Function {
        name: "reverse",
        overloads: &[overload!(member (String) -> String, Cost::Walk(&[0]), |args| {
            Ok(text(args, 0)?.chars().rev().collect::<std::string::String>().into())
        })],
    },
    Function {
        name: "split",
        overloads: &[
            overload!(member (String, String) -> List(&String), Cost::Walk(&[0]), |args| split(args, -1)),
            overload!(member (String, String, Int) -> List(&String), Cost::Walk(&[0]), |args| split(args, int(args, 2)?)),
        ],
    },
    Function {
        name: "startsWith",
        overloads: &[overload!(member (String, String) -> Bool, Cost::Walk(&[1]), |args| {
            Ok(Value::Bool(text(args, 0)?.starts_with(text(args, 1)?)))
        })],
    },
    Function {
        name: "strings.quote",
        overloads: &[
            overload!((String) -> String, Cost::Walk(&[0]), |args| Ok(text_format::quote(text(args, 0)?).into())),
        ],
    },
    Function {
        name: "substring",
        overloads: &[
            overload!(member (String, Int) -> String, Cost::Walk(&[0]), |args| substring(args, None)),
            overload!(member (String, Int, Int) -> String, Cost::Walk(&[0]), |args| substring(args, Some(int(args, 2)?))),
        ],
    },
    Function {
        name: "trim",
        overloads: &[
            overload!(member (String) -> String, Cost::Walk(&[0]), |args| Ok(text(args, 0)?.trim().to_owned().into())),
        ],
    },
    Function {
        name: "upperAscii",
        overloads: &[
            overload!(member (String) -> String, Cost::Walk(&[0]), |args| Ok(text(args, 0)?.to_ascii_uppercase().into())),
        ],
    },
];

fn out_of_range(at: i64) -> EvalError {
    EvalError::new(format!("index out of range: {at}"))
}

fn place<'a>(found: Option<usize>) -> Value<'a> {
    Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

fn index_of<'a>(args: &[Value<'a>], from: i64) -> Result<Value<'a>, EvalError> {
    let all: Vec<char> = text(args, 0)?.chars().collect();
    let part: Vec<char> = text(args, 1)?.chars().collect();
    let from =
        usize::try_from(from).ok().filter(|from| *from <= all.len()).ok_or_else(|| out_of_range(from))?;
    if part.is_empty() {
        return Ok(place(Some(from)));
    }
    Ok(place(all[from..].windows(part.len()).position(|window| window == part).map(|at| at + from)))
}

fn last_index_of<'a>(args: &[Value<'a>], until: Option<i64>) -> Result<Value<'a>, EvalError> {
    let all: Vec<char> = text(args, 0)?.chars().collect();
    let part: Vec<char> = text(args, 1)?.chars().collect();
    let last = match until {
        None => all.len(),
        Some(until) => usize::try_from(until)
            .ok()
            .filter(|until| *until <= all.len())
            .ok_or_else(|| out_of_range(until))?,
    };
    if part.is_empty() {
        return Ok(place(Some(last)));
    }
    let found = all.windows(part.len()).enumerate().filter(|(at, window)| *at <= last && *window == part);
    Ok(place(found.map(|(at, _)| at).max()))
}

fn replace<'a>(args: &[Value<'a>], times: usize) -> Result<Value<'a>, EvalError> {
    let (all, what, with) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    let found = all.matches(what).take(times).count();
    super::within_limit(all.len().saturating_add(found.saturating_mul(with.len())))?;
    Ok(all.replacen(what, with, times).into())
}

fn split<'a>(args: &[Value<'a>], limit: i64) -> Result<Value<'a>, EvalError> {
    let (text, between) = (text(args, 0)?, text(args, 1)?);
    let owned = |part: &str| Value::from(part.to_owned());
    Ok(match usize::try_from(limit) {
        Ok(0) => Vec::new().into_iter().collect(),
        Ok(limit) if between.is_empty() => pieces(text, limit).into_iter().collect(),
        Err(_) if between.is_empty() => pieces(text, usize::MAX).into_iter().collect(),
        Ok(limit) => text.splitn(limit, between).map(owned).collect(),
        Err(_) => text.split(between).map(owned).collect(),
    })
}

/// Characters; what is over the limit stays together in the last one.
fn pieces<'a>(text: &str, limit: usize) -> Vec<Value<'a>> {
    let mut parts: Vec<std::string::String> = Vec::new();
    for c in text.chars() {
        let is_full = parts.len() == limit;
        match parts.last_mut() {
            Some(last) if is_full => last.push(c),
            _ => parts.push(c.into()),
        }
    }
    parts.into_iter().map(Value::from).collect()
}

fn substring<'a>(args: &[Value<'a>], end: Option<i64>) -> Result<Value<'a>, EvalError> {
    let (all, start) = (text(args, 0)?, int(args, 1)?);
    let length = all.chars().count();
    let bound = |at: i64| usize::try_from(at).ok().filter(|at| *at <= length).ok_or_else(|| out_of_range(at));
    let from = bound(start)?;
    let until = end.map_or(Ok(length), bound)?;
    if from > until {
        return Err(EvalError::new(format!("invalid substring range. start: {from}, end: {until}")));
    }
    Ok(all.chars().skip(from).take(until - from).collect::<std::string::String>().into())
}
