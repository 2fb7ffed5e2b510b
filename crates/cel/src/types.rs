use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What an expression can be, as the checker knows it.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Anything: checked when it runs.
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
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
    Object(Arc<ObjectType>),
    Optional(Box<Type>),
    /// A type as a value: `type(1)`.
    Type,
    /// A type that a library brings: `kubernetes.Quantity`.
    Opaque(&'static str),
    /// Stands for any one type within a function's signature.
    Param(u8),
}

/// A message: named fields, each with its type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObjectType {
    /// As errors and `type()` tell it: `Object.spec`, `Pod`.
    pub name: String,
    /// By the name that expressions use: escaped where CEL cannot say it (see [`crate::escape`]).
    pub fields: BTreeMap<String, Field>,
    /// Fields that are not listed exist as well, and are `Dyn`.
    pub open: bool,
}

/// A field of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// In JSON.
    pub name: String,
    pub r#type: Type,
    /// How large it can be at most: see [`crate::Sizes`].
    pub sizes: crate::Sizes,
}

impl Type {
    pub fn list(element: Type) -> Self {
        Self::List(Box::new(element))
    }

    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Box::new(key), Box::new(value))
    }

    pub fn optional(inner: Type) -> Self {
        Self::Optional(Box::new(inner))
    }

    /// Whether a value of `other` can be used where this type is wanted.
    pub fn accepts(&self, other: &Type) -> bool {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::Null, other) | (other, Self::Null) => other.is_nullable(),
            (Self::List(one), Self::List(two)) | (Self::Optional(one), Self::Optional(two)) => {
                one.accepts(two)
            }
            (Self::Map(key, value), Self::Map(key2, value2)) => key.accepts(key2) && value.accepts(value2),
            (Self::Object(one), Self::Object(two)) => one.name == two.name,
            _ => self == other,
        }
    }

    fn is_nullable(&self) -> bool {
        matches!(
            self,
            Self::Null
                | Self::Object(_)
                | Self::Timestamp
                | Self::Duration
                | Self::Optional(_)
                | Self::Opaque(_)
        )
    }

    /// The type of values that can be either: the more general one, `Dyn` if they have nothing in common.
    pub fn join(self, other: Type) -> Type {
        match (self, other) {
            (Self::List(one), Self::List(two)) => Self::list(one.join(*two)),
            (Self::Map(key, value), Self::Map(key2, value2)) => {
                Self::map(key.join(*key2), value.join(*value2))
            }
            (Self::Optional(one), Self::Optional(two)) => Self::optional(one.join(*two)),
            (Self::Null, other) | (other, Self::Null) if other.is_nullable() => other,
            (one, two) if one == two => one,
            _ => Self::Dyn,
        }
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(element) => write!(f, "list({element})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Object(object) => f.write_str(&object.name),
            Self::Optional(inner) => write!(f, "optional_type({inner})"),
            Self::Type => f.write_str("type"),
            Self::Opaque(name) => f.write_str(name),
            Self::Param(_) => f.write_str("dyn"),
        }
    }
}
