use object::Resource;
use schema::{Kind, names, path};
use serde_json::Value;

use crate::strategy;

/// What most kinds have in common; each row names what it has of its own.
pub const BASE: Kind = Kind {
    resource: Resource::new(""),
    group: "",
    version: "",
    since: 0,
    deprecated: None,
    kind: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    subresources: &[],
    type_name: "",
    name: names::dns_subdomain,
    columns: &[],
    selectable: &[],
    selected: |_, _| None,
    strategy: strategy::PLAIN,
    default: |_| {},
    validate: |_, _| Vec::new(),
    validate_part: |_, _, _| Vec::new(),
    remark: |_, _| Vec::new(),
    warn: |_, _| Vec::new(),
    conversion: None,
    custom: None,
};

/// The verbs of what is only asked and never kept: reviews, bindings.
pub const CREATE_ONLY: &[&str] = &["create"];

/// For rows whose selectable flags count as false, and numbers as zero, where they are absent.
pub fn absent_is(zero: &str, object: &Value, path: &str) -> Option<String> {
    path::get(object, path).is_none().then(|| zero.to_owned())
}
