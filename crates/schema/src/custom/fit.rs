//! From what a client sent to what is kept: unknown fields and nulls dropped, metadata read, defaults filled in.
//!
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#field-pruning>,
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#defaulting>

use serde_json::{Map, Value};

use super::node::{Additional, Node};
use crate::decode::{DecodeError, FieldValidation};
use crate::types::Types;

const OBJECT_META: &str = "meta.v1.ObjectMeta";
const OWN_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops what the schema does not specify. Gives the fields that were dropped, each by its path.
///
/// # Errors
/// Metadata that is none.
pub(crate) fn prune(node: &Node, types: &Types, value: &mut Value) -> Result<Vec<String>, DecodeError> {
    let mut walk = Walk { types: Some(types), dropped: Vec::new() };
    walk.value(Some(node), value, &mut String::new())?;
    Ok(walk.dropped)
}

/// As [`prune`], of an object that was kept: its metadata is as it should be.
pub(crate) fn trim(node: &Node, value: &mut Value) {
    let mut walk = Walk { types: None, dropped: Vec::new() };
    // Only metadata can fail, and it is not looked at.
    let _ = walk.value(Some(node), value, &mut String::new());
}

struct Walk<'t> {
    /// To read metadata with; None: it is left alone.
    types: Option<&'t Types>,
    dropped: Vec<String>,
}

impl Walk<'_> {
    fn value(
        &mut self,
        node: Option<&Node>,
        value: &mut Value,
        path: &mut String,
    ) -> Result<(), DecodeError> {
        match value {
            Value::Object(members) => self.members(node, members, path),
            Value::Array(items) => {
                let inner = node.and_then(|node| node.items.as_deref());
                let keeps = node.is_some_and(|node| node.keeps_unknown) && inner.is_none();
                if keeps {
                    return Ok(());
                }
                for (index, item) in items.iter_mut().enumerate() {
                    within(path, &format!("[{index}]"), |path| self.value(inner, item, path))?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn members(
        &mut self,
        node: Option<&Node>,
        members: &mut Map<String, Value>,
        path: &mut String,
    ) -> Result<(), DecodeError> {
        let is_resource = node.is_some_and(|node| node.is_resource);
        if is_resource {
            for name in ["apiVersion", "kind"] {
                if let Some(own) = members.get(name).filter(|own| self.types.is_some() && !own.is_string()) {
                    let why = format!("{path}{}: Invalid value: {own}: must be a string", step(path, name));
                    return Err(DecodeError::Type(why));
                }
            }
            self.metadata(members, path)?;
        }
        let mut failure = None;
        members.retain(|name, value| {
            if failure.is_some() || is_resource && OWN_FIELDS.contains(&name.as_str()) {
                return true;
            }
            let known = match node {
                None => None,
                Some(node) => match (node.properties.get(name.as_str()), &node.additional) {
                    (Some(inner), _) => Some(Some(inner)),
                    (None, Some(Additional::Node(inner))) => Some(Some(&**inner)),
                    // What stands where nothing is specified is kept whole only if the schema asks for it.
                    (None, _) if node.keeps_unknown => return true,
                    (None, Some(Additional::Any)) => Some(None),
                    (None, _) => None,
                },
            };
            within(path, &step(path, name), |path| match known {
                Some(inner) => {
                    if let Err(error) = self.value(inner, value, path) {
                        failure = Some(error);
                    }
                    true
                }
                None => {
                    self.dropped.push(path.clone());
                    false
                }
            })
        });
        failure.map_or(Ok(()), Err)
    }

    /// An object's metadata is the same in every resource, embedded ones included.
    fn metadata(&mut self, members: &mut Map<String, Value>, path: &str) -> Result<(), DecodeError> {
        let (Some(metadata), Some(types)) = (members.get_mut("metadata"), self.types) else { return Ok(()) };
        if metadata.is_null() {
            members.remove("metadata");
            return Ok(());
        }
        let at = format!("{path}{}", step(path, "metadata"));
        let given = metadata.take();
        // Of what is embedded the place is told, and the value.
        let shown = (!path.is_empty()).then(|| given.to_string());
        let decoded =
            types.conform(OBJECT_META, given, FieldValidation::Warn).map_err(|error| match shown {
                Some(shown) => DecodeError::Type(format!("{at}: Invalid value: {shown}: {error}")),
                None => error,
            })?;
        *metadata = decoded.value;
        self.dropped.extend(decoded.warnings.into_iter().filter_map(|text| {
            let name = text.strip_prefix("unknown field \"")?.strip_suffix('"')?;
            Some(format!("{at}.{name}"))
        }));
        Ok(())
    }
}

fn step(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!(".{name}") }
}

/// Does something one step deeper.
fn within<T>(path: &mut String, step: &str, go: impl FnOnce(&mut String) -> T) -> T {
    let length = path.len();
    path.push_str(step);
    let done = go(path);
    path.truncate(length);
    done
}

/// Writes numbers without a fraction as integers, as Go's encoder does: `1.0` is `1`.
pub(crate) fn whole_numbers(value: &mut Value) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(whole) = number.as_f64().filter(|one| one.fract() == 0.0 && one.abs() < EXACT) {
                *value = Value::from(whole as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(members) => members.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// Drops nulls that stand for nothing, and fills in defaults. Doing it again changes nothing.
pub(crate) fn default(node: &Node, value: &mut Value) {
    match value {
        Value::Object(members) => default_members(node, members),
        Value::Array(items) => {
            let Some(inner) = node.items.as_deref() else { return };
            for item in items {
                if item.is_null()
                    && inner.prunes_null()
                    && let Some(default) = &inner.default
                {
                    *item = default.clone();
                }
                default(inner, item);
            }
        }
        _ => {}
    }
}

fn default_members(node: &Node, members: &mut Map<String, Value>) {
    members.retain(|name, value| {
        if !value.is_null() {
            return true;
        }
        let own = node.is_resource && OWN_FIELDS.contains(&name.as_str());
        own || node
            .member(name)
            .is_none_or(|inner| !inner.prunes_null() || additional_default(node, name).is_some())
    });
    for (name, inner) in &node.properties {
        if let Some(default) = &inner.default
            && !members.contains_key(&**name)
        {
            members.insert(name.to_string(), default.clone());
        }
    }
    for (name, value) in members.iter_mut() {
        if value.is_null()
            && let Some(default) = additional_default(node, name)
        {
            *value = default.clone();
        }
        if let Some(inner) = node.member(name) {
            default(inner, value);
        }
    }
}

/// The default of an entry of a map: it takes the place of a null.
fn additional_default<'a>(node: &'a Node, name: &str) -> Option<&'a Value> {
    match &node.additional {
        Some(Additional::Node(inner)) if !node.properties.contains_key(name) && !inner.nullable => {
            inner.default.as_ref()
        }
        _ => None,
    }
}
