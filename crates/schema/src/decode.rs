//! From what a client sent to the tree that Go would hold: types checked, unknown fields dropped, values normalised.

use object::Time;
use serde_json::{Map, Number, Value};

use crate::types::{Expr, Field, Type, Types};
use crate::{Quantity, go_time, json};

/// What to do about fields that a type does not have: the query parameter `fieldValidation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

impl FieldValidation {
    /// The parameter's value; empty or absent means `Warn`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Ignore" => Some(Self::Ignore),
            "" | "Warn" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
pub struct Decoded {
    pub value: Value,
    /// For `Warning` headers: `unknown field "spec.foo"`.
    pub warnings: Vec<String>,
}

/// Why a text is no object of its type. `Display` gives upstream's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// No JSON at all.
    Syntax(String),
    /// A value of the wrong type.
    Type(String),
    /// Unknown or repeated fields under `FieldValidation::Strict`.
    Strict(Vec<String>),
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Syntax(text) => write!(f, "json parse error: {text}"),
            Self::Type(text) => f.write_str(text),
            Self::Strict(texts) => write!(f, "strict decoding error: {}", texts.join(", ")),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Upstream stops telling after so many strict errors.
const MOST_STRICT_ERRORS: usize = 100;

impl Types {
    /// Reads JSON text as an object of the named type.
    pub fn decode(
        &self,
        type_name: &str,
        text: &[u8],
        mode: FieldValidation,
    ) -> Result<Decoded, DecodeError> {
        let (value, duplicates) =
            json::parse(text).map_err(|error| DecodeError::Syntax(json::go_words(&error, text)))?;
        let found = duplicates.into_iter().map(|path| format!("duplicate field \"{path}\"")).collect();
        self.finish(type_name, value, mode, found)
    }

    /// Reads a tree (the result of a patch, a controller's write) as an object of the named type.
    pub fn conform(
        &self,
        type_name: &str,
        value: Value,
        mode: FieldValidation,
    ) -> Result<Decoded, DecodeError> {
        self.finish(type_name, value, mode, Vec::new())
    }

    fn finish(
        &self,
        type_name: &str,
        mut value: Value,
        mode: FieldValidation,
        found: Vec<String>,
    ) -> Result<Decoded, DecodeError> {
        let expr = self.expr_of(type_name).unwrap_or(Expr::Object);
        let mut walk = Walk { types: self, found };
        walk.value(&expr, &mut value, Path::ROOT).map_err(DecodeError::Type)?;
        judged(value, walk.found, mode)
    }
}

/// What becomes of a value with these unknown or repeated fields.
pub(crate) fn judged(
    value: Value,
    mut found: Vec<String>,
    mode: FieldValidation,
) -> Result<Decoded, DecodeError> {
    found.truncate(MOST_STRICT_ERRORS);
    match mode {
        FieldValidation::Strict if !found.is_empty() => Err(DecodeError::Strict(found)),
        FieldValidation::Warn => Ok(Decoded { value, warnings: found }),
        _ => Ok(Decoded { value, warnings: Vec::new() }),
    }
}

/// Where the walk stands, as a chain over the stack: nothing is allocated until there is something to tell.
#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
    /// The innermost struct, which Go's messages name.
    owner: Option<&'a Type>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Root,
    Field(&'a str),
    /// A key of a map: part of strict paths, but not of Go's type errors.
    Key(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    const ROOT: Path<'static> = Path { parent: None, segment: Segment::Root, owner: None };

    fn field(&'a self, owner: &'a Type, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Field(name), owner: Some(owner) }
    }

    fn child(&'a self, segment: Segment<'a>) -> Path<'a> {
        Path { parent: Some(self), segment, owner: self.owner }
    }

    /// `spec.containers[0].name`
    fn strict(&self) -> String {
        let mut text = self.parent.map(Path::strict).unwrap_or_default();
        match self.segment {
            Segment::Root => {}
            Segment::Field(name) | Segment::Key(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Segment::Index(index) => text.push_str(&format!("[{index}]")),
        }
        text
    }

    /// `spec.containers.name`
    fn go(&self) -> String {
        let mut text = self.parent.map(Path::go).unwrap_or_default();
        if let Segment::Field(name) = self.segment {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(name);
        }
        text
    }

    /// Go's words for a value that does not fit.
    fn mismatch(&self, value: &Value, wanted: &str) -> String {
        let what = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) if matches!(wanted, "int32" | "int64") => format!("number {number}"),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        match self.owner {
            Some(owner) => format!(
                "json: cannot unmarshal {what} into Go struct field {}.{} of type {wanted}",
                owner.short_name(),
                self.go()
            ),
            None => format!("json: cannot unmarshal {what} into Go value of type {wanted}"),
        }
    }
}

