//! What is not stored: reviews, tokens, logs, streams. One row each.

use std::pin::Pin;
use std::sync::Arc;

use access::View;
use access::service_account::TokenRequest;
use gate::Operation;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use object::{Key, Status};
use plan::User;
use ring::rand::SystemRandom;
use serde_json::{Value, json};

use crate::negotiate::{Asked, Media};
use crate::query::Query;
use crate::respond::{self, Answer};
use crate::route::Target;
use crate::shared::Shared;
use crate::{audit, authenticate, backend, body, kubelet, negotiate, options};

/// Answers a review with what was found out.
type Reply = for<'a> fn(&'a Shared, &'a User, &'a Target, Value) -> Replying<'a>;
type Replying<'a> = Pin<Box<dyn Future<Output = Result<Value, Status>> + Send + 'a>>;

/// What a request is answered by if not by the store.
#[derive(Clone, Copy)]
pub(crate) enum Row {
    /// The body comes back with its answer.
    Review(Reply),
    /// A token of a service account: admitted like an object that is created.
    Token,
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
    ("localsubjectaccessreviews.authorization.k8s.io", "", Row::Review(local_subject_access)),
    ("nodes", "proxy", Row::Proxy),
    ("pods", "attach", Row::Stream),
    ("pods", "exec", Row::Stream),
    ("pods", "log", Row::Log),
    ("pods", "portforward", Row::PortForward),
    ("pods", "proxy", Row::Proxy),
    ("selfsubjectaccessreviews.authorization.k8s.io", "", Row::Review(self_subject_access)),
    ("selfsubjectreviews.authentication.k8s.io", "", Row::Review(self_subject)),
    ("selfsubjectrulesreviews.authorization.k8s.io", "", Row::Review(self_subject_rules)),
    ("serviceaccounts", "token", Row::Token),
    ("services", "proxy", Row::Proxy),
    ("subjectaccessreviews.authorization.k8s.io", "", Row::Review(subject_access)),
    ("tokenreviews.authentication.k8s.io", "", Row::Review(token_review)),
];

/// The row of a request that the store cannot answer.
pub(crate) fn find(target: &Target) -> Option<Row> {
    let resource = target.kind.resource.as_str();
    let row = ROWS.iter().find(|(name, part, _)| *name == resource && *part == target.subresource);
    row.map(|(_, _, row)| *row)
}

fn local_subject_access<'a>(
    shared: &'a Shared,
    _: &'a User,
    target: &'a Target,
    review: Value,
) -> Replying<'a> {
    decided(shared, move |view| access::review::local_subject_access(view, &target.namespace, review.clone()))
}

fn self_subject_access<'a>(shared: &'a Shared, user: &'a User, _: &'a Target, review: Value) -> Replying<'a> {
    decided(shared, move |view| access::review::self_subject_access(view, user, review.clone()))
}

fn self_subject<'a>(shared: &'a Shared, user: &'a User, _: &'a Target, review: Value) -> Replying<'a> {
    Box::pin(async move { Ok(access::review::self_subject(user, shared.gate.now(), review)) })
}

fn self_subject_rules<'a>(shared: &'a Shared, user: &'a User, _: &'a Target, review: Value) -> Replying<'a> {
    decided(shared, move |view| access::review::self_subject_rules(view, user, review.clone()))
}

fn subject_access<'a>(shared: &'a Shared, _: &'a User, _: &'a Target, review: Value) -> Replying<'a> {
    decided(shared, move |view| access::review::subject_access(view, review.clone()))
}

fn token_review<'a>(shared: &'a Shared, _: &'a User, _: &'a Target, review: Value) -> Replying<'a> {
    Box::pin(async move {
        let (token, audiences) = access::review::token_of(&review)?;
        let asked: Vec<&str> = audiences.iter().map(String::as_str).collect();
        let found = authenticate::token_identity(shared, &token, &asked).await;
        Ok(access::review::token(review, found))
    })
}

/// A review that the authorizers answer, webhooks among them.
fn decided<'a>(
    shared: &'a Shared,
    ask: impl Fn(&View<'_>) -> Result<Value, Status> + Send + 'a,
) -> Replying<'a> {
    Box::pin(async move {
        let snapshot = shared.store().snapshot();
        shared.authorizers.decide(&snapshot, ask).await
    })
}

/// `POST serviceaccounts/{name}/token`
async fn token(
    shared: &Arc<Shared>,
    user: &User,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    let mut options = options::of_write(target, query, request.headers(), None)?;
    options.annotations = audit::annotations(request.extensions());
    let media = media(shared, target, query, &request)?;
    let (mut body, warnings) = document(shared, target, request, &mut options).await?;
    for (field, own) in [("name", &target.name), ("namespace", &target.namespace)] {
        if schema::path::text(&body["metadata"], field).is_empty() {
            body["metadata"][field] = own.as_str().into();
        }
    }
    let passed = shared.gate.admit(&to_gate(user, target, &options), Operation::Create, body).await?;
    let account = Key::new(target.kind.resource, &*target.namespace, &*target.name);
    let (id, now) = (shared.gate.uid(), shared.gate.now());
    let request = TokenRequest { account: &account, body: &passed.object, id: &id, now };
    let made = shared.tokens.issue(&shared.store().snapshot(), &request, &SystemRandom::new())?;
    let mut answer = respond::document(media, StatusCode::CREATED, &made);
    respond::warn(&mut answer, &warnings);
    respond::warn(&mut answer, &passed.warnings);
    Ok(answer)
}

