use object::Resource;
use schema::Kind;

use crate::column::{AGE, NAME};
use crate::row;
use crate::spec::review;

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
    columns: &[NAME, AGE],
    validate: review::validate_local,
    ..row::BASE
};
