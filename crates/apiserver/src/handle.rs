//! One request from its head to its answer: the filters that every request passes, in upstream's order.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use object::{FieldSelector, LabelSelector, Reason, Resource, Status};
use plan::{Attributes, Decision, User};
use tracing::{debug, error, warn};

use crate::audit::{self, Audit, Record};
use crate::authenticate::{self, Authenticated, Refused, Remarks};
use crate::fairness::Wish;
use crate::negotiate::{self, Wants};
use crate::query::{self, Query};
use crate::respond::{self, Answer};
use crate::route::{self, Nowhere, Route, Target};
use crate::shared::{Peer, Shared};
use crate::show::{self, table};
use crate::{aggregate, discovery, fairness, health, list, metrics, openapi, seats, special, watch, write};

/// A request waits in a queue for this part of the time that it may take, as upstream.
const PART_OF_TIME_TO_WAIT: u32 = 4;
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

pub(crate) async fn handle(shared: Arc<Shared>, peer: Peer, request: Request<Incoming>) -> Answer {
    let began = Instant::now();
    let audit_id = audit_id(&shared, &request);
    let mut request = request;
    if shared.config.audit.is_some() {
        request.headers_mut().insert(AUDIT_ID, audit_id.clone());
    }
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let wants = Wants::of(&request, shared.config.cbor);
    // A panic is the fault of one request, not of the others on its connection.
    let record = OnceLock::new();
    let answered = AssertUnwindSafe(filtered(&shared, &peer, &record, request)).catch_unwind().await;
    if let (Err(_), Some(record)) = (&answered, record.get()) {
        record.panicked();
    }
    let mut answer = answered.unwrap_or_else(|_| {
        error!(%method, path, "a request panicked");
        respond::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("Internal Server Error: \"{path}\": panic\n"),
        )
    });
    if let Some(record) = record.get() {
        answer = record.answered(answer).await;
    }
    answer = respond::finished(answer, &wants, shared.config.limits.compress_above_bytes);
    let headers = answer.headers_mut();
    headers.insert(AUDIT_ID, audit_id);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    debug!(%method, path, code = answer.status().as_u16(), took_us = began.elapsed().as_micros() as u64, "request");
    answer
}

/// The client's id for the request, or one of our own.
fn audit_id(shared: &Shared, request: &Request<Incoming>) -> HeaderValue {
    let given = request.headers().get(&AUDIT_ID).filter(|id| !id.is_empty() && id.len() <= 64).cloned();
    let own = || HeaderValue::from_str(&shared.gate.uid()).unwrap_or(HeaderValue::from_static("-"));
    given.unwrap_or_else(own)
}

async fn filtered(
    shared: &Arc<Shared>,
    peer: &Peer,
    record: &OnceLock<Arc<Record>>,
    request: Request<Incoming>,
) -> Answer {
    let path = request.uri().path();
    match authenticate::authenticate(shared, peer, path, request.headers()).await {
        Ok(Authenticated { user, remarks }) => {
            let mut answer = filtered_for(shared, peer, (user, &remarks), record, request).await;
            if let Some(text) = remarks.warning {
                let later = respond::take_warnings(&mut answer);
                respond::warn(&mut answer, &[text.to_owned()]);
                respond::give_warnings(&mut answer, later);
            }
            answer
        }
        Err(Refused { status, remarks }) => {
            turned_away(shared, peer, None, record, &request);
            remark(record, &remarks);
            respond::failure(&status)
        }
    }
}

/// What is written down of a request says what its token said.
fn remark(record: &OnceLock<Arc<Record>>, remarks: &Remarks) {
    for (name, value) in &remarks.annotations {
        record.get().into_iter().for_each(|record| record.annotate(name, value));
    }
}

