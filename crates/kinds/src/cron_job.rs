use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::Kind;

pub const CRON_JOBS: Resource = Resource::new("cronjobs.batch");

pub static KIND: Kind = Kind {
    resource: CRON_JOBS,
    group: "batch",
    version: "v1",
    kind: "CronJob",
    singular: "cronjob",
    short_names: &["cj"],
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "batch.v1.CronJob",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::SPEC_AND_STATUS,
    ..row::BASE
};
