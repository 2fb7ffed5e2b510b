use crate::{column, row};
use object::Resource;
use schema::Kind;

pub const SELF_SUBJECT_RULES_REVIEWS: Resource =
    Resource::new("selfsubjectrulesreviews.authorization.k8s.io");

pub static KIND: Kind = Kind {
    resource: SELF_SUBJECT_RULES_REVIEWS,
    group: "authorization.k8s.io",
    version: "v1",
    kind: "SelfSubjectRulesReview",
    singular: "selfsubjectrulesreview",
    namespaced: false,
    verbs: row::CREATE_ONLY,
    type_name: "authorization.v1.SelfSubjectRulesReview",
    columns: &[column::NAME, column::AGE],
    ..row::BASE
};
