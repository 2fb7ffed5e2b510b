//! The table of types: what fields a type has and what each of them is.
//!
//! The table is a text, so that it can be read and compared; it is parsed once into vectors that borrow from it.
//!
//! ```text
//! apps.v1.ReplicaSetSpec
//!     replicas    int32    =1
//!     selector    @meta.v1.LabelSelector    !
//! ```

use std::collections::HashMap;

use serde_json::Value;

/// Every type of a table of types. Made once, then shared.
#[derive(Debug)]
pub struct Types {
    types: Vec<Type>,
    by_name: HashMap<&'static str, usize>,
}

/// A struct of the API.
#[derive(Debug)]
pub struct Type {
    /// `apps.v1.DeploymentSpec`
    pub name: &'static str,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// Whether defaulting an object of this type can change anything.
    pub(crate) has_defaults: bool,
}

#[derive(Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    pub expr: Expr,
    /// The API's schema says that it must be there.
    pub required: bool,
    /// What Go writes when nothing is set: of a field that is no pointer, or is not left out when it is empty.
    pub zero: Option<Value>,
    pub default: Option<Value>,
    /// The default also replaces an explicit zero (a field that is no pointer in Go).
    pub default_for_zero: bool,
    pub patch: PatchStrategy,
    pub merge_key: Option<&'static str>,
    pub list: ListType,
    pub map: MapType,
    /// An empty list is not the same as none to whoever judges or completes it.
    pub keeps_empty: bool,
    /// A zero (`""`, `0`, `false`) says nothing and is not kept: no pointer in Go, with `omitempty`.
    pub omits_zero: bool,
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// Lists are merged by their merge key (or as sets) rather than replaced.
    pub merge: bool,
    pub replace: bool,
    /// `$retainKeys`: the patch names the members that stay (unions).
    pub retain_keys: bool,
}

/// How server-side apply sees a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Unset,
    Atomic,
    Set,
    Map(Vec<&'static str>),
}

/// How server-side apply sees a struct or map, where its type does not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapType {
    #[default]
    Unset,
    /// One value.
    Atomic,
    /// Each member by itself, even if the type is one value elsewhere.
    Granular,
}

/// What a value may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    Any,
    Boolean,
    Bytes,
    Double,
    Int32,
    Int64,
    IntOrString,
    List(Box<Expr>),
    Map(Box<Expr>),
    MicroTime,
    /// Any JSON object, kept as it is.
    Object,
    Quantity,
    /// A map of quantities that are kept to a thousandth.
    ResourceList,
    String,
    /// An index into the table.
    Struct(usize),
    Time,
}

/// A line of a table of types that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct TableError {
    /// Counted from one.
    pub line: usize,
    pub why: String,
}

impl Types {
    /// Reads a table. Its form is told in the table's own head.
    pub fn parse(text: &'static str) -> Result<Self, TableError> {
        let fail = |line: usize, why: String| TableError { line: line + 1, why };
        let mut by_name = HashMap::new();
        let lines =
            || text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        for (at, name) in lines().filter(|(_, line)| !line.starts_with('\t')) {
            let index = by_name.len();
            if by_name.insert(name, index).is_some() {
                return Err(fail(at, format!("type {name} stands twice")));
            }
        }
        let mut types: Vec<Type> = Vec::with_capacity(by_name.len());
        for (at, line) in lines() {
            let Some(field) = line.strip_prefix('\t') else {
                types.push(Type { name: line, fields: Vec::new(), has_defaults: false });
                continue;
            };
            let owner = types.last_mut().ok_or_else(|| fail(at, "a field before any type".into()))?;
            let field = Field::parse(field, &by_name).map_err(|why| fail(at, why))?;
            if owner.fields.last().is_some_and(|last| last.name >= field.name) {
                return Err(fail(at, format!("field {} is out of order", field.name)));
            }
            owner.fields.push(field);
        }
        mark_defaults(&mut types);
        Ok(Self { types, by_name })
    }

    /// The type of this name: `core.v1.PodSpec`.
    pub fn get(&self, name: &str) -> Option<&Type> {
        self.by_name.get(name).map(|&index| &self.types[index])
    }

    /// The place of this type in [`Types::all`], which is also what [`Expr::Struct`] holds.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub fn all(&self) -> &[Type] {
        &self.types
    }

    pub(crate) fn at(&self, index: usize) -> &Type {
        &self.types[index]
    }

    pub fn expr_of(&self, name: &str) -> Option<Expr> {
        self.by_name.get(name).map(|&index| Expr::Struct(index))
    }
}

impl Type {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|field| field.name.cmp(name)).ok().map(|index| &self.fields[index])
    }

    /// `DeploymentSpec` of `apps.v1.DeploymentSpec`.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, short)| short)
    }

    /// `v1.DeploymentSpec`, as Go names it.
    pub(crate) fn go_name(&self) -> &'static str {
        let package = self.name.rsplitn(3, '.').nth(2).map_or(0, |package| package.len() + 1);
        &self.name[package..]
    }
}