async fn filtered_for(
    shared: &Arc<Shared>,
    peer: &Peer,
    (believed, remarks): (User, &Remarks),
    record: &OnceLock<Arc<Record>>,
    request: Request<Incoming>,
) -> Answer {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let asked = match Asked::read(shared, &request, &query) {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    if !asked.stays(&request, &query)
        && let Err(status) = query::timeout(&query)
    {
        turned_away(shared, peer, Some(&believed), record, &request);
        remark(record, remarks);
        return respond::failure(&status);
    }
    let attributes = asked.attributes();
    let Who { user, real } = if acts_as_another(request.headers()) {
        match authenticate::impersonate(shared, believed.clone(), request.headers(), &attributes).await {
            Ok(user) => Who { user, real: Some(believed) },
            Err(status) => {
                turned_away(shared, peer, Some(&believed), record, &request);
                remark(record, remarks);
                return respond::failure(&status);
            }
        }
    } else {
        Who { user: believed, real: None }
    };
    let mut request = request;
    if let Some(audit) = &shared.config.audit {
        let began = Instant::now();
        let begun = written_down(audit, peer, (&user, real.as_ref()), &asked, &query, &mut request);
        begun.into_iter().for_each(|begun| drop(record.set(begun)));
        remark(record, remarks);
        shared.access.filters.audit.took(began.elapsed());
    }
    if asked.needs_no_seat(&query) {
        return answered(shared, &user, &asked, &query, request).await;
    }
    let began = Instant::now();
    let snapshot = shared.store().snapshot();
    let stored = asked.resource();
    let work = fairness::work(&snapshot, &attributes, &query, stored);
    let wish = Wish { attributes: &attributes, path: request.uri().path(), stored, work };
    let patience = shared.config.limits.request_timeout / PART_OF_TIME_TO_WAIT;
    let (marks, seat) = shared.seats.take(&snapshot, &user, &wish, patience).await;
    // A snapshot holds what later ones no longer have: not while the request runs.
    drop(snapshot);
    let mut answer = match seat {
        Ok(_seat) => {
            shared.access.filters.fairness.took(began.elapsed());
            answered(shared, &user, &asked, &query, request).await
        }
        Err(refusal) => too_many(refusal.retry_after_seconds),
    };
    marks.put(answer.headers_mut());
    answer
}

/// A request that came no further than to who asks; the policy may have to decide without a user.
fn turned_away(
    shared: &Shared,
    peer: &Peer,
    user: Option<&User>,
    record: &OnceLock<Arc<Record>>,
    request: &Request<Incoming>,
) {
    let Some(audit) = &shared.config.audit else { return };
    let query = Query::parse(request.uri().query().unwrap_or_default());
    if let Ok(asked) = Asked::read(shared, request, &query)
        && let Some(begun) =
            audit.open(&audit_id_of(request), user, &asked.attributes(), peer.address, false, request)
    {
        drop(record.set(begun));
    }
}

/// Begins to write a request down; what reads its body finds the record beside it. The policy is about who was believed, not about whom
/// they act as.
fn written_down(
    audit: &Arc<Audit>,
    peer: &Peer,
    (user, real): (&User, Option<&User>),
    asked: &Asked,
    query: &Query,
    request: &mut Request<Incoming>,
) -> Option<Arc<Record>> {
    let stays = asked.stays(request, query);
    let believed = real.unwrap_or(user);
    let begun = audit.open(
        &audit_id_of(request),
        Some(believed),
        &asked.attributes(),
        peer.address,
        stays,
        request,
    )?;
    if real.is_some() {
        begun.impersonated(user);
    }
    request.extensions_mut().insert(begun.clone());
    Some(begun)
}

/// The request's id, which is in its headers from the beginning.
fn audit_id_of(request: &Request<Incoming>) -> String {
    let id = request.headers().get(&AUDIT_ID).and_then(|id| id.to_str().ok());
    id.unwrap_or_default().to_owned()
}

/// What a request asks for.
enum Asked {
    Extension(Box<(aggregate::Extension, aggregate::Asked)>),
    /// A path that is no resource, and the method as a verb.
    Path(String, String),
    /// The metrics of what runs beside the API server.
    Metrics(Box<aggregate::Asked>),
    Resource(Target),
}

impl Asked {
    fn read(shared: &Shared, request: &Request<Incoming>, query: &Query) -> Result<Self, Answer> {
        let path = request.uri().path();
        if let Some(extension) = aggregate::find(shared, path) {
            let asked = aggregate::Asked::read(request.method(), path, query);
            return asked
                .map(|asked| Self::Extension(Box::new((extension, asked))))
                .map_err(|status| respond::failure(&status));
        }
        if shared.config.components.is_some() && aggregate::is_below(path, metrics::EKS_GROUP, "v1") {
            let asked = aggregate::Asked::read(request.method(), path, query);
            return asked
                .map(|asked| Self::Metrics(Box::new(asked)))
                .map_err(|status| respond::failure(&status));
        }
        match route::route(&shared.gate.catalog(), request.method(), path, query) {
            Ok(Route::Resource(target)) => Ok(Self::Resource(target)),
            Ok(Route::Path(path)) => Ok(Self::Path(path, request.method().as_str().to_ascii_lowercase())),
            Err(Nowhere::Page) => Err(respond::no_page()),
            Err(Nowhere::Status(status)) => Err(respond::failure(&status)),
            Err(Nowhere::Deprecated(status, text)) => {
                let mut answer = respond::failure(&status);
                respond::warn(&mut answer, &[text]);
                Err(answer)
            }
        }
    }

    fn attributes(&self) -> Attributes<'_> {
        match self {
            Self::Extension(both) => both.1.attributes(),
            Self::Metrics(asked) => asked.attributes(),
            Self::Path(path, verb) => Attributes { verb, path, ..Attributes::default() },
            Self::Resource(target) => target.attributes(),
        }
    }

    /// The stored resource that is asked for; one that nothing is stored of, if none is.
    fn resource(&self) -> Resource {
        match self {
            Self::Resource(target) => target.kind.resource,
            _ => Resource::new(""),
        }
    }

    /// Watches and connections that stay open.
    fn stays(&self, request: &Request<Incoming>, query: &Query) -> bool {
        match self {
            Self::Extension(both) => both.1.attributes().verb == "watch" || upgrades(request),
            Self::Metrics(_) | Self::Path(..) => false,
            Self::Resource(target) => target.is_long_running(query),
        }
    }

    /// Connections that stay open and are ours. What an extension has to begin, it begins in a seat like a watch: who asks for it says
    /// themselves whether it stays.
    fn needs_no_seat(&self, query: &Query) -> bool {
        matches!(self, Self::Resource(target) if target.is_long_running(query) && target.verb != "watch")
    }
}

