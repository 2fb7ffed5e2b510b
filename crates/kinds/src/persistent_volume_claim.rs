use crate::spec::check::Found;
use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::{At, Kind};
use serde_json::Value;

pub const PERSISTENT_VOLUME_CLAIMS: Resource = Resource::new("persistentvolumeclaims");

pub static KIND: Kind = Kind {
    resource: PERSISTENT_VOLUME_CLAIMS,
    group: "",
    version: "v1",
    kind: "PersistentVolumeClaim",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "core.v1.PersistentVolumeClaim",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::STATUS,
    ..row::BASE
};

pub fn validate_spec(_spec: &Value, _at: At<'_>, _found: &mut Found) {}