impl Field {
    fn parse(line: &'static str, names: &HashMap<&'static str, usize>) -> Result<Self, String> {
        let mut columns = line.split('\t');
        let name = columns.next().unwrap_or_default();
        let expr = Expr::parse(columns.next().unwrap_or_default(), names)?;
        let mut field = Self {
            name,
            expr,
            required: false,
            zero: None,
            default: None,
            default_for_zero: false,
            patch: PatchStrategy::default(),
            merge_key: None,
            list: ListType::Unset,
            map: MapType::Unset,
            keeps_empty: false,
            omits_zero: false,
        };
        for column in columns {
            field.column(column)?;
        }
        Ok(field)
    }

    /// What is written for it when nothing is set. Nulls are not: they say nothing. A number or a name may stand in its place only
    /// once it is known which.
    pub(crate) fn written(&self) -> Option<&Value> {
        self.zero.as_ref().filter(|zero| !zero.is_null() && self.expr != Expr::IntOrString)
    }

    /// Whether it is there even if it says nothing.
    pub(crate) fn is_kept_empty(&self) -> bool {
        self.keeps_empty || self.required && !self.omits_zero
    }

    /// Whether Go has a zero where it is absent; a pointer it writes as null, which says nothing.
    pub(crate) fn is_zero_if_absent(&self) -> bool {
        let is_scalar =
            matches!(self.expr, Expr::Boolean | Expr::Double | Expr::Int32 | Expr::Int64 | Expr::String);
        self.is_kept_empty() && is_scalar && !self.zero.as_ref().is_some_and(Value::is_null)
    }

    fn column(&mut self, text: &'static str) -> Result<(), String> {
        if text == "!" {
            self.required = true;
        } else if text == "e" {
            self.keeps_empty = true;
        } else if text == "o" {
            self.omits_zero = true;
        } else if let Some(json) = text.strip_prefix(['=', '~']) {
            let value = serde_json::from_str(json).map_err(|error| format!("default {json}: {error}"))?;
            self.default = Some(value);
            self.default_for_zero = text.starts_with('~');
        } else if let Some(json) = text.strip_prefix("z=") {
            self.zero = Some(serde_json::from_str(json).map_err(|error| format!("zero {json}: {error}"))?);
        } else if let Some(strategies) = text.strip_prefix("p=") {
            for strategy in strategies.split(',') {
                match strategy {
                    "merge" => self.patch.merge = true,
                    "replace" => self.patch.replace = true,
                    "retainKeys" => self.patch.retain_keys = true,
                    other => return Err(format!("patch strategy {other}")),
                }
            }
        } else if let Some(key) = text.strip_prefix("k=") {
            self.merge_key = Some(key);
        } else if let Some(list) = text.strip_prefix("l=") {
            self.list = match list.split_once(':') {
                None if list == "atomic" => ListType::Atomic,
                None if list == "set" => ListType::Set,
                Some(("map", keys)) => ListType::Map(keys.split(',').collect()),
                _ => return Err(format!("list type {list}")),
            };
        } else if let Some(map) = text.strip_prefix("m=") {
            self.map = match map {
                "atomic" => MapType::Atomic,
                "granular" => MapType::Granular,
                other => return Err(format!("map type {other}")),
            };
        } else {
            return Err(format!("column {text}"));
        }
        Ok(())
    }
}

impl Expr {
    fn parse(text: &'static str, names: &HashMap<&'static str, usize>) -> Result<Self, String> {
        if let Some(item) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return Ok(Self::List(Box::new(Self::parse(item, names)?)));
        }
        if let Some(item) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            return Ok(Self::Map(Box::new(Self::parse(item, names)?)));
        }
        if let Some(name) = text.strip_prefix('@') {
            return names
                .get(name)
                .map(|&index| Self::Struct(index))
                .ok_or_else(|| format!("no type {name}"));
        }
        Ok(match text {
            "any" => Self::Any,
            "boolean" => Self::Boolean,
            "bytes" => Self::Bytes,
            "double" => Self::Double,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "int-or-string" => Self::IntOrString,
            "micro-time" => Self::MicroTime,
            "object" => Self::Object,
            "quantity" => Self::Quantity,
            "resource-list" => Self::ResourceList,
            "string" => Self::String,
            "time" => Self::Time,
            other => return Err(format!("no type {other}")),
        })
    }

    /// The struct behind lists and maps, if there is one.
    pub(crate) fn innermost(&self) -> Option<usize> {
        match self {
            Self::List(item) | Self::Map(item) => item.innermost(),
            Self::Struct(index) => Some(*index),
            _ => None,
        }
    }
}

/// Marks the types with defaults of their own, and then whatever leads to one, until nothing changes.
fn mark_defaults(types: &mut [Type]) {
    let own = |field: &Field| {
        field.default.is_some() || field.written().is_some() || field.expr == Expr::ResourceList
    };
    let mut marked: Vec<bool> = types.iter().map(|one| one.fields.iter().any(own)).collect();
    loop {
        let leads = |one: &Type| {
            one.fields.iter().any(|field| field.expr.innermost().is_some_and(|index| marked[index]))
        };
        let next: Vec<bool> = types.iter().zip(&marked).map(|(one, &mark)| mark || leads(one)).collect();
        if next == marked {
            break;
        }
        marked = next;
    }
    for (one, mark) in types.iter_mut().zip(marked) {
        one.has_defaults = mark;
    }
}
