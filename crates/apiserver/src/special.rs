//! What is not stored: reviews, tokens, logs, streams. One row each.

use std::pin::Pin;
use std::sync::Arc;

use access::service_account::TokenRequest;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use object::{Key, Status};
use plan::User;
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use crate::query::Query;
use crate::respond::{self, Answer};
use crate::route::Target;
use crate::server::Shared;
use crate::{backend, body, kubelet, negotiate, write};

/// Answers a document with another one.
type Reply = fn(&Shared, &User, &Target, Value) -> Result<Value, Status>;

/// What a request is answered by if not by the store.
#[derive(Clone, Copy)]
pub(crate) enum Row {
    /// The body comes back with its answer.
    Reply(Reply),
    /// The old way to bind a pod: the body names it.
    Bind,
    Log,
    /// `exec`, `attach`
    Stream,
    PortForward,
    Proxy,
}

/// (resource, subresource; empty for the resource itself)
const ROWS: &[(&str, &str, Row)] = &[
    ("bindings", "", Row::Bind),
    ("localsubjectaccessreviews.authorization.k8s.io", "", Row::Reply(local_subject_access)),
    ("nodes", "proxy", Row::Proxy),
    ("pods", "attach", Row::Stream),
    ("pods", "exec", Row::Stream),
    ("pods", "log", Row::Log),
    ("pods", "portforward", Row::PortForward),
    ("pods", "proxy", Row::Proxy),
    ("selfsubjectaccessreviews.authorization.k8s.io", "", Row::Reply(self_subject_access)),
    ("selfsubjectreviews.authentication.k8s.io", "", Row::Reply(self_subject)),
    ("selfsubjectrulesreviews.authorization.k8s.io", "", Row::Reply(self_subject_rules)),
    ("serviceaccounts", "token", Row::Reply(token)),
    ("services", "proxy", Row::Proxy),
    ("subjectaccessreviews.authorization.k8s.io", "", Row::Reply(subject_access)),
    ("tokenreviews.authentication.k8s.io", "", Row::Reply(token_review)),
];

/// The row of a request that the store cannot answer.
pub(crate) fn find(target: &Target) -> Option<Row> {
    let resource = target.kind.resource.as_str();
    let row = ROWS.iter().find(|(name, part, _)| *name == resource && *part == target.subresource);
    row.map(|(_, _, row)| *row)
}

fn local_subject_access(shared: &Shared, _: &User, target: &Target, review: Value) -> Result<Value, Status> {
    let snapshot = shared.store().snapshot();
    shared.rbac.view(&snapshot, |view| access::review::local_subject_access(view, &target.namespace, review))
}

fn self_subject_access(shared: &Shared, user: &User, _: &Target, review: Value) -> Result<Value, Status> {
    let snapshot = shared.store().snapshot();
    shared.rbac.view(&snapshot, |view| access::review::self_subject_access(view, user, review))
}

fn self_subject(shared: &Shared, user: &User, _: &Target, review: Value) -> Result<Value, Status> {
    Ok(access::review::self_subject(user, shared.gate.now(), review))
}

fn self_subject_rules(shared: &Shared, user: &User, _: &Target, review: Value) -> Result<Value, Status> {
    let snapshot = shared.store().snapshot();
    shared.rbac.view(&snapshot, |view| access::review::self_subject_rules(view, user, review))
}

fn subject_access(shared: &Shared, _: &User, _: &Target, review: Value) -> Result<Value, Status> {
    let snapshot = shared.store().snapshot();
    shared.rbac.view(&snapshot, |view| access::review::subject_access(view, review))
}

fn token_review(shared: &Shared, _: &User, _: &Target, review: Value) -> Result<Value, Status> {
    access::review::token(&shared.tokens, &shared.store().snapshot(), shared.gate.now(), review)
}

fn token(shared: &Shared, _: &User, target: &Target, body: Value) -> Result<Value, Status> {
    let account = Key::new(target.kind.resource, &*target.namespace, &*target.name);
    let request =
        TokenRequest { account: &account, body: &body, id: &shared.gate.uid(), now: shared.gate.now() };
    shared.tokens.issue(&shared.store().snapshot(), &request, &SystemRandom::new())
}

impl Row {
    pub(crate) fn answer<'a>(
        self,
        shared: &'a Arc<Shared>,
        user: &'a User,
        target: &'a Target,
        query: &'a Query,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, Status>> + Send + 'a>> {
        match self {
            Self::Reply(reply) => Box::pin(answer_document(shared, user, target, reply, request)),
            Self::Bind => Box::pin(bind(shared, user, target, query, request)),
            Self::Log => Box::pin(kubelet::log(shared, target, query, request)),
            Self::Stream => Box::pin(kubelet::stream(shared, target, query, request)),
            Self::PortForward => Box::pin(kubelet::port_forward(shared, target, query, request)),
            Self::Proxy => Box::pin(backend::answer(shared, target, request)),
        }
    }
}

async fn bind(
    shared: &Arc<Shared>,
    user: &User,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    let (head, incoming) = request.into_parts();
    let options = write::options(target, query, &head.headers)?;
    let text = body::read(incoming, shared.config.limits.body_bytes).await?;
    let (binding, _) =
        body::parse(&target.kind, &body::type_name(target), body::encoding(&head.headers)?, &text)?;
    let name = schema::path::text(&binding, "metadata.name").to_owned();
    let catalog = shared.gate.catalog();
    let pods = catalog.by_resource(kinds::PODS).ok_or_else(|| Status::internal("pods are not served"))?;
    let to_gate = gate::Request {
        user,
        kind: pods,
        namespace: &target.namespace,
        name: &name,
        subresource: "binding",
        options: &options,
    };
    match shared.gate.create(&to_gate, binding).await?.answer {
        gate::Answer::Made(value) => Ok(respond::json(StatusCode::CREATED, &value)),
        _ => Err(Status::internal("a binding is answered with a Status")),
    }
}

async fn answer_document(
    shared: &Arc<Shared>,
    user: &User,
    target: &Target,
    reply: Reply,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    if !negotiate::reads_json(request.headers()) {
        return Err(negotiate::not_acceptable());
    }
    let (head, incoming) = request.into_parts();
    let encoding = body::encoding(&head.headers)?;
    let text = body::read(incoming, shared.config.limits.body_bytes).await?;
    let (mut value, _) = body::parse(&target.kind, &body::type_name(target), encoding, &text)?;
    let gvk = target.kind.subresource(&target.subresource).and_then(|one| one.gvk);
    let (group, version, kind) = gvk.unwrap_or((target.kind.group, target.kind.version, target.kind.kind));
    if !value.is_object() {
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind})"
        )));
    }
    value["apiVersion"] = if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
    value["kind"] = kind.into();
    if !value["metadata"].is_object() {
        value["metadata"] = json!({});
    }
    reply(shared, user, target, value).map(|answer| respond::json(StatusCode::CREATED, &answer))
}
