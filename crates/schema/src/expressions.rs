//! What expressions may say in Kubernetes besides CEL's own: quantities and named formats.
//! <https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-quantity-library>

use std::any::Any;
use std::cmp::Ordering;

use cel::Ty::{Bool, Double, Int, List, Opaque as Of, Optional, String};
use cel::{Cost, EvalError, Function, Opaque, Ty, Value, overload};

use crate::names;
use crate::quantity::Quantity;

const QUANTITY: Ty = Of("kubernetes.Quantity");
const FORMAT: Ty = Of("kubernetes.NamedFormat");

/// A constant function that gives the format of a name.
macro_rules! named {
    ($name:literal) => {
        [overload!(() -> FORMAT, Cost::One, |_| Ok(Value::opaque(Format($name))))]
    };
}
/// The functions, for [`cel::Env::library`].
pub const LIBRARY: &[Function] = &[
    Function {
        name: "add",
        overloads: &[
            overload!(member (QUANTITY, QUANTITY) -> QUANTITY, Cost::One, |args| Ok(made(read(args, 0)? + read(args, 1)?))),
            overload!(member (QUANTITY, Int) -> QUANTITY, Cost::One, |args| Ok(made(read(args, 0)? + whole(args, 1)?))),
        ],
    },
    Function {
        name: "asApproximateFloat",
        overloads: &[
            overload!(member (QUANTITY) -> Double, Cost::One, |args| Ok(Value::Double(read(args, 0)?.as_f64()))),
        ],
    },
    Function {
        name: "asInteger",
        overloads: &[overload!(member (QUANTITY) -> Int, Cost::One, |args| {
            integer(read(args, 0)?)
                .map(Value::Int)
                .ok_or_else(|| EvalError::new("cannot convert value to integer"))
        })],
    },
    Function {
        name: "compareTo",
        overloads: &[
            overload!(member (QUANTITY, QUANTITY) -> Int, Cost::One, |args| Ok(Value::Int(order(args)? as i64))),
        ],
    },
    Function { name: "format.byte", overloads: &named!("byte") },
    Function { name: "format.date", overloads: &named!("date") },
    Function { name: "format.datetime", overloads: &named!("datetime") },
    Function { name: "format.dns1035Label", overloads: &named!("dns1035Label") },
    Function { name: "format.dns1035LabelPrefix", overloads: &named!("dns1035LabelPrefix") },
    Function { name: "format.dns1123Label", overloads: &named!("dns1123Label") },
    Function { name: "format.dns1123LabelPrefix", overloads: &named!("dns1123LabelPrefix") },
    Function { name: "format.dns1123Subdomain", overloads: &named!("dns1123Subdomain") },
    Function { name: "format.dns1123SubdomainPrefix", overloads: &named!("dns1123SubdomainPrefix") },
    Function { name: "format.labelValue", overloads: &named!("labelValue") },
    Function {
        name: "format.named",
        overloads: &[overload!((String) -> Optional(&FORMAT), Cost::One, |args| {
            let known = FORMATS.iter().find(|(name, _)| matches!(args, [Value::String(asked)] if **asked == **name));
            Ok(known.map_or(Value::Optional(None), |(name, _)| Value::some(Value::opaque(Format(name)))))
        })],
    },
    Function { name: "format.qualifiedName", overloads: &named!("qualifiedName") },
    Function { name: "format.uri", overloads: &named!("uri") },
    Function { name: "format.uuid", overloads: &named!("uuid") },
    Function {
        name: "isGreaterThan",
        overloads: &[
            overload!(member (QUANTITY, QUANTITY) -> Bool, Cost::One, |args| Ok(Value::Bool(order(args)?.is_gt()))),
        ],
    },
    Function {
        name: "isInteger",
        overloads: &[
            overload!(member (QUANTITY) -> Bool, Cost::One, |args| Ok(Value::Bool(integer(read(args, 0)?).is_some()))),
        ],
    },
    Function {
        name: "isLessThan",
        overloads: &[
            overload!(member (QUANTITY, QUANTITY) -> Bool, Cost::One, |args| Ok(Value::Bool(order(args)?.is_lt()))),
        ],
    },
    Function {
        name: "isQuantity",
        overloads: &[overload!((String) -> Bool, Cost::Walk(&[0]), |args| {
            Ok(Value::Bool(matches!(args, [Value::String(text)] if text.parse::<Quantity>().is_ok())))
        })],
    },
    Function {
        name: "quantity",
        overloads: &[overload!((String) -> QUANTITY, Cost::Walk(&[0]), |args| match args {
            [Value::String(text)] => text.parse().map(made).map_err(|error: crate::quantity::QuantityError| {
                EvalError::new(error.to_string())
            }),
            _ => Err(EvalError::new("no such overload")),
        })],
    },
    Function {
        name: "sign",
        overloads: &[overload!(member (QUANTITY) -> Int, Cost::One, |args| {
            Ok(Value::Int(read(args, 0)?.cmp(&Quantity::default()) as i64))
        })],
    },
    Function {
        name: "sub",
        overloads: &[
            overload!(member (QUANTITY, QUANTITY) -> QUANTITY, Cost::One, |args| Ok(made(read(args, 0)? - read(args, 1)?))),
            overload!(member (QUANTITY, Int) -> QUANTITY, Cost::One, |args| Ok(made(read(args, 0)? - whole(args, 1)?))),
        ],
    },
    Function {
        name: "validate",
        overloads: &[
            overload!(member (FORMAT, String) -> Optional(&List(&String)), Cost::Walk(&[1]), |args| {
                let [format, Value::String(text)] = args else { return Err(EvalError::new("no such overload")) };
                let format: &Format = format.as_opaque().ok_or_else(|| EvalError::new("no such overload"))?;
                let wrong = format.wrong(text);
                if wrong.is_empty() {
                    return Ok(Value::Optional(None));
                }
                Ok(Value::some(wrong.into_iter().map(Value::from).collect()))
            }),
        ],
    },
];

