use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::Kind;

pub const HORIZONTAL_POD_AUTOSCALERS: Resource = Resource::new("horizontalpodautoscalers.autoscaling");

pub static KIND: Kind = Kind {
    resource: HORIZONTAL_POD_AUTOSCALERS,
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "autoscaling.v2.HorizontalPodAutoscaler",
    columns: &[column::NAME, column::AGE],
    strategy: strategy::STATUS,
    ..row::BASE
};