struct Walk<'t> {
    types: &'t Types,
    /// Unknown and repeated fields, in upstream's words.
    found: Vec<String>,
}

impl Walk<'_> {
    fn value(&mut self, expr: &Expr, value: &mut Value, path: Path<'_>) -> Result<(), String> {
        match (expr, &mut *value) {
            (_, Value::Null) => *value = zero(expr),
            // Go keeps the bytes of what is said to be an object: the kind judges what they are.
            (Expr::Any | Expr::Object, _) => {}
            (Expr::String, Value::String(_)) | (Expr::Boolean, Value::Bool(_)) => {}
            (Expr::Double, Value::Number(_)) => {}
            (Expr::Struct(index), Value::Object(members)) => return self.members(*index, members, path),
            (Expr::List(item), Value::Array(items)) => {
                for (at, one) in items.iter_mut().enumerate() {
                    self.value(item, one, path.child(Segment::Index(at)))?;
                }
            }
            (Expr::Map(item), Value::Object(members)) => {
                for (key, one) in members.iter_mut() {
                    self.value(item, one, path.child(Segment::Key(key)))?;
                }
            }
            (Expr::ResourceList, Value::Object(members)) => {
                for (_, one) in members.iter_mut() {
                    quantity(one)?;
                }
            }
            (Expr::Int32, Value::Number(number)) => {
                let whole = integer(number).filter(|&whole| i32::try_from(whole).is_ok());
                *value = whole.ok_or_else(|| path.mismatch(value, "int32"))?.into();
            }
            (Expr::Int64, Value::Number(number)) => {
                *value = integer(number).ok_or_else(|| path.mismatch(value, "int64"))?.into();
            }
            (Expr::IntOrString, Value::String(_)) => {}
            (Expr::IntOrString, Value::Number(number)) => {
                let whole = integer(number).filter(|&whole| i32::try_from(whole).is_ok());
                *value = whole.ok_or_else(|| path.mismatch(value, "int32"))?.into();
            }
            (Expr::IntOrString, _) => return Err(path.mismatch(value, "int32")),
            (Expr::Quantity, _) => return quantity(value),
            (Expr::Time | Expr::MicroTime, Value::String(text)) => {
                let micro = *expr == Expr::MicroTime;
                let time = time(text, micro)?;
                let normal = if micro { time.micro() } else { time.to_string() };
                if *text != normal {
                    *text = normal;
                }
            }
            (Expr::Time | Expr::MicroTime, _) => return Err(Path::ROOT.mismatch(value, "string")),
            (Expr::Bytes, Value::String(text)) => {
                if let Some(at) = base64_error(text) {
                    return Err(format!("illegal base64 data at input byte {at}"));
                }
                write_as_go(text);
            }
            _ => return Err(path.mismatch(value, &self.go_type(expr))),
        }
        Ok(())
    }

    fn members(
        &mut self,
        index: usize,
        members: &mut Map<String, Value>,
        path: Path<'_>,
    ) -> Result<(), String> {
        let types = self.types;
        let owner = types.at(index);
        let mut failure = None;
        members.retain(|name, value| {
            let Some(field) = owner.field(name) else {
                if failure.is_none() {
                    self.found.push(format!("unknown field \"{}\"", path.child(Segment::Key(name)).strict()));
                }
                return false;
            };
            if value.is_null() || failure.is_some() {
                return false;
            }
            if let Err(text) = self.value(&field.expr, value, path.field(owner, field.name)) {
                failure = Some(text);
            }
            field.is_kept_empty() || !is_left_out(field, value)
        });
        if let Some(text) = failure {
            return Err(text);
        }
        for field in owner.fields.iter().filter(|field| field.is_zero_if_absent()) {
            if !members.contains_key(field.name) {
                members.insert(field.name.to_owned(), zero(&field.expr));
            }
        }
        Ok(())
    }

    fn go_type(&self, expr: &Expr) -> String {
        match expr {
            Expr::Any | Expr::Object => "map[string]interface {}".into(),
            Expr::Boolean => "bool".into(),
            Expr::Bytes => "[]uint8".into(),
            Expr::Double => "float64".into(),
            Expr::Int32 | Expr::IntOrString => "int32".into(),
            Expr::Int64 => "int64".into(),
            Expr::List(item) => format!("[]{}", self.go_type(item)),
            Expr::Map(item) => format!("map[string]{}", self.go_type(item)),
            Expr::MicroTime => "v1.MicroTime".into(),
            Expr::Quantity => "resource.Quantity".into(),
            Expr::ResourceList => "v1.ResourceList".into(),
            Expr::String => "string".into(),
            Expr::Struct(index) => self.types.at(*index).go_name().into(),
            Expr::Time => "v1.Time".into(),
        }
    }
}

