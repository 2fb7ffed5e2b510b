//! What a kind is that was not compiled in: a version of a CustomResourceDefinition, ready to be served.
//!
//! ```text
//! node        the schema as a tree         structural  what a schema must be
//! fit         prune, nulls, defaults       validate    what is wrong with an object
//! json_path   columns                      publish     the schema in OpenAPI documents
//! open_api    what each schema of it must be by itself
//! field_path  members in a schema, as rules name them
//! review      what conversion webhooks are asked
//! ```

pub mod field_path;
mod fit;
mod format;
mod json_path;
mod node;
mod open_api;
mod pattern;
pub mod publish;
mod review;
mod rules;
pub mod structural;
mod validate;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use object::{Object, Revision, Time};
use serde_json::Value;

pub use format::unknown_formats;
pub use json_path::JsonPath;
pub use node::{Additional, Compile, JsonType, List, Node};
pub use open_api::REASONS;
pub use review::ConversionFault;
pub use rules::{Answer, Asked, Rules, Which, of_default};

use crate::{Column, DecodeError, Types, Violation, go};

/// What a row has that was made from a definition.
#[derive(Clone, Debug)]
pub struct Custom {
    pub schema: Arc<Node>,
    /// `openAPIV3Schema` as it was written.
    pub source: Arc<Value>,
    pub columns: Vec<Column>,
    pub scale: Option<Scale>,
    /// What clients of this version are warned of.
    pub deprecation: Option<Box<str>>,
    /// `apiVersion` of the version that objects are kept in, and its schema.
    pub stored: (Box<str>, Arc<Node>),
    /// Who makes objects of one version into those of another; None: nothing of them changes but its name.
    pub webhook: Option<Arc<ConversionWebhook>>,
    /// Objects of later revisions were written under this very schema.
    pub since: Revision,
}

/// `spec.conversion.webhook` of a definition.
#[derive(Clone, Debug, PartialEq)]
pub struct ConversionWebhook {
    /// `clientConfig`: where it is, and whose certificate it has.
    pub client_config: Value,
    /// `conversionReviewVersions`, the preferred first.
    pub review_versions: Vec<Box<str>>,
}

/// Where a scale's numbers stand: `spec.replicas`, without the leading dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    pub spec_replicas: Box<str>,
    pub status_replicas: Box<str>,
    /// Of a selector as text.
    pub selector: Option<Box<str>>,
}

impl Custom {
    /// Checks the form of a body: drops what the schema does not have and says so.
    ///
    /// # Errors
    /// Metadata that is none.
    pub(crate) fn conform(&self, types: &Types, value: &mut Value) -> Result<Vec<String>, DecodeError> {
        let dropped = fit::prune(&self.schema, types, value)?;
        fit::whole_numbers(value);
        Ok(dropped.into_iter().map(|path| format!("unknown field \"{path}\"")).collect())
    }

    pub(crate) fn default(&self, value: &mut Value) {
        fit::default(&self.schema, value);
    }

    /// Whether a stored object is, byte for byte, what a reader of `api_version` gets.
    pub fn is_kept_as(&self, api_version: &str, object: &Object) -> bool {
        object.revision > self.since && *self.stored.0 == *api_version && begins_as(&object.body, api_version)
    }

    /// An object of this version in the one that is kept.
    pub(crate) fn to_stored(&self, mut value: Value) -> Value {
        if !Arc::ptr_eq(&self.schema, &self.stored.1) {
            self.fit_stored(&mut value);
        }
        value
    }

    /// Makes an object one of this version, by the schema and the name: what the schema does not have is cut, what it has defaults for is
    /// completed. Once the webhook was asked, if there is one, that is all.
    pub fn fit(&self, api_version: &str, value: &mut Value) {
        convert(value, api_version, &self.schema);
    }

    /// As [`Custom::fit`], of the version that objects are kept in.
    pub fn fit_stored(&self, value: &mut Value) {
        convert(value, &self.stored.0, &self.stored.1);
    }

    /// See [`Kind::violations`]; `has_status`: the status is a subresource.
    pub(crate) fn violations(
        &self,
        has_status: bool,
        new: &Value,
        old: Option<&Value>,
        found: &mut Vec<Violation>,
    ) {
        validate::violations(self, has_status, new, old, found);
    }

