use std::borrow::Cow;
use std::sync::Arc;

use object::{Object, Resource, Time};
use serde_json::Value;

use crate::custom::{Custom, Node, PathCell};
use crate::{At, DecodeError, Decoded, FieldValidation, Types, Violation};

/// A kind: everything that the system must know to serve it. Built-ins are constants; a definition of a custom resource makes one for each
/// of its versions when it is established. Names of the latter are interned.
///
/// What differs between the two is decided here and nowhere else: whoever asks a row does not know where it comes from.
#[derive(Clone, Debug)]
pub struct Kind {
    /// `pods`, `deployments.apps`
    pub resource: Resource,
    /// `apps`; empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    /// The minor version of Kubernetes that serves it first, without being asked to: 36. Zero: every one that can be chosen.
    pub since: u8,
    /// Whether clients should go elsewhere; of compiled-in rows: what a definition says is in `custom`.
    pub deprecated: Option<Deprecated>,
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
    /// Of compiled-in rows; ask [`Kind::columns`].
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
    /// What is wrong with an update through a subresource (`status`, `resize`) beside what `validate` says.
    pub validate_part: fn(part: &str, new: &Value, old: &Value) -> Vec<Violation>,
    /// What is most likely not meant, of an object as its client gave it, before `Strategy::prepare` completes it; it is told of what
    /// validation refuses, too.
    pub remark: fn(new: &Value, old: Option<&Value>) -> Vec<String>,
    /// What is accepted and most likely not meant, of a new object or of an update; callers ask [`Kind::warnings`].
    pub warn: fn(new: &Value, old: Option<&Value>) -> Vec<String>,
    /// How objects of this version become stored ones and back; None: this is the stored version.
    pub conversion: Option<Conversion>,
    /// What a definition says; None: the row was compiled in, and the table of types says it.
    pub custom: Option<Arc<Custom>>,
}

/// A version of a kind that clients should leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deprecated {
    /// The minor version of Kubernetes that says so first: 33.
    pub since: u8,
    /// The one that serves it no more; None: nobody has said when.
    pub removed: Option<u8>,
    /// Group with version, and kind, of what is there instead: `("discovery.k8s.io/v1", "EndpointSlice")`.
    pub instead: Option<(&'static str, &'static str)>,
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
#[derive(Clone, Debug)]
pub struct Column {
    pub name: Cow<'static, str>,
    /// OpenAPI type: `string`, `integer`, `date`, …
    pub r#type: &'static str,
    /// OpenAPI format: `name` for the Name column, otherwise mostly empty.
    pub format: &'static str,
    pub description: Cow<'static, str>,
    /// Above zero: shown with `-o wide` only.
    pub priority: i32,
    pub cell: Cell,
}

/// How a cell is made of an object; `now` is for ages.
#[derive(Clone, Debug)]
pub enum Cell {
    Compiled(fn(&Value, now: Time) -> Value),
    Path(PathCell),
}

impl Column {
    pub fn cell(&self, object: &Value, now: Time) -> Value {
        match &self.cell {
            Cell::Compiled(cell) => cell(object, now),
            Cell::Path(path) => path.cell(object, now),
        }
    }
}

/// How a kind behaves when it is written: <https://kubernetes.io/docs/reference/using-api/api-concepts/>.
#[derive(Clone, Copy, Debug)]
pub struct Strategy {
    /// The paths whose change raises metadata.generation (`spec` mostly); none: the kind has no generation. [`WHOLE`] stands for everything
    /// but metadata and `main_keeps`.
    pub generation: &'static [&'static str],
    /// Top-level fields that a write of the main resource leaves as they were (`status`); a new object starts with them empty.
    pub main_keeps: &'static [&'static str],
    /// Top-level fields that a write of the main resource may set and does not own.
    pub unowned: &'static [&'static str],
    /// A write of the status leaves labels, annotations, finalizers and owners as they are.
    pub status_keeps_metadata: bool,
    /// PUT of an absent object creates it.
    pub create_on_update: bool,
    /// PUT without a resourceVersion overwrites.
    pub unconditional_update: bool,
    /// Seconds of grace when a DELETE names none; None: deletion is at once.
    pub grace_seconds: Option<fn(&Value) -> i64>,
    /// What happens to dependents when a DELETE does not say.
    pub orphans_by_default: bool,
    /// What the first DELETE of an object writes into it, where something has to happen before it may go.
    pub begin_deletion: Option<fn(&mut Value, now: Time)>,
    /// Fields that creation and updates set or clear whatever the client says; `old` is absent on create.
    pub prepare: fn(new: &mut Value, old: Option<&Value>),
}

