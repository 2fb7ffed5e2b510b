use crate::{column, row};
use object::Resource;
use schema::Kind;

pub const TOKEN_REVIEWS: Resource = Resource::new("tokenreviews.authentication.k8s.io");

pub static KIND: Kind = Kind {
    resource: TOKEN_REVIEWS,
    group: "authentication.k8s.io",
    version: "v1",
    kind: "TokenReview",
    singular: "tokenreview",
    namespaced: false,
    verbs: row::CREATE_ONLY,
    type_name: "authentication.v1.TokenReview",
    columns: &[column::NAME, column::AGE],
    ..row::BASE
};
