//! Kubernetes' semantic versions. <https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-semver-library>

use std::any::Any;
use std::cmp::Ordering;

use super::{opaque, overload, text};
use crate::error::EvalError;
use crate::function::Ty::{Bool, Int, Opaque as Of, String};
use crate::function::{Cost, Function, Ty};
use crate::value::{Opaque, Value};

const SEMVER: Ty = Of("kubernetes.Semver");

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "compareTo",
        overloads: &[overload!(member (SEMVER, SEMVER) -> Int, Cost::One, |args| {
            Ok(Value::Int(order(args)? as i64))
        })],
    },
    Function {
        name: "isGreaterThan",
        overloads: &[
            overload!(member (SEMVER, SEMVER) -> Bool, Cost::One, |args| Ok(Value::Bool(order(args)?.is_gt()))),
        ],
    },
    Function {
        name: "isLessThan",
        overloads: &[
            overload!(member (SEMVER, SEMVER) -> Bool, Cost::One, |args| Ok(Value::Bool(order(args)?.is_lt()))),
        ],
    },
    Function {
        name: "isSemver",
        overloads: &[
            overload!((String) -> Bool, Cost::Walk(&[0]), |args| Ok(Value::Bool(Semver::read(text(args, 0)?).is_some()))),
            overload!((String, Bool) -> Bool, Cost::Walk(&[0]), |args| {
                Ok(Value::Bool(Semver::read(&normalized(args)?).is_some()))
            }),
        ],
    },
    Function {
        name: "major",
        overloads: &[overload!(member (SEMVER) -> Int, Cost::One, |args| number(args, 0))],
    },
    Function {
        name: "minor",
        overloads: &[overload!(member (SEMVER) -> Int, Cost::One, |args| number(args, 1))],
    },
    Function {
        name: "patch",
        overloads: &[overload!(member (SEMVER) -> Int, Cost::One, |args| number(args, 2))],
    },
    Function {
        name: "semver",
        overloads: &[
            overload!((String) -> SEMVER, Cost::Walk(&[0]), |args| version(text(args, 0)?)),
            overload!((String, Bool) -> SEMVER, Cost::Walk(&[0]), |args| version(&normalized(args)?)),
        ],
    },
];

/// `1.2.3-rc.1+build`: the build counts for nothing.
#[derive(Debug, PartialEq)]
struct Semver {
    numbers: [u64; 3],
    pre: Vec<std::string::String>,
    build: std::string::String,
}

impl Opaque for Semver {
    fn type_name(&self) -> &'static str {
        "kubernetes.Semver"
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| self.order(other).is_eq())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Semver {
    fn read(text: &str) -> Option<Self> {
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let numbers: Vec<u64> = core.split('.').map(plain_number).collect::<Option<_>>()?;
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let pre: Vec<_> = pre.map(|pre| pre.split('.').map(str::to_owned).collect()).unwrap_or_default();
        let is_plain =
            |word: &str| !word.bytes().all(|byte| byte.is_ascii_digit()) || plain_number(word).is_some();
        if !pre.iter().all(|word| is_word(word) && is_plain(word))
            || !build.is_none_or(|build| build.split('.').all(is_word))
        {
            return None;
        }
        Some(Self { numbers: numbers.try_into().ok()?, pre, build: build.unwrap_or_default().to_owned() })
    }

    fn order(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let words = self.pre.iter().zip(&other.pre).map(|(one, two)| word_order(one, two));
                words.fold(Ordering::Equal, Ordering::then).then(self.pre.len().cmp(&other.pre.len()))
            }
        })
    }
}

/// Numbers before words, numbers by value, words by letters.
fn word_order(one: &str, two: &str) -> Ordering {
    match (one.parse::<u64>(), two.parse::<u64>()) {
        (Ok(one), Ok(two)) => one.cmp(&two),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => one.cmp(two),
    }
}

/// Digits without leading zeros.
fn plain_number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_plain { text.parse().ok() } else { None }
}

/// With the second argument true, `v1.2` and `01.2.3` are read as `1.2.0` and `1.2.3`.
fn normalized(args: &[Value]) -> Result<std::string::String, EvalError> {
    let text = text(args, 0)?;
    if !matches!(args.get(1), Some(Value::Bool(true))) {
        return Ok(text.to_owned());
    }
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (core, rest) = text.split_at(end);
    let mut numbers: Vec<&str> = core
        .split('.')
        .map(|number| match number.trim_start_matches('0') {
            "" if !number.is_empty() => "0",
            trimmed => trimmed,
        })
        .collect();
    while numbers.len() < 3 {
        numbers.push("0");
    }
    Ok(format!("{}{rest}", numbers.join(".")))
}

fn version<'a>(text: &str) -> Result<Value<'a>, EvalError> {
    let read = Semver::read(text).map(Value::opaque);
    read.ok_or_else(|| EvalError::new(format!("no Major.Minor.Patch elements found in {text:?}")))
}

fn order(args: &[Value]) -> Result<Ordering, EvalError> {
    Ok(opaque::<Semver>(args, 0)?.order(opaque(args, 1)?))
}

fn number<'a>(args: &[Value<'a>], index: usize) -> Result<Value<'a>, EvalError> {
    Ok(Value::Int(i64::try_from(opaque::<Semver>(args, 0)?.numbers[index]).unwrap_or(i64::MAX)))
}
