use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::names;
use schema::{Kind, Strategy};

pub const POD_DISRUPTION_BUDGETS: Resource = Resource::new("poddisruptionbudgets.policy");

pub static KIND: Kind = Kind {
    resource: POD_DISRUPTION_BUDGETS,
    group: "policy",
    version: "v1",
    kind: "PodDisruptionBudget",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "policy.v1.PodDisruptionBudget",
    name: names::path_segment,
    columns: &[column::NAME, column::AGE],
    strategy: Strategy { unconditional_update: false, ..strategy::SPEC_AND_STATUS },
    ..row::BASE
};