/// The value at a path as field selectors compare it: text as it is, numbers and truth values written out, nothing as "".
pub fn selected(object: &Value, path: &str) -> Box<str> {
    match crate::path::get(object, path) {
        Some(Value::String(text)) => text.as_str().into(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string().into(),
        _ => "".into(),
    }
}

/// See [`Strategy::generation`].
pub const WHOLE: &[&str] = &["*"];

impl Kind {
    /// What clients are warned of, in upstream's words; None: nothing.
    pub fn deprecation(&self) -> Option<Cow<'_, str>> {
        if let Some(custom) = &self.custom {
            return custom.deprecation.as_deref().map(Cow::Borrowed);
        }
        let Deprecated { since, removed, instead } = self.deprecated?;
        let slash = if self.group.is_empty() { "" } else { "/" };
        let (group, version, kind) = (self.group, self.version, self.kind);
        let removed = removed.map(|minor| format!(", unavailable in v1.{minor}+")).unwrap_or_default();
        let instead = instead.map(|(version, kind)| format!("; use {version} {kind}")).unwrap_or_default();
        Some(format!("{group}{slash}{version} {kind} is deprecated in v1.{since}+{removed}{instead}").into())
    }

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

    /// What a field selector compares a selectable path with.
    pub fn selectable_value(&self, object: &Value, path: &str) -> Box<str> {
        if let Some(value) = (self.selected)(object, path) {
            return value.into();
        }
        selected(object, path)
    }

    pub fn columns(&self) -> &[Column] {
        self.custom.as_ref().map_or(self.columns, |custom| &custom.columns)
    }

    /// Reads a tree as an object of the kind: types checked, unknown fields dropped, values normalised.
    ///
    /// # Errors
    /// A value of the wrong type, or with `Strict` an unknown field. What a schema says of types is a violation, no error here.
    pub fn conform(
        &self,
        types: &Types,
        mut value: Value,
        mode: FieldValidation,
    ) -> Result<Decoded, DecodeError> {
        let Some(custom) = &self.custom else { return types.conform(self.type_name, value, mode) };
        let found = custom.conform(types, &mut value)?;
        crate::decode::judged(value, found, mode)
    }

    /// Fills in every default. Doing it again changes nothing.
    pub fn fill_in(&self, types: &Types, object: &mut Value) {
        match &self.custom {
            Some(custom) => custom.default(object),
            None => types.default(self.type_name, object),
        }
        (self.default)(object);
    }

    /// The schema of a row that a definition made.
    pub fn schema(&self) -> Option<&Node> {
        self.custom.as_ref().map(|custom| &*custom.schema)
    }

    /// Whether a webhook makes objects of this version. A row cannot call it: what it is given to show must have passed
    /// `Gate::in_version`, and is taken as it comes.
    pub fn is_made_by_webhook(&self) -> bool {
        self.custom.as_ref().is_some_and(|custom| custom.webhook.is_some())
    }

    /// Whether a stored object is, byte for byte, what a reader of this version gets.
    pub fn reads_as_stored(&self, object: &Object) -> bool {
        match &self.custom {
            Some(custom) => custom.webhook.is_some() || custom.is_kept_as(&self.api_version(), object),
            None => self.conversion.is_none(),
        }
    }

    /// A stored object in this version.
    pub fn read_stored(&self, mut object: Value) -> Value {
        match (&self.custom, self.conversion) {
            (Some(custom), _) if custom.webhook.is_some() => object,
            (Some(custom), _) => {
                custom.fit(&self.api_version(), &mut object);
                object
            }
            (None, Some(conversion)) => (conversion.from_stored)(object),
            (None, None) => object,
        }
    }

    /// An object of this version as it is stored.
    pub fn to_stored(&self, object: Value) -> Value {
        match (&self.custom, self.conversion) {
            (Some(custom), _) => custom.to_stored(object),
            (None, Some(conversion)) => (conversion.to_stored)(object),
            (None, None) => object,
        }
    }

    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|one| one.name == name)
    }

    /// Everything wrong with an object: its metadata, then what the kind asks.
    pub fn violations(&self, new: &Value, old: Option<&Value>) -> Vec<Violation> {
        let mut found = self.violations_but_rules(new, old);
        found.extend(self.broken_rules(new, old, &found).into_iter().flatten());
        found
    }

    /// What the rules of a definition have against an object; None: there are none to ask. `found`: what else is wrong with it.
    pub fn broken_rules(
        &self,
        new: &Value,
        old: Option<&Value>,
        found: &[Violation],
    ) -> Option<Vec<Violation>> {
        let custom = self.custom.as_ref().filter(|_| self.other_kind(new).is_none())?;
        custom.broken_rules(new, old, found)
    }

    /// The kind that a custom resource says to be, if it is another.
    fn other_kind<'v>(&self, new: &'v Value) -> Option<&'v Value> {
        new.get("kind").filter(|kind| self.custom.is_some() && **kind != self.kind)
    }

    /// As [`Kind::violations`], without those of a definition's rules.
    pub fn violations_but_rules(&self, new: &Value, old: Option<&Value>) -> Vec<Violation> {
        if let Some(kind) = self.other_kind(new) {
            return vec![Violation::invalid(At::root("kind"), kind, format!("must be {}", self.kind))];
        }
        let mut found = crate::metadata::violations(self, new, old);
        if let Some(custom) = &self.custom {
            custom.violations(self.subresource("status").is_some(), new, old, &mut found);
        }
        found.extend((self.validate)(new, old));
        found
    }

    /// What the rules of a definition have against values that an update leaves as they were: texts of `Warning` headers, told of what is
    /// refused, too. `found` is what is wrong with the object; where that keeps rules from being asked, nothing is told.
    pub fn ratcheted(&self, new: &Value, old: &Value, found: &[Violation]) -> Vec<String> {
        let kept = self.custom.as_ref().map(|custom| custom.ratcheted(new, old, found));
        kept.into_iter().flatten().map(|one| format!("{}: {}", one.field, one.body())).collect()
    }

    /// What is accepted and most likely not meant: texts of `Warning` headers.
    pub fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        match self.custom {
            Some(_) => crate::metadata::finalizer_warnings(new, old),
            None => (self.warn)(new, old),
        }
    }
}