/// A quantity as expressions hold it.
#[derive(Debug)]
struct Held(Quantity);

impl Opaque for Held {
    fn type_name(&self) -> &'static str {
        "kubernetes.Quantity"
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| self.0 == other.0)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn made<'a>(quantity: Quantity) -> Value<'a> {
    Value::opaque(Held(quantity))
}

fn read(args: &[Value], index: usize) -> Result<Quantity, EvalError> {
    let held: Option<&Held> = args.get(index).and_then(Value::as_opaque);
    held.map(|held| held.0).ok_or_else(|| EvalError::new("no such overload"))
}

fn whole(args: &[Value], index: usize) -> Result<Quantity, EvalError> {
    match args.get(index) {
        Some(Value::Int(number)) => {
            number.to_string().parse().map_err(|_| EvalError::new("no such overload"))
        }
        _ => Err(EvalError::new("no such overload")),
    }
}

fn order(args: &[Value]) -> Result<Ordering, EvalError> {
    Ok(read(args, 0)?.cmp(&read(args, 1)?))
}

/// The number without loss, if it is a whole one that fits.
fn integer(quantity: Quantity) -> Option<i64> {
    let units = quantity.units();
    let same: Quantity = units.to_string().parse().ok()?;
    (same == quantity).then_some(units)
}

/// A format by its name.
#[derive(Debug)]
struct Format(&'static str);

impl Opaque for Format {
    fn type_name(&self) -> &'static str {
        "kubernetes.NamedFormat"
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref::<Self>().is_some_and(|other| self.0 == other.0)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Format {
    /// What is wrong with a text, in upstream's words; nothing if it fits.
    fn wrong(&self, text: &str) -> Vec<std::string::String> {
        FORMATS.iter().find(|(name, _)| *name == self.0).map(|(_, check)| check(text)).unwrap_or_default()
    }
}

type Check = fn(&str) -> Vec<std::string::String>;

const FORMATS: &[(&str, Check)] = &[
    ("byte", |text| {
        let is_base64 =
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
        must(is_base64 && text.len().is_multiple_of(4), "invalid base64")
    }),
    ("date", |text| must(text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10, "invalid date")),
    ("datetime", |text| must(text.parse::<jiff::Timestamp>().is_ok(), "invalid datetime")),
    ("dns1035Label", names::dns_1035_label),
    ("dns1035LabelPrefix", |text| names::dns_1035_label(&finished(text))),
    ("dns1123Label", names::dns_label),
    ("dns1123LabelPrefix", |text| names::dns_label(&finished(text))),
    ("dns1123Subdomain", names::dns_subdomain),
    ("dns1123SubdomainPrefix", |text| names::dns_subdomain(&finished(text))),
    ("labelValue", names::label_value),
    ("qualifiedName", names::qualified_name),
    ("uri", |text| must(text.contains(':') || text.starts_with('/'), "invalid URI")),
    ("uuid", |text| must(is_uuid(text), "does not match the UUID format")),
];

fn must(holds: bool, otherwise: &str) -> Vec<std::string::String> {
    if holds { Vec::new() } else { vec![otherwise.to_owned()] }
}

/// A prefix may end in a dash: something follows it.
fn finished(prefix: &str) -> std::string::String {
    prefix.strip_suffix('-').map_or_else(|| prefix.to_owned(), |stem| format!("{stem}-a"))
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    lengths == [8, 4, 4, 4, 12] && groups.concat().bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_and_formats() {
        let env = cel::Env::default().library(LIBRARY);
        for (text, wanted) in [
            ("quantity('1Gi').isGreaterThan(quantity('1G'))", true),
            ("quantity('500m').add(quantity('500m')) == quantity('1')", true),
            ("quantity('1').sub(2).sign() == -1", true),
            ("quantity('1.5').isInteger()", false),
            ("quantity('2k').asInteger() == 2000", true),
            ("isQuantity('1Zi')", false),
            (
                "quantity('1').compareTo(quantity('2')) == -1 && semver('1.0.0').compareTo(semver('2.0.0')) == -1",
                true,
            ),
            ("format.dns1123Label().validate('a-b').hasValue()", false),
            ("format.named('dns1123Label').value().validate('A_b').value().size() > 0", true),
            ("format.dns1123LabelPrefix().validate('a-').hasValue()", false),
            ("format.named('nothing').hasValue()", false),
            ("format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()", false),
        ] {
            let program = env.compile(text).unwrap_or_else(|issues| panic!("{}", cel::render(&issues, text)));
            let found = program.eval(&[], 10_000).0;
            assert!(matches!(found, Ok(Value::Bool(flag)) if flag == wanted), "{text}: {found:?}");
        }
    }
}