/// Whether a connection is to become a stream: a WebSocket, or one of SPDY.
fn upgrades(request: &Request<Incoming>) -> bool {
    let has = |name: HeaderName, wanted: &[&str]| {
        let texts = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
        let mut words = texts.flat_map(|text| text.split(',')).map(str::trim);
        words.any(|word| wanted.iter().any(|wanted| word.eq_ignore_ascii_case(wanted)))
    };
    matches!(*request.method(), Method::GET | Method::POST)
        && has(header::CONNECTION, &["upgrade"])
        && has(header::UPGRADE, &["websocket", "SPDY/3.1"])
}

/// Whom a request is answered as.
struct Who {
    user: User,
    /// Who was believed, if they act as another.
    real: Option<User>,
}

/// Whether whoever asks wants to be somebody else. What may be done as somebody else depends on what it is.
fn acts_as_another(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("impersonate-"))
}

/// Authorized, and carried out by whoever can.
async fn answered(
    shared: &Arc<Shared>,
    user: &User,
    asked: &Asked,
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    match asked {
        Asked::Extension(both) => {
            let attributes = asked.attributes();
            if let Err(status) = authorize(shared, user, &attributes, request.extensions()).await {
                return respond::failure(&status);
            }
            let stays = asked.stays(&request, query);
            let passed = aggregate::pass(shared, &both.0, user, request);
            if stays {
                // It stays once it has begun; until then it holds a seat.
                let limit = shared.config.limits.request_timeout;
                return in_time(limit, attributes.verb, attributes.resource, passed).await;
            }
            bounded(shared, query, attributes.verb, attributes.resource, passed).await
        }
        Asked::Path(path, _) => {
            match authorize(shared, user, &asked.attributes(), request.extensions()).await {
                Err(status) => respond::failure(&status),
                Ok(()) => {
                    let began = Instant::now();
                    let answer = page(shared, path, query, &request).await;
                    if let Some(path) = health::page_of(path) {
                        let (code, verb) = (answer.status().as_u16(), request.method());
                        let verb = if *verb == Method::GET { "GET" } else { "other" };
                        shared.requests.record_page(path, verb, code, began.elapsed());
                    }
                    answer
                }
            }
        }
        Asked::Metrics(of) => match authorize(shared, user, &of.attributes(), request.extensions()).await {
            Err(status) => respond::failure(&status),
            Ok(()) => health::component(shared, of.attributes()),
        },
        Asked::Resource(target) => {
            let began = Instant::now();
            let answer = match allowed(shared, user, target, query, &request).await {
                Err(status) => respond::failure(&status),
                Ok(()) => noted(shared, user, target, query, request).await,
            };
            let is_dry = query.get("dryRun") == "All";
            if answer.extensions().get::<TookTooLong>().is_some() {
                shared.requests.ended(target, answer.status().as_u16());
            }
            let took = began.elapsed();
            if matches!(target.verb, "create" | "update" | "patch") && !target.is_long_running(query) {
                shared.requests.validated(query.get("fieldValidation"), took);
            }
            shared.requests.record(target, is_dry, answer, took)
        }
    }
}

