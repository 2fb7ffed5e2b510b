use serde_json::Value;

use crate::Violation;
use object::{Resource, Time};

/// A kind: everything that the system must know to serve it. Built-ins are constants; a custom resource makes one when it is established.
#[derive(Clone, Debug)]
pub struct Kind {
    /// `pods`, `deployments.apps`
    pub resource: Resource,
    /// `apps`; empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    /// As discovery lists them, sorted.
    pub verbs: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// The name of its type in the table of types: `apps.v1.Deployment`.
    pub type_name: &'static str,
    /// What is wrong with a name of this kind, in upstream's words.
    pub name: fn(&str) -> Vec<String>,
    pub columns: &'static [Column],
    /// Paths that a field selector may name besides `metadata.name` and `metadata.namespace`. The first is indexed.
    /// A converted version lists them in the order of the stored row, which keeps the values.
    pub selectable: &'static [&'static str],
    /// The value of a selectable path where it is not just the text there; None: it is.
    pub selected: fn(object: &Value, path: &str) -> Option<String>,
    pub strategy: Strategy,
    /// What the table of field defaults cannot say: defaults that depend on other fields.
    pub default: fn(&mut Value),
    /// Every violation of a new object; with `old`, also of what an update may not change.
    ///
    /// Callers ask [`Kind::violations`], which checks the metadata too.
    pub validate: fn(new: &Value, old: Option<&Value>) -> Vec<Violation>,
    /// How objects of this version become stored ones and back; None: this is the stored version.
    pub conversion: Option<Conversion>,
}

/// The way between a served version and the stored one.
#[derive(Clone, Copy, Debug)]
pub struct Conversion {
    pub to_stored: fn(Value) -> Value,
    pub from_stored: fn(Value) -> Value,
}

/// A subresource that discovery lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// `status`, `scale`, `exec`
    pub name: &'static str,
    /// The group, version and kind of its body where they differ from the parent's: `("autoscaling", "v1", "Scale")`.
    pub gvk: Option<(&'static str, &'static str, &'static str)>,
    pub verbs: &'static [&'static str],
}

/// One column of `kubectl get`.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `date`, …
    pub r#type: &'static str,
    /// OpenAPI format: `name` for the Name column, otherwise mostly empty.
    pub format: &'static str,
    pub description: &'static str,
    /// Above zero: shown with `-o wide` only.
    pub priority: i32,
    /// The cell of an object; `now` is for ages.
    pub cell: fn(&Value, now: Time) -> Value,
}

/// How a kind behaves when it is written: <https://kubernetes.io/docs/reference/using-api/api-concepts/>.
#[derive(Clone, Copy, Debug)]
pub struct Strategy {
    /// The paths whose change raises metadata.generation (`spec` mostly); none: the kind has no generation.
    pub generation: &'static [&'static str],
    /// Top-level fields that a write of the main resource leaves as they were (`status`); a new object starts with them empty.
    pub main_keeps: &'static [&'static str],
    /// PUT of an absent object creates it.
    pub create_on_update: bool,
    /// PUT without a resourceVersion overwrites.
    pub unconditional_update: bool,
    /// Seconds of grace when a DELETE names none; None: deletion is at once.
    pub grace_seconds: Option<fn(&Value) -> i64>,
    /// What happens to dependents when a DELETE does not say.
    pub orphans_by_default: bool,
    /// Fields that creation and updates set or clear whatever the client says; `old` is absent on create.
    pub prepare: fn(new: &mut Value, old: Option<&Value>),
}

impl Kind {
    /// `PodList`
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Whether objects of it are kept; reviews are only asked.
    pub fn is_stored(&self) -> bool {
        self.verbs.contains(&"get")
    }

    /// What a field selector compares a selectable path with: text as it is, numbers and truth values written out, nothing as "".
    pub fn selectable_value(&self, object: &Value, path: &str) -> Box<str> {
        if let Some(value) = (self.selected)(object, path) {
            return value.into();
        }
        match crate::path::get(object, path) {
            Some(Value::String(text)) => text.as_str().into(),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string().into(),
            _ => "".into(),
        }
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|one| one.name == name)
    }

    /// Everything wrong with an object: its metadata, then what the kind asks.
    pub fn violations(&self, new: &Value, old: Option<&Value>) -> Vec<Violation> {
        let mut found = crate::metadata::violations(self, new, old);
        found.extend((self.validate)(new, old));
        found
    }
}