    /// See [`Kind::broken_rules`].
    pub(crate) fn broken_rules(
        &self,
        new: &Value,
        old: Option<&Value>,
        found: &[Violation],
    ) -> Option<Vec<Violation>> {
        validate::broken_rules(&self.schema, new, old, found)
    }

    /// See [`Kind::ratcheted`].
    pub(crate) fn ratcheted(&self, new: &Value, old: &Value, found: &[Violation]) -> Vec<Violation> {
        validate::ratcheted(&self.schema, new, old, found)
    }

    /// Tells one schema from another, for as long as this program is the same.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.source.to_string().hash(&mut hasher);
        hasher.finish()
    }
}

/// Whether a body says that it is of a version: that of an object deleted since has its revision and not its form from then.
fn begins_as(body: &[u8], api_version: &str) -> bool {
    let told =
        body.strip_prefix(b"{\"apiVersion\":\"").and_then(|rest| rest.strip_prefix(api_version.as_bytes()));
    told.is_some_and(|rest| rest.first() == Some(&b'"'))
}

fn convert(value: &mut Value, api_version: &str, schema: &Node) {
    fit::trim(schema, value);
    fit::default(schema, value);
    if let Some(members) = value.as_object_mut() {
        members.insert("apiVersion".into(), api_version.into());
    }
}

impl Scale {
    fn violations(&self, object: &Value, found: &mut Vec<Violation>) {
        for at in [&self.spec_replicas, &self.status_replicas] {
            let field = format!(".{at}");
            let (value, why) = match found_at(object, at, Value::as_i64, "int64") {
                Ok(Some(number @ ..0)) => (number, "should be a non-negative integer".to_owned()),
                Ok(Some(number)) if number > i64::from(i32::MAX) => {
                    (number, "should be less than or equal to 2147483647".to_owned())
                }
                Ok(_) => continue,
                Err(why) => (0, why),
            };
            found.push(Violation::invalid(crate::At::root(&field), value, why));
        }
        if let Some(at) = &self.selector
            && let Err(why) = found_at(object, at, |value| value.as_str().map(|_| ()), "string")
        {
            found.push(Violation::invalid(crate::At::root(&format!(".{at}")), "", why));
        }
    }
}

/// What stands at a path of members, as `spec.replicas`; None: nothing does.
///
/// # Errors
/// Something else does, in the words of upstream's accessors.
fn found_at<T>(
    object: &Value,
    path: &str,
    read: fn(&Value) -> Option<T>,
    wanted: &str,
) -> Result<Option<T>, String> {
    let wrong = |path: &str, value: &Value, wanted: &str| {
        let (shown, is) = (go::printed(value), go::type_of(value));
        format!(".{path} accessor error: {shown} is of the type {is}, expected {wanted}")
    };
    let mut place = object;
    let mut walked = 0;
    for name in path.split('.') {
        walked += name.len() + usize::from(walked > 0);
        let members = match place {
            Value::Null => return Ok(None),
            Value::Object(members) => members,
            other => return Err(wrong(&path[..walked], other, "map[string]interface{}")),
        };
        let Some(next) = members.get(name) else { return Ok(None) };
        place = next;
    }
    read(place).map(Some).ok_or_else(|| wrong(path, place, wanted))
}

/// A column of a definition.
#[derive(Clone, Debug)]
pub struct PathCell {
    pub path: JsonPath,
    /// `string`, `date`, …: how what is found is shown.
    pub r#type: &'static str,
}

impl PathCell {
    /// Upstream takes the first of what is found; what is not of the column's type is not shown.
    pub(crate) fn cell(&self, object: &Value, now: Time) -> Value {
        let Some(found) = self.path.first(object) else { return Value::Null };
        match (self.r#type, found) {
            ("integer", Value::Number(number)) => {
                number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)).into()
            }
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => found.clone(),
            ("date", Value::String(text)) => match text.parse::<Time>() {
                Ok(time) => crate::human_duration(now.secs_since(time)).into(),
                Err(_) => "<invalid>".into(),
            },
            ("string", Value::Null) => Value::Null,
            ("string", Value::String(text)) => text.as_str().into(),
            ("string", other) => other.to_string().into(),
            _ => Value::Null,
        }
    }
}
