use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::Kind;

pub const DAEMON_SETS: Resource = Resource::new("daemonsets.apps");

pub static KIND: Kind = Kind {
    resource: DAEMON_SETS,
    group: "apps",
    version: "v1",
    kind: "DaemonSet",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "apps.v1.DaemonSet",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::SPEC_AND_STATUS,
    ..row::BASE
};
