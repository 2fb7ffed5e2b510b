use std::any::Any;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map as JsonMap, Value as Json};

use crate::error::EvalError;
use crate::json::from_json;
use crate::types::{ObjectType, Type};

/// What an expression gives. Lists and maps out of a JSON document stay where they are and are read when they are asked for.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    Timestamp(Timestamp),
    Duration(SignedDuration),
    List(Arc<Vec<Value<'a>>>),
    Map(Arc<BTreeMap<Key<'a>, Value<'a>>>),
    /// An array of a document, with the type of its elements.
    Array(&'a [Json], &'a Type),
    /// An object of a document that is a map, with the type of its values.
    Entries(&'a JsonMap<String, Json>, &'a Type),
    /// An object of a document that is a message.
    Object(&'a JsonMap<String, Json>, &'a Arc<ObjectType>),
    /// A message that an expression made.
    Message(Arc<str>, Arc<BTreeMap<String, Value<'a>>>),
    /// `type(x)`: the name of the type.
    Type(Arc<str>),
    Optional(Option<Arc<Value<'a>>>),
    Opaque(Arc<dyn Opaque>),
}

/// A value of a type that a library brings.
pub trait Opaque: fmt::Debug + Send + Sync {
    /// `kubernetes.Quantity`
    fn type_name(&self) -> &'static str;
    fn equals(&self, other: &dyn Opaque) -> bool;
    fn as_any(&self) -> &dyn Any;
}

/// A string, borrowed from the document where that is possible.
#[derive(Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Owned(Arc<str>),
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Owned(text) => text,
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

/// What can be the key of a map. Numbers that are equal are one key, whatever their type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key<'a> {
    Bool(bool),
    Int(i64),
    /// Only what no `Int` can be.
    Uint(u64),
    String(Text<'a>),
}

impl<'a> Key<'a> {
    pub fn of(value: &Value<'a>) -> Result<Self, EvalError> {
        match value {
            Value::Bool(flag) => Ok(Self::Bool(*flag)),
            Value::Int(number) => Ok(Self::Int(*number)),
            Value::Uint(number) => Ok(i64::try_from(*number).map_or(Self::Uint(*number), Self::Int)),
            Value::Double(number) => Self::of_double(*number),
            Value::String(text) => Ok(Self::String(text.clone())),
            _ => Err(EvalError::new("unsupported key type")),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "checked to be a whole number in range")]
    fn of_double(number: f64) -> Result<Self, EvalError> {
        if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
            return Ok(Self::Int(number as i64));
        }
        Err(EvalError::no_such_key(number))
    }

    pub fn value(&self) -> Value<'a> {
        match self {
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Int(number) => Value::Int(*number),
            Self::Uint(number) => Value::Uint(*number),
            Self::String(text) => Value::String(text.clone()),
        }
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(flag) => write!(f, "{flag}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Uint(number) => write!(f, "{number}"),
            Self::String(text) => f.write_str(text),
        }
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::String(Text::Owned(text.into()))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::String(Text::Borrowed(text))
    }
}

impl<'a> FromIterator<Value<'a>> for Value<'a> {
    fn from_iter<I: IntoIterator<Item = Value<'a>>>(values: I) -> Self {
        Self::List(Arc::new(values.into_iter().collect()))
    }
}

impl<'a> Value<'a> {
    pub fn some(value: Value<'a>) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    pub fn opaque(value: impl Opaque + 'static) -> Self {
        Self::Opaque(Arc::new(value))
    }

