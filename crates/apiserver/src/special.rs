//! What is not stored: reviews, tokens, logs, streams. One row each.

use std::pin::Pin;
use std::sync::Arc;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use object::Status;
use plan::User;
use serde_json::Value;

use crate::query::Query;
use crate::respond::{self, Answer};
use crate::route::Target;
use crate::server::Shared;
use crate::{body, negotiate};

/// A review: the body with its answer in `status`.
type Review = fn(&Shared, &User, &Target, Value) -> Result<Value, Status>;

pub(crate) enum Row {
    Review(Review),
}

const REVIEWS: &[(&str, Review)] = &[
    ("localsubjectaccessreviews.authorization.k8s.io", |shared, _, target, review| {
        let snapshot = shared.store().snapshot();
        shared.rbac.view(&snapshot, |view| access::review::local_subject_access(view, &target.namespace, review))
    }),
    ("selfsubjectaccessreviews.authorization.k8s.io", |shared, user, _, review| {
        let snapshot = shared.store().snapshot();
        shared.rbac.view(&snapshot, |view| access::review::self_subject_access(view, user, review))
    }),
    ("selfsubjectreviews.authentication.k8s.io", |shared, user, _, review| {
        Ok(access::review::self_subject(user, shared.gate.now(), review))
    }),
    ("selfsubjectrulesreviews.authorization.k8s.io", |shared, user, _, review| {
        let snapshot = shared.store().snapshot();
        shared.rbac.view(&snapshot, |view| access::review::self_subject_rules(view, user, review))
    }),
    ("subjectaccessreviews.authorization.k8s.io", |shared, _, _, review| {
        let snapshot = shared.store().snapshot();
        shared.rbac.view(&snapshot, |view| access::review::subject_access(view, review))
    }),
    ("tokenreviews.authentication.k8s.io", |shared, _, _, review| {
        access::review::token(&shared.tokens, &shared.store().snapshot(), shared.gate.now(), review)
    }),
];

/// The row of a request that the store cannot answer.
pub(crate) fn find(target: &Target) -> Option<Row> {
    let resource = target.kind.resource.as_str();
    REVIEWS.iter().find(|(name, _)| *name == resource).map(|(_, review)| Row::Review(*review))
}

impl Row {
    pub(crate) fn answer<'a>(
        self,
        shared: &'a Arc<Shared>,
        user: &'a User,
        target: &'a Target,
        _query: &'a Query,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, Status>> + Send + 'a>> {
        match self {
            Self::Review(review) => Box::pin(answer_review(shared, user, target, review, request)),
        }
    }
}

async fn answer_review(
    shared: &Arc<Shared>,
    user: &User,
    target: &Target,
    review: Review,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    if !negotiate::reads_json(request.headers()) {
        let shape = negotiate::shape(request.headers(), &Query::default());
        return Err(shape.err().unwrap_or_else(|| Status::bad_request("not acceptable")));
    }
    let (head, incoming) = request.into_parts();
    let encoding = body::encoding(&head.headers)?;
    let text = body::read(incoming, shared.config.limits.body_bytes).await?;
    let (mut value, _) = body::parse(target.kind, &body::type_name(target), encoding, &text)?;
    value["apiVersion"] = target.kind.api_version().into();
    value["kind"] = target.kind.kind.into();
    if !value["metadata"].is_object() {
        value["metadata"] = serde_json::json!({});
    }
    review(shared, user, target, value).map(|answer| respond::json(StatusCode::CREATED, &answer))
}
