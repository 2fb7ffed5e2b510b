use std::any::Any;
use std::sync::Arc;

use crate::error::EvalError;
use crate::types::Type;
use crate::value::Value;

/// A function by name, with its overloads: one row of a library.
#[derive(Debug)]
pub struct Function {
    /// `startsWith`, `sets.contains`; operators by cel-go's names: `_+_`.
    pub name: &'static str,
    pub overloads: &'static [Overload],
}

/// What a function does for certain types of arguments.
#[derive(Debug)]
pub struct Overload {
    /// Called as `first.name(rest)`, not as `name(all)`.
    pub member: bool,
    /// The receiver first.
    pub params: &'static [Ty],
    pub result: Ty,
    pub call: Call,
    pub cost: Cost,
}

/// How an overload is carried out.
#[derive(Clone, Copy, Debug)]
pub enum Call {
    /// By its arguments alone.
    Pure(for<'a> fn(&[Value<'a>]) -> Result<Value<'a>, EvalError>),
    /// With a question to whoever runs the evaluation.
    Ask(for<'a> fn(&[Value<'a>], &dyn Host<'a>) -> Result<Value<'a>, EvalError>),
}

/// What an evaluation may ask of whoever runs it.
pub trait Host<'a> {
    /// The value of `object.field` where the variable `object` is not given whole: worked out when it is asked for, and what that cost.
    fn field(
        &self,
        _object: &str,
        _field: &str,
        _budget: u64,
    ) -> Option<(Result<Value<'a>, EvalError>, u64)> {
        None
    }

    /// The answer to a library's question; the types of both are the library's own.
    fn answer(&self, _question: &dyn Any) -> Option<Value<'a>> {
        None
    }
}

/// Whoever has nothing to be asked.
pub struct Nobody;

impl Host<'_> for Nobody {}

/// A type in a signature: what [`Type`] is, written in a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ty {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    Type,
    List(&'static Ty),
    Map(&'static Ty, &'static Ty),
    Optional(&'static Ty),
    Opaque(&'static str),
    /// The same number stands for the same type.
    Param(u8),
}

/// What a call costs, in cel-go's units. Sizes are those of the arguments by their place; strings count ten characters as one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cost {
    /// One, whatever comes in.
    One,
    /// So much, whatever comes in.
    Fixed(u64),
    /// Every argument named here is walked once: a tenth of the sum of sizes.
    Walk(&'static [usize]),
    /// As [`Cost::Walk`], and the result is as large as the arguments together.
    Join(&'static [usize]),
    /// The elements of these arguments are copied: one for each, and the result has as many.
    Copy(&'static [usize]),
    /// The shorter of two is walked: equality and order.
    Shorter,
    /// One argument is searched for in another: the product of a tenth of each.
    Search(usize, usize),
    /// A text and a regular expression: a tenth of the text times a quarter of the expression.
    Regex(usize, usize),
    /// One for each element of this argument.
    Elements(usize),
    /// One for each pair of elements of two arguments.
    Pairs(usize, usize),
}

impl Ty {
    pub fn to_type(self) -> Type {
        match self {
            Self::Dyn => Type::Dyn,
            Self::Null => Type::Null,
            Self::Bool => Type::Bool,
            Self::Int => Type::Int,
            Self::Uint => Type::Uint,
            Self::Double => Type::Double,
            Self::String => Type::String,
            Self::Bytes => Type::Bytes,
            Self::Timestamp => Type::Timestamp,
            Self::Duration => Type::Duration,
            Self::Type => Type::Type,
            Self::List(element) => Type::list(element.to_type()),
            Self::Map(key, value) => Type::map(key.to_type(), value.to_type()),
            Self::Optional(inner) => Type::optional(inner.to_type()),
            Self::Opaque(name) => Type::Opaque(name),
            Self::Param(number) => Type::Param(number),
        }
    }

    /// Whether a value is of this type, as far as a look at it tells: the elements of a list are not looked at.
    pub fn fits(self, value: &Value) -> bool {
        match self {
            Self::Dyn | Self::Param(_) => true,
            Self::Null => matches!(value, Value::Null),
            Self::Bool => matches!(value, Value::Bool(_)),
            Self::Int => matches!(value, Value::Int(_)),
            Self::Uint => matches!(value, Value::Uint(_)),
            Self::Double => matches!(value, Value::Double(_)),
            Self::String => matches!(value, Value::String(_)),
            Self::Bytes => matches!(value, Value::Bytes(_)),
            Self::Timestamp => matches!(value, Value::Timestamp(_)),
            Self::Duration => matches!(value, Value::Duration(_)),
            Self::Type => matches!(value, Value::Type(_)),
            Self::List(_) => matches!(value, Value::List(_) | Value::Array(..)),
            Self::Map(..) => matches!(value, Value::Map(_) | Value::Entries(..)),
            Self::Optional(_) => matches!(value, Value::Optional(_)),
            Self::Opaque(name) => matches!(value, Value::Opaque(held) if held.type_name() == name),
        }
    }
}

/// The overloads that a call may turn out to be.
#[derive(Clone, Debug)]
pub(crate) struct Candidates(pub Arc<[&'static Overload]>);

impl Candidates {
    pub fn pick(&self, args: &[Value]) -> Option<&'static Overload> {
        let fits = |overload: &&&'static Overload| {
            overload.params.iter().zip(args).all(|(param, value)| param.fits(value))
        };
        self.0.iter().find(fits).copied()
    }
}

/// A row of a library: `overload!(member (String, String) -> Bool, cost, |args| …)`; `ask` stands before the call if it is a
/// [`Call::Ask`].
#[macro_export]
macro_rules! overload {
    (member ($($param:expr),* $(,)?) -> $result:expr, $cost:expr, ask $call:expr) => {
        $crate::Overload { member: true, params: &[$($param),*], result: $result, call: $crate::Call::Ask($call), cost: $cost }
    };
    (member ($($param:expr),* $(,)?) -> $result:expr, $cost:expr, $call:expr) => {
        $crate::Overload { member: true, params: &[$($param),*], result: $result, call: $crate::Call::Pure($call), cost: $cost }
    };
    (($($param:expr),* $(,)?) -> $result:expr, $cost:expr, $call:expr) => {
        $crate::Overload { member: false, params: &[$($param),*], result: $result, call: $crate::Call::Pure($call), cost: $cost }
    };
}
