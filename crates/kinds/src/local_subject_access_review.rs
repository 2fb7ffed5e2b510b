use crate::{column, row};
use object::Resource;
use schema::Kind;

pub const LOCAL_SUBJECT_ACCESS_REVIEWS: Resource =
    Resource::new("localsubjectaccessreviews.authorization.k8s.io");

pub static KIND: Kind = Kind {
    resource: LOCAL_SUBJECT_ACCESS_REVIEWS,
    group: "authorization.k8s.io",
    version: "v1",
    kind: "LocalSubjectAccessReview",
    singular: "localsubjectaccessreview",
    namespaced: true,
    verbs: row::CREATE_ONLY,
    type_name: "authorization.v1.LocalSubjectAccessReview",
    columns: &[column::NAME, column::AGE],
    ..row::BASE
};
