//! What the configuration files of `apiserver.config.k8s.io` have in common.

use std::sync::Arc;

use cel::{Field, ObjectType, Sizes, Type, Value as Cel};
use schema::Violation;
use serde::de::DeserializeOwned;
use serde_json::Value;

const GROUP: &str = "apiserver.config.k8s.io";
/// Older versions say the same in the fields that are known here.
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];

/// What a file of this kind says below its head. Fields that `T` does not know are refused, if it says so.
pub fn content<T: DeserializeOwned>(file: &Value, kind: &str) -> Result<T, String> {
    let text = |name: &str| file[name].as_str().unwrap_or_default();
    let version = text("apiVersion").strip_prefix(GROUP).and_then(|rest| rest.strip_prefix('/'));
    if text("kind") != kind || !version.is_some_and(|version| VERSIONS.contains(&version)) {
        return Err(format!(
            "it is of apiVersion {:?} and kind {:?}: expected {GROUP}/v1 and {kind}",
            text("apiVersion"),
            text("kind")
        ));
    }
    let mut members = file.as_object().cloned().unwrap_or_default();
    members.retain(|name, _| name != "apiVersion" && name != "kind");
    serde_json::from_value(members.into()).map_err(|error| format!("strict decoding error: {error}"))
}

/// What is wrong, each with the field it is about.
pub fn told(found: &[Violation]) -> Vec<String> {
    found.iter().map(|one| format!("{}: {}", one.field, one.body())).collect()
}

/// `5m`, `1m30s`, `500ms`: milliseconds of a duration as Go writes it. None: it is none, or negative.
pub fn go_duration_ms(text: &str) -> Option<u64> {
    let json = Value::from(text);
    match cel::from_json(&json, &Type::Duration) {
        Cel::Duration(length) => u64::try_from(length.as_millis()).ok(),
        _ => None,
    }
}

/// A message of these fields.
pub fn message(name: &str, fields: &[(&str, Type)]) -> Type {
    let fields = fields.iter().map(|(name, r#type)| {
        let field = Field { name: (*name).to_owned(), r#type: r#type.clone(), sizes: Sizes::default() };
        ((*name).to_owned(), field)
    });
    Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields: fields.collect(), open: false }))
}