/// What Go holds where JSON said null.
fn zero(expr: &Expr) -> Value {
    match expr {
        Expr::Any | Expr::MicroTime | Expr::Time => Value::Null,
        Expr::Boolean => false.into(),
        Expr::Bytes | Expr::String => "".into(),
        Expr::Double | Expr::Int32 | Expr::Int64 | Expr::IntOrString => 0.into(),
        Expr::List(_) => Value::Array(Vec::new()),
        Expr::Map(_) | Expr::Object | Expr::ResourceList | Expr::Struct(_) => Value::Object(Map::new()),
        Expr::Quantity => "0".into(),
    }
}

/// Go's omitempty: nothing is written of an empty list or map, nor of a zero that is no pointer's.
pub(crate) fn is_left_out(field: &Field, value: &Value) -> bool {
    match (&field.expr, value) {
        (Expr::List(_), Value::Array(items)) => items.is_empty(),
        (Expr::Map(_) | Expr::ResourceList, Value::Object(members)) => members.is_empty(),
        (Expr::Bytes, Value::String(text)) => text.is_empty(),
        _ => field.omits_zero && *value == zero(&field.expr),
    }
}

fn integer(number: &Number) -> Option<i64> {
    number.as_i64()
}

fn quantity(value: &mut Value) -> Result<(), String> {
    let parsed = match value {
        Value::Null => Ok("0".to_owned()),
        Value::String(text) => Quantity::normalise(text.trim()),
        Value::Number(number) => Quantity::normalise(&number.to_string()),
        _ => Quantity::normalise("!"),
    };
    let normal = parsed.map_err(|error| error.to_string())?;
    if value.as_str() != Some(&normal) {
        *value = normal.into();
    }
    Ok(())
}

fn time(text: &str, micro: bool) -> Result<Time, String> {
    match go_time::wrong(text, micro) {
        Some(why) => Err(why),
        None => text.parse().map_err(|_| format!("parsing time {text:?}: out of range")),
    }
}

/// The offset of the first byte that is no padded standard base64; line ends are skipped as Go does.
fn base64_error(text: &str) -> Option<usize> {
    let mut symbols = 0usize;
    let mut padding = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\r' | b'\n' => {}
            b'=' if padding < 2 && (symbols + padding) % 4 >= 2 => padding += 1,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' if padding == 0 => symbols += 1,
            _ => return Some(at),
        }
    }
    (!(symbols + padding).is_multiple_of(4)).then_some(text.len())
}

/// Makes valid base64 the text that Go writes for the same bytes: in one line, and with zeros in the bits behind the last byte.
fn write_as_go(text: &mut String) {
    const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    text.retain(|symbol| !matches!(symbol, '\r' | '\n'));
    let symbols = text.trim_end_matches('=').len();
    let padding = text.len() - symbols;
    let last = text[..symbols].bytes().next_back();
    let Some(value) = last.and_then(|last| SYMBOLS.iter().position(|symbol| *symbol == last)) else { return };
    // Two bits of six for each byte that the last four symbols lack.
    let normal = value >> (2 * padding) << (2 * padding);
    if value != normal {
        text.replace_range(symbols - 1..symbols, char::from(SYMBOLS[normal]).encode_utf8(&mut [0; 4]));
    }
}