/// Admission of a stream or a proxied request; the options as admission leaves them.
async fn connect(
    shared: &Arc<Shared>,
    user: &User,
    target: &Target,
    options: Value,
) -> Result<gate::Passed, Status> {
    let none = gate::Options::default();
    let mut options = options;
    let (group, version, kind) = type_of(target);
    options["apiVersion"] =
        if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
    options["kind"] = kind.into();
    shared.gate.admit(&to_gate(user, target, &none), Operation::Connect, options).await
}

fn to_gate<'a>(user: &'a User, target: &'a Target, options: &'a gate::Options) -> gate::Request<'a> {
    let Target { kind, namespace, name, subresource, .. } = target;
    gate::Request { user, kind, namespace, name, subresource, options }
}

async fn stream(
    shared: &Arc<Shared>,
    user: &User,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    let passed = connect(shared, user, target, kubelet::stream_options(target, query)).await?;
    let mut answer = kubelet::stream(shared, target, &passed.object, request).await?;
    respond::warn(&mut answer, &passed.warnings);
    Ok(answer)
}

async fn port_forward(
    shared: &Arc<Shared>,
    user: &User,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    let passed = connect(shared, user, target, kubelet::port_forward_options(query)?).await?;
    let mut answer = kubelet::port_forward(shared, target, &passed.object, request).await?;
    respond::warn(&mut answer, &passed.warnings);
    Ok(answer)
}

async fn proxy(
    shared: &Arc<Shared>,
    user: &User,
    target: &Target,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    let passed = connect(shared, user, target, backend::options(target)).await?;
    let mut answer = backend::answer(shared, target, &passed.object, request).await?;
    respond::warn(&mut answer, &passed.warnings);
    Ok(answer)
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
            Self::Review(reply) => Box::pin(review(shared, user, target, query, reply, request)),
            Self::Token => Box::pin(token(shared, user, target, query, request)),
            Self::Bind => Box::pin(bind(shared, user, target, query, request)),
            Self::Log => Box::pin(kubelet::log(shared, target, query, request)),
            Self::Stream => Box::pin(stream(shared, user, target, query, request)),
            Self::PortForward => Box::pin(port_forward(shared, user, target, query, request)),
            Self::Proxy => Box::pin(proxy(shared, user, target, request)),
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
    let media = media(shared, target, query, &request)?;
    let (head, incoming) = request.into_parts();
    let options = options::of_write(target, query, &head.headers, None)?;
    let text = body::read(incoming, shared.config.limits.body_bytes).await?;
    let (binding, _) = body::parse(
        &target.kind,
        &body::type_name(target),
        body::encoding(&head.headers, shared.config.cbor)?,
        &text,
    )?;
    audit::heard(&head.extensions, &binding);
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
        gate::Answer::Made(value) => Ok(respond::document(media, StatusCode::CREATED, &value)),
        _ => Err(Status::internal("a binding is answered with a Status")),
    }
}

/// A review: admitted and validated as an object that is created, though nothing is stored of it.
async fn review(
    shared: &Arc<Shared>,
    user: &User,
    target: &Target,
    query: &Query,
    reply: Reply,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    let media = media(shared, target, query, &request)?;
    let mut options = options::of_write(target, query, request.headers(), None)?;
    let (mut posted, warnings) = document(shared, target, request, &mut options).await?;
    let namespace = schema::path::text(&posted, "metadata.namespace");
    if target.kind.namespaced && namespace.is_empty() {
        posted["metadata"]["namespace"] = target.namespace.as_str().into();
    } else if target.kind.namespaced && namespace != target.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let passed = shared.gate.admit(&to_gate(user, target, &options), Operation::Create, posted).await?;
    let wrong = (target.kind.validate)(&passed.object, None);
    if !wrong.is_empty() {
        return Err(schema::Violation::to_status(&wrong, target.kind.group, "", ""));
    }
    let answered = reply(shared, user, target, passed.object).await?;
    let mut answer = respond::document(media, StatusCode::CREATED, &answered);
    respond::warn(&mut answer, &warnings);
    respond::warn(&mut answer, &passed.warnings);
    Ok(answer)
}

/// How the answer to a document is written.
fn media(
    shared: &Shared,
    target: &Target,
    query: &Query,
    request: &Request<Incoming>,
) -> Result<Media, Status> {
    negotiate::view(request.headers(), query, &target.kind, Asked::Document, shared.config.cbor)
        .map(|view| view.media)
}

/// The body of a request, as a document of the type that is asked for, and what its sender is warned of.
async fn document(
    shared: &Shared,
    target: &Target,
    request: Request<Incoming>,
    options: &mut gate::Options,
) -> Result<(Value, Vec<String>), Status> {
    let (head, incoming) = request.into_parts();
    let encoding = body::encoding(&head.headers, shared.config.cbor)?;
    let text = body::read(incoming, shared.config.limits.body_bytes).await?;
    let type_name = body::type_name(target);
    let (mut value, problems) = body::parse(&target.kind, &type_name, encoding, &text)?;
    audit::heard(&head.extensions, &value);
    options.problems = problems;
    let warnings = gate::document(type_of(target), &type_name, &mut value, options)?;
    if !value["metadata"].is_object() {
        value["metadata"] = json!({});
    }
    Ok((value, warnings))
}

/// Group, version and kind of what is sent.
fn type_of(target: &Target) -> (&'static str, &'static str, &'static str) {
    let own = target.kind.subresource(&target.subresource).and_then(|one| one.gvk);
    own.unwrap_or((target.kind.group, target.kind.version, target.kind.kind))
}