/// Paths that are no resources.
async fn page(shared: &Arc<Shared>, path: &str, query: &Query, request: &Request<Incoming>) -> Answer {
    if let Some(answer) = health::answer(shared, path, query, request.method(), request.headers()) {
        return answer;
    }
    if let Some(answer) = seats::answer(shared, path, query) {
        return answer;
    }
    if let Some(answer) = discovery::answer(shared, path, request) {
        return answer;
    }
    if let Some(answer) = openapi::answer(shared, path, query, request.headers()) {
        return answer;
    }
    respond::no_page()
}

async fn authorize(
    shared: &Shared,
    user: &User,
    attributes: &Attributes<'_>,
    extensions: &Extensions,
) -> Result<(), Status> {
    let snapshot = shared.store().snapshot();
    let decided = shared.authorizers.decide(&snapshot, |view| {
        let (decision, by) = access::authorize_by(view, user, attributes);
        (decision, by.map(|by| shared.access.decider(by.labels())))
    });
    let began = Instant::now();
    let (decision, by) = decided.await;
    shared.access.authorized(&decision, by.as_ref(), began.elapsed());
    audit::decided(extensions, &decision);
    match decision {
        Decision { allowed: true, .. } => Ok(()),
        // Whoever might have allowed it could not be asked.
        Decision { error, .. } if !error.is_empty() => Err(Status::internal(error)),
        Decision { reason, .. } => Err(access::forbidden(user, attributes, &reason)),
    }
}

async fn allowed(
    shared: &Shared,
    user: &User,
    target: &Target,
    query: &Query,
    request: &Request<Incoming>,
) -> Result<(), Status> {
    if target.name.is_empty() && matches!(target.verb, "list" | "watch" | "deletecollection") {
        // A selector that cannot be read narrows nothing here, and is refused when the list is made.
        let fields = FieldSelector::parse(query.get("fieldSelector")).unwrap_or_default();
        let labels = LabelSelector::parse(query.get("labelSelector")).unwrap_or_default();
        // A list of one name is authorized as that name.
        let name = fields.required("metadata.name").unwrap_or_default();
        let (fields, labels) = (Some(&fields), Some(&labels));
        let attributes = Attributes { name, fields, labels, ..target.attributes() };
        authorize(shared, user, &attributes, request.extensions()).await?;
    } else {
        authorize(shared, user, &target.attributes(), request.extensions()).await?;
    }
    // Opening a stream is a create, whichever method a WebSocket is asked for with.
    if target.verb == "get" && matches!(&*target.subresource, "attach" | "exec" | "portforward") {
        let attributes = Attributes { verb: "create", ..target.attributes() };
        authorize(shared, user, &attributes, request.extensions()).await?;
    }
    Ok(())
}

