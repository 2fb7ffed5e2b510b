//! A schema as expressions see it: the type of its values, and how large they can be.
//!
//! Sizes that a schema does not bound are bounded by the largest request; what rules may cost is estimated by them.
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#resource-use-by-validation-functions>

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Field, ObjectType, Sizes, Type, escape};
use serde_json::Value;

/// Bytes of the largest request.
const MOST_BYTES: u64 = 3 * 1024 * 1024;
/// The largest duration, date and time as JSON texts.
const DURATION_BYTES: u64 = 32;
const DATE_BYTES: u64 = 12;
const TIME_BYTES: u64 = 42;
/// A character can take four bytes.
const CHARACTER_BYTES: u64 = 4;
/// Quotes and a colon around the key of an entry, and the comma behind it.
const ENTRY_BYTES: u64 = 6;

/// A value's type, its largest sizes, and the fewest bytes that it takes.
pub struct Declared {
    pub r#type: Type,
    pub sizes: Sizes,
    least_bytes: u64,
}

impl Declared {
    fn new(r#type: Type, sizes: Sizes, least_bytes: u64) -> Self {
        Self { r#type, sizes, least_bytes }
    }

    /// How many values of the type a request can hold at most.
    pub fn most_in_request(&self) -> u64 {
        MOST_BYTES / (self.least_bytes + 1)
    }
}

/// The type of a schema's values; None: expressions cannot reach them. `path` names the types of its objects.
pub fn declared(schema: &Value, is_resource: bool, path: &str) -> Option<Declared> {
    let count = |name: &str| schema.get(name).and_then(Value::as_u64);
    let is = |name: &str| schema.get(name) == Some(&Value::Bool(true));
    if is("x-kubernetes-int-or-string") {
        return Some(Declared::new(Type::Dyn, Sizes::most(MOST_BYTES - 2), 1));
    }
    Some(match schema.get("type").and_then(Value::as_str)? {
        "array" => {
            let items = schema.get("items")?;
            let element =
                declared(items, flag(items, "x-kubernetes-embedded-resource"), &format!("{path}.@idx"))?;
            let most = count("maxItems").unwrap_or_else(|| most_items(element.least_bytes));
            Declared::new(Type::list(element.r#type), Sizes::list(most, element.sizes), 2)
        }
        "boolean" => Declared::new(Type::Bool, Sizes::most(1), 4),
        "integer" => Declared::new(Type::Int, Sizes::most(1), 1),
        "number" => Declared::new(Type::Double, Sizes::most(1), 1),
        "object" => object(schema, is_resource, path),
        "string" => text(schema, count("maxLength")),
        _ => return None,
    })
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

/// How many elements of at least this size fit into a request.
fn most_items(least_bytes: u64) -> u64 {
    (MOST_BYTES - 2) / (least_bytes + 1)
}

fn most_entries(least_bytes: u64) -> u64 {
    (MOST_BYTES - 2) / (least_bytes + ENTRY_BYTES)
}

/// How many values the schemas within a schema can have for each of its own; None: nothing bounds them.
pub fn multiplies(schema: &Value) -> Option<u64> {
    let count = |name: &str| schema.get(name).and_then(Value::as_i64).map(|most| most.max(0).unsigned_abs());
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => count("maxItems"),
        Some("object") if schema.get("additionalProperties").is_some_and(|values| !values.is_null()) => {
            count("maxProperties")
        }
        _ => Some(1),
    }
}

fn object(schema: &Value, is_resource: bool, path: &str) -> Declared {
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object())
        && let Some(value) = declared(values, false, &format!("{path}.@elem"))
    {
        let most = schema.get("maxProperties").and_then(Value::as_u64);
        let most = most.unwrap_or_else(|| most_entries(value.least_bytes));
        // Upstream counts the keys of a map as empty; to count more would refuse definitions that it takes.
        let key = Sizes::most(0);
        let of = Type::map(Type::String, value.r#type);
        return Declared::new(of, Sizes::map(most, key, value.sizes), 2);
    }
    let mut fields = BTreeMap::new();
    let mut least_bytes = 2;
    let required = schema.get("required").and_then(Value::as_array);
    for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let is_embedded = flag(inner, "x-kubernetes-embedded-resource");
        let Some(field) = declared(inner, is_embedded, &format!("{path}.{name}")) else { continue };
        let is_required = required.is_some_and(|all| all.iter().any(|one| one == name));
        if is_required && inner.get("default").is_none() {
            least_bytes += name.len() as u64 + 4 + field.least_bytes;
        }
        let field = Field { name: name.clone(), r#type: field.r#type, sizes: field.sizes };
        fields.insert(escape(name), field);
    }
    if is_resource {
        let text = || (Type::String, Sizes::most(MOST_BYTES));
        for (name, (r#type, sizes)) in
            [("apiVersion", text()), ("kind", text()), ("metadata", metadata(path))]
        {
            fields.insert(name.to_owned(), Field { name: name.to_owned(), r#type, sizes });
        }
    }
    let object = ObjectType { name: format!("object{path}"), fields, open: false };
    Declared::new(Type::Object(Arc::new(object)), Sizes::most(1), least_bytes)
}

/// Of metadata expressions see the names alone.
fn metadata(path: &str) -> (Type, Sizes) {
    let field = |name: &str| {
        let field = Field { name: name.to_owned(), r#type: Type::String, sizes: Sizes::most(253) };
        (name.to_owned(), field)
    };
    let fields = BTreeMap::from([field("generateName"), field("name")]);
    let object = ObjectType { name: format!("object{path}.metadata"), fields, open: false };
    (Type::Object(Arc::new(object)), Sizes::most(1))
}

fn text(schema: &Value, most: Option<u64>) -> Declared {
    let bounded = |of: Type, most: u64| Declared::new(of, Sizes::most(most), 2);
    match schema.get("format").and_then(Value::as_str) {
        Some("byte") => return bounded(Type::Bytes, most.unwrap_or(MOST_BYTES - 2)),
        Some("duration") => return bounded(Type::Duration, most.unwrap_or(DURATION_BYTES)),
        Some("date") => return bounded(Type::Timestamp, DATE_BYTES),
        Some("date-time") => return bounded(Type::Timestamp, TIME_BYTES),
        _ => {}
    }
    let options = schema.get("enum").and_then(Value::as_array);
    let longest = || options?.iter().filter_map(Value::as_str).map(|one| one.len() as u64).max();
    let most = most.map(|most| most.saturating_mul(CHARACTER_BYTES)).or_else(longest);
    bounded(Type::String, most.unwrap_or(MOST_BYTES - 2))
}