    /// The library's value inside, if it is one of `T`.
    pub fn as_opaque<T: 'static>(&self) -> Option<&T> {
        match self {
            Self::Opaque(value) => value.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// The name of its type, as `type()` gives it.
    pub fn type_name(&self) -> Arc<str> {
        let name = match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) | Self::Array(..) => "list",
            Self::Map(_) | Self::Entries(..) => "map",
            Self::Object(_, of) => return of.name.as_str().into(),
            Self::Message(name, _) => return name.clone(),
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Opaque(value) => value.type_name(),
        };
        name.into()
    }

    /// The elements of a list.
    pub fn elements(&self) -> Option<Vec<Value<'a>>> {
        match self {
            Self::List(values) => Some(values.to_vec()),
            Self::Array(values, element) => {
                Some(values.iter().map(|value| from_json(value, element)).collect())
            }
            _ => None,
        }
    }

    /// The keys of a map, in their order.
    pub fn keys(&self) -> Option<Vec<Value<'a>>> {
        match self {
            Self::Map(entries) => Some(entries.keys().map(Key::value).collect()),
            Self::Entries(entries, _) => Some(entries.keys().map(|key| key.as_str().into()).collect()),
            _ => None,
        }
    }

    /// How many elements, entries, characters or bytes it has; one for everything else. What costs are counted in.
    pub fn size(&self) -> u64 {
        let size = match self {
            Self::String(text) => text.chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(values) => values.len(),
            Self::Array(values, _) => values.len(),
            Self::Map(entries) => entries.len(),
            Self::Entries(entries, _) | Self::Object(entries, _) => entries.len(),
            Self::Message(_, fields) => fields.len(),
            _ => 1,
        };
        size as u64
    }

    /// `value[index]` and, for messages and maps, `value.index`. None if there is nothing there.
    pub fn index(&self, index: &Value<'a>) -> Result<Option<Value<'a>>, EvalError> {
        match self {
            Self::List(values) => Ok(values.get(position(index)?).cloned()),
            Self::Array(values, element) => {
                Ok(values.get(position(index)?).map(|value| from_json(value, element)))
            }
            Self::Map(entries) => Ok(Key::of(index).ok().and_then(|key| entries.get(&key).cloned())),
            Self::Entries(..) | Self::Object(..) | Self::Message(..) => match index {
                Self::String(name) => Ok(self.field(name)),
                _ => Ok(None),
            },
            Self::Optional(None) => Ok(None),
            Self::Optional(Some(value)) => value.index(index),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    /// `value.name`, if it is there.
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Entries(entries, of) => entries.get(name).map(|value| from_json(value, of)),
            Self::Map(entries) => entries.get(&Key::String(Text::Borrowed(name))).cloned(),
            Self::Message(_, fields) => fields.get(name).cloned(),
            Self::Object(entries, of) => match of.fields.get(name) {
                Some(field) => entries.get(&field.name).map(|value| from_json(value, &field.r#type)),
                None if of.open => entries.get(name).map(|value| from_json(value, &Type::Dyn)),
                None => None,
            },
            _ => None,
        }
    }

    /// Whether values can be looked up in it by a field's name.
    pub fn has_fields(&self) -> bool {
        matches!(self, Self::Entries(..) | Self::Map(_) | Self::Message(..) | Self::Object(..))
    }

    /// CEL's equality: numbers by value over their types, lists and maps by content, different types are not equal.
    pub fn equals(&self, other: &Value<'a>) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(one), Self::Bool(two)) => one == two,
            (Self::String(one), Self::String(two)) => one == two,
            (Self::Bytes(one), Self::Bytes(two)) => one == two,
            (Self::Timestamp(one), Self::Timestamp(two)) => one == two,
            (Self::Duration(one), Self::Duration(two)) => one == two,
            (Self::Type(one), Self::Type(two)) => one == two,
            (Self::Optional(one), Self::Optional(two)) => match (one, two) {
                (None, None) => true,
                (Some(one), Some(two)) => one.equals(two),
                _ => false,
            },
            (Self::Opaque(one), Self::Opaque(two)) => one.equals(&**two),
            (Self::Array(one, _), Self::Array(two, _)) if std::ptr::eq(*one, *two) => true,
            (Self::Message(one, fields), Self::Message(two, others)) => {
                one == two
                    && fields.len() == others.len()
                    && fields.iter().all(|(name, value)| others.get(name).is_some_and(|it| value.equals(it)))
            }
            (Self::Object(one, of), Self::Object(two, other)) => {
                of.name == other.name
                    && one.len() == two.len()
                    && one.iter().all(|(name, _)| {
                        let escaped = crate::escape(name);
                        match (self.field(&escaped), Self::Object(two, other).field(&escaped)) {
                            (Some(one), Some(two)) => one.equals(&two),
                            (None, None) => two.get(name) == self.json_member(name),
                            _ => false,
                        }
                    })
            }
            _ => {
                if let Some(order) = compare_numbers(self, other) {
                    return order == Some(Ordering::Equal);
                }
                if let (Some(one), Some(two)) = (self.elements(), other.elements()) {
                    return one.len() == two.len() && one.iter().zip(&two).all(|(one, two)| one.equals(two));
                }
                if let (Some(keys), Some(others)) = (self.keys(), other.keys()) {
                    return keys.len() == others.len()
                        && keys.iter().all(|key| match (self.index(key), other.index(key)) {
                            (Ok(Some(one)), Ok(Some(two))) => one.equals(&two),
                            _ => false,
                        });
                }
                false
            }
        }
    }

    fn json_member(&self, name: &str) -> Option<&'a Json> {
        match self {
            Self::Object(entries, _) | Self::Entries(entries, _) => entries.get(name),
            _ => None,
        }
    }

    /// CEL's order; none if the two cannot be ordered (of different types, or not a number).
    pub fn order(&self, other: &Value<'a>) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(one), Self::Bool(two)) => Some(one.cmp(two)),
            (Self::String(one), Self::String(two)) => Some(one.cmp(two)),
            (Self::Bytes(one), Self::Bytes(two)) => Some(one.cmp(two)),
            (Self::Timestamp(one), Self::Timestamp(two)) => Some(one.cmp(two)),
            (Self::Duration(one), Self::Duration(two)) => Some(one.cmp(two)),
            _ => compare_numbers(self, other).flatten(),
        }
    }
}

fn position(index: &Value) -> Result<usize, EvalError> {
    match Key::of(index) {
        Ok(Key::Int(at)) => {
            usize::try_from(at).map_err(|_| EvalError::new(format!("index out of bounds: {at}")))
        }
        Ok(Key::Uint(at)) => Err(EvalError::new(format!("index out of bounds: {at}"))),
        _ => Err(EvalError::new("unsupported index type in list")),
    }
}

/// None if they are not both numbers; the inner none if one of them is not a number at all.
#[expect(clippy::cast_precision_loss, reason = "the range is compared before the value")]
fn compare_numbers(one: &Value, two: &Value) -> Option<Option<Ordering>> {
    Some(match (one, two) {
        (Value::Int(one), Value::Int(two)) => Some(one.cmp(two)),
        (Value::Uint(one), Value::Uint(two)) => Some(one.cmp(two)),
        (Value::Double(one), Value::Double(two)) => one.partial_cmp(two),
        (Value::Int(one), Value::Uint(two)) => Some(i128::from(*one).cmp(&i128::from(*two))),
        (Value::Uint(one), Value::Int(two)) => Some(i128::from(*one).cmp(&i128::from(*two))),
        (Value::Double(one), Value::Int(two)) => one.partial_cmp(&(*two as f64)),
        (Value::Double(one), Value::Uint(two)) => one.partial_cmp(&(*two as f64)),
        (Value::Int(one), Value::Double(two)) => (*one as f64).partial_cmp(two),
        (Value::Uint(one), Value::Double(two)) => (*one as f64).partial_cmp(two),
        _ => return None,
    })
}
