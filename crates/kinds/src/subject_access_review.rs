use object::Resource;
use schema::Kind;

use crate::column::{AGE, NAME};
use crate::row;
use crate::spec::review;

pub const SUBJECT_ACCESS_REVIEWS: Resource = Resource::new("subjectaccessreviews.authorization.k8s.io");

pub static KIND: Kind = Kind {
    resource: SUBJECT_ACCESS_REVIEWS,
    group: "authorization.k8s.io",
    version: "v1",
    kind: "SubjectAccessReview",
    singular: "subjectaccessreview",
    namespaced: false,
    verbs: row::CREATE_ONLY,
    type_name: "authorization.v1.SubjectAccessReview",
    columns: &[NAME, AGE],
    validate: review::validate_subject,
    ..row::BASE
};
