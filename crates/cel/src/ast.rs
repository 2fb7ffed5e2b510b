//! What a text says, with macros already expanded.

use crate::value::Value;

/// A part of an expression. `at` is where its operator or first character stands; `id` numbers the parts of one text from zero;
/// `height` is one more than that of its highest part.
#[derive(Clone, Debug)]
pub struct Expr {
    pub id: usize,
    pub at: usize,
    pub height: usize,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Literal(Value<'static>),
    /// With a leading dot: `.name` skips variables of comprehensions.
    Ident(String),
    /// `operand.field`; of `has(operand.field)` only whether it is there; `operand.?field` gives an optional.
    Select {
        operand: Box<Expr>,
        field: String,
        how: Select,
    },
    Call {
        target: Option<Box<Expr>>,
        function: String,
        args: Vec<Expr>,
    },
    /// Elements, each perhaps optional (`[?a, b]`).
    List(Vec<(Expr, bool)>),
    /// Entries, each perhaps optional (`{?key: value}`).
    Map(Vec<(Expr, Expr, bool)>),
    /// A message by name, `Object{name: value}`.
    Struct {
        name: String,
        fields: Vec<(String, Expr, bool)>,
    },
    Comprehension(Box<Comprehension>),
    /// `cel.bind(name, value, body)`
    Bind {
        name: String,
        value: Box<Expr>,
        body: Box<Expr>,
    },
}

impl Kind {
    /// The parts directly in it.
    pub fn parts(&self) -> Vec<&Expr> {
        match self {
            Self::Literal(_) | Self::Ident(_) => Vec::new(),
            Self::Select { operand, .. } => vec![operand],
            Self::Call { target, args, .. } => target.iter().map(|target| &**target).chain(args).collect(),
            Self::List(elements) => elements.iter().map(|(element, _)| element).collect(),
            Self::Map(entries) => entries.iter().flat_map(|(key, value, _)| [key, value]).collect(),
            Self::Struct { fields, .. } => fields.iter().map(|(_, value, _)| value).collect(),
            Self::Comprehension(of) => of.fold.parts().into_iter().chain([&of.range]).collect(),
            Self::Bind { value, body, .. } => vec![value, body],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    Value,
    Test,
    Optional,
}

/// Every macro over lists and maps is one of these: walk `range`, fold into an accumulator.
#[derive(Clone, Debug)]
pub struct Comprehension {
    pub range: Expr,
    /// The element; of two variables the index or key.
    pub variable: String,
    /// The element or value, for the two-variable forms.
    pub second: Option<String>,
    pub fold: Fold,
}

/// What is folded, with the expressions that see the variables.
#[derive(Clone, Debug)]
pub enum Fold {
    All(Expr),
    Exists(Expr),
    ExistsOne(Expr),
    /// `filter(x, predicate)`: the elements, or the keys of a map.
    Filter(Expr),
    /// `map(x, value)`, `map(x, predicate, value)`, `transformList`.
    Map {
        predicate: Option<Expr>,
        value: Expr,
    },
    /// `transformMap(k, v, value)`, with a predicate in between.
    TransformMap {
        predicate: Option<Expr>,
        value: Expr,
    },
    /// `transformMapEntry(k, v, entry)`: the entry is a map of one key.
    TransformMapEntry {
        predicate: Option<Expr>,
        value: Expr,
    },
}

impl Fold {
    /// The expressions in it.
    pub fn parts(&self) -> Vec<&Expr> {
        match self {
            Self::All(one) | Self::Exists(one) | Self::ExistsOne(one) | Self::Filter(one) => vec![one],
            Self::Map { predicate, value }
            | Self::TransformMap { predicate, value }
            | Self::TransformMapEntry { predicate, value } => predicate.iter().chain([value]).collect(),
        }
    }
}
