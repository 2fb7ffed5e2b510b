use crate::{column, row};
use object::Resource;
use schema::Kind;

pub const SELF_SUBJECT_REVIEWS: Resource = Resource::new("selfsubjectreviews.authentication.k8s.io");

pub static KIND: Kind = Kind {
    resource: SELF_SUBJECT_REVIEWS,
    group: "authentication.k8s.io",
    version: "v1",
    kind: "SelfSubjectReview",
    singular: "selfsubjectreview",
    namespaced: false,
    verbs: row::CREATE_ONLY,
    type_name: "authentication.v1.SelfSubjectReview",
    columns: &[column::NAME, column::AGE],
    ..row::BASE
};
