use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::{Kind, Strategy};

pub const JOBS: Resource = Resource::new("jobs.batch");

pub static KIND: Kind = Kind {
    resource: JOBS,
    group: "batch",
    version: "v1",
    kind: "Job",
    singular: "job",
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "batch.v1.Job",
    columns: &[column::NAME, column::AGE],
    selectable: &["status.successful"],
    strategy: Strategy { orphans_by_default: true, ..strategy::SPEC_AND_STATUS },
    ..row::BASE
};
