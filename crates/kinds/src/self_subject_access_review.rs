use object::Resource;
use schema::Kind;

use crate::column::{AGE, NAME};
use crate::row;
use crate::spec::review;

pub const SELF_SUBJECT_ACCESS_REVIEWS: Resource =
    Resource::new("selfsubjectaccessreviews.authorization.k8s.io");

pub static KIND: Kind = Kind {
    resource: SELF_SUBJECT_ACCESS_REVIEWS,
    group: "authorization.k8s.io",
    version: "v1",
    kind: "SelfSubjectAccessReview",
    singular: "selfsubjectaccessreview",
    namespaced: false,
    verbs: row::CREATE_ONLY,
    type_name: "authorization.v1.SelfSubjectAccessReview",
    columns: &[NAME, AGE],
    validate: review::validate_self,
    ..row::BASE
};