/// Of a version that clients should leave, it is noted who asked, and told.
async fn noted(
    shared: &Arc<Shared>,
    user: &User,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    let Some(text) = target.kind.deprecation() else {
        return limited(shared, user, target, query, request).await;
    };
    let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    shared.deprecated.record(target, agent.unwrap_or_default(), SystemTime::now());
    audit::deprecated(request.extensions(), target.kind.deprecated.and_then(|row| row.removed));
    let mut answer = limited(shared, user, target, query, request).await;
    // Upstream says so before it looks at the body.
    let later = respond::take_warnings(&mut answer);
    respond::warn(&mut answer, &[text.into_owned()]);
    respond::give_warnings(&mut answer, later);
    answer
}

/// Bounded in time, unless the request is one that stays.
async fn limited(
    shared: &Arc<Shared>,
    user: &User,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    if target.is_long_running(query) {
        return dispatch(shared, user, target, query, request).await;
    }
    let answered = dispatch(shared, user, target, query, request);
    bounded(shared, query, target.verb, target.kind.resource.as_str(), answered).await
}

/// Waits for an answer only so long: as long as the client says, and no longer than the server lets it.
async fn bounded(
    shared: &Shared,
    query: &Query,
    verb: &str,
    resource: &str,
    answered: impl Future<Output = Answer>,
) -> Answer {
    let most = shared.config.limits.request_timeout;
    // What is no timeout was refused before.
    let limit = query::timeout(query).ok().flatten().map_or(most, |wanted| wanted.min(most));
    in_time(limit, verb, resource, answered).await
}

async fn in_time(
    limit: Duration,
    verb: &str,
    resource: &str,
    answered: impl Future<Output = Answer>,
) -> Answer {
    match tokio::time::timeout(limit, answered).await {
        Ok(answer) => answer,
        Err(_) => {
            warn!(verb, resource, "a request took too long");
            let why = "Timeout: request did not complete within the allotted timeout";
            let mut answer = respond::failure(&Status::new(Reason::Timeout, why));
            answer.extensions_mut().insert(TookTooLong);
            answer
        }
    }
}

/// Marks the answer of a request that was ended because its time was over.
#[derive(Clone)]
struct TookTooLong;

fn too_many(retry_after_seconds: u32) -> Answer {
    let mut answer =
        respond::text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    answer.headers_mut().insert(header::RETRY_AFTER, retry_after_seconds.into());
    answer
}

async fn dispatch(
    shared: &Arc<Shared>,
    user: &User,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    let answer = match special::find(target) {
        Some(row) => row.answer(shared, user, target, query, request).await,
        None => plain(shared, user, target, query, request).await,
    };
    answer.unwrap_or_else(|status| respond::failure(&status))
}

/// What every kind can do.
async fn plain(
    shared: &Arc<Shared>,
    user: &User,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    match target.verb {
        "get" => get(shared, target, query, &request).await,
        "list" => list::list(shared, target, query, request.headers()).await,
        "watch" => watch::watch(shared, target, query, request).await,
        _ => write::write(shared, user, target, query, request).await,
    }
}

/// GET of one object: its bytes, as they are.
async fn get(
    shared: &Shared,
    target: &Target,
    query: &Query,
    request: &Request<Incoming>,
) -> Result<Answer, Status> {
    let scale = target.subresource == "scale";
    let asked = if scale { negotiate::Asked::Scale } else { negotiate::Asked::Object };
    let view = negotiate::view(request.headers(), query, &target.kind, asked, shared.config.cbor)?;
    let snapshot = match query.get("resourceVersion") {
        "" => shared.newest().await?,
        "0" => shared.store().snapshot(),
        text => list::at_least(shared, list::revision(text)?).await?,
    };
    let key = object::Key::new(target.kind.resource, &*target.namespace, &*target.name);
    list::readable(&snapshot, key.resource, &key.namespace, Some(&key.name))?;
    let object = snapshot.get(&key).ok_or_else(|| Status::not_found(&key))?;
    let object = &shared.in_version(&target.kind, object).await?;
    if scale {
        let value = show::value(&target.kind, object);
        let scale = gate::read_scale(&target.kind, &value)?;
        return table::scale(&target.kind, view, StatusCode::OK, &scale, shared.gate.now());
    }
    Ok(write::shown(shared, &target.kind, view, StatusCode::OK, object))
}
