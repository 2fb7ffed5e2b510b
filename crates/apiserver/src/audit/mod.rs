//! Audit: what was asked, by whom, and what came of it, as events of `audit.k8s.io/v1`.
//!
//! The policy (`access::audit`) says of each request how much is written down; without a policy nothing here runs. A record is opened when
//! the user is known, learns what the request and its admission bring, and is told as an event at each of its stages.

mod log;
mod webhook;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use ::metrics::{Counter, Family};
use access::audit::{Level, Policy, Scope, Stage};
use bytes::Bytes;
use futures_util::stream;
use gate::{Annotations, Clock};
use http::{Extensions, HeaderMap, Request, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use plan::{Attributes, Decision, User};
use serde_json::{Map, Value, json};

use crate::respond::{self, Answer, Body};
use log::Log;
pub use log::{LogError, LogOptions};
pub use webhook::AuditWebhook;
use webhook::Webhook;

/// A body that is longer is not looked into for what became of a request.
const LONGEST_STATUS: u64 = 64 << 10;

/// A longer answer is not written down whole: it would be held in memory for that.
const LONGEST_ANSWER: u64 = 8 << 20;
/// The code of a request whose client did not wait for the answer: HTTP has none, and this is the customary one.
const CLOSED_EARLY: u16 = 499;

/// The policy of a server, and where its events go.
pub struct Audit {
    policy: Policy,
    log: Option<Log>,
    webhook: Option<Webhook>,
    clock: Clock,
    told: AtomicU64,
    levels: Family<[&'static str; 1], Counter>,
}

impl Audit {
    /// Within a runtime, which the webhook needs.
    ///
    /// # Errors
    /// The log cannot be opened.
    pub fn new(
        policy: Policy,
        log: Option<LogOptions>,
        webhook: Option<AuditWebhook>,
        clock: Clock,
    ) -> Result<Self, LogError> {
        let log = log.map(Log::open).transpose()?;
        Ok(Self {
            policy,
            log,
            webhook: webhook.map(Webhook::start),
            clock,
            told: AtomicU64::new(0),
            levels: Family::default(),
        })
    }

    fn tell(&self, event: &Value) {
        self.told.fetch_add(1, Ordering::Relaxed);
        let text = Bytes::from(event.to_string());
        if let Some(webhook) = &self.webhook {
            webhook.write(text.clone());
        }
        if let Some(log) = &self.log {
            log.write(text);
        }
    }

    pub(crate) fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// Requests that were written down, by how much of them.
    pub(crate) fn levels(&self) -> &Family<[&'static str; 1], Counter> {
        &self.levels
    }

    /// Events that were lost: more came than could be written.
    pub(crate) fn lost(&self) -> [(&'static str, u64); 2] {
        [
            ("log", self.log.as_ref().map_or(0, Log::lost)),
            ("webhook", self.webhook.as_ref().map_or(0, Webhook::lost)),
        ]
    }

    /// Begins to write a request down, if the policy wants it. `user`: None if nobody was believed.
    pub(crate) fn open<B>(
        self: &Arc<Self>,
        id: &str,
        user: Option<&User>,
        attributes: &Attributes<'_>,
        address: Option<IpAddr>,
        stays: bool,
        request: &Request<B>,
    ) -> Option<Arc<Record>> {
        let scope = self.policy.scope(user, attributes)?;
        self.levels.of(&[scope.level.word()]).increase();
        let received = (self.clock)();
        let mut event = Map::new();
        event.insert("kind".into(), "Event".into());
        event.insert("apiVersion".into(), "audit.k8s.io/v1".into());
        event.insert("level".into(), scope.level.word().into());
        event.insert("auditID".into(), id.into());
        event.insert("stage".into(), Value::Null);
        let uri = request.uri().path_and_query().map_or(request.uri().path(), |uri| uri.as_str());
        event.insert("requestURI".into(), uri.into());
        event.insert("verb".into(), attributes.verb.into());
        event.insert("user".into(), user.map_or_else(|| json!({}), shown));
        event.insert("sourceIPs".into(), sources(request.headers(), address).into());
        let agent = request.headers().get(header::USER_AGENT);
        if let Some(agent) = agent.map(|agent| String::from_utf8_lossy(agent.as_bytes())) {
            event.insert("userAgent".into(), agent.into());
        }
        if attributes.path.is_empty() && !attributes.resource.is_empty() {
            event.insert("objectRef".into(), reference(attributes));
        }
        event.insert("requestReceivedTimestamp".into(), received.micro().into());
        let late = Late { event, ..Late::default() };
        let (audit, annotations) = (self.clone(), Annotations::default());
        let record = Record { audit, scope, stays, annotations, late: Mutex::new(late) };
        record.tell(Stage::RequestReceived, None);
        Some(Arc::new(record))
    }
}

/// One request that is written down.
pub(crate) struct Record {
    audit: Arc<Audit>,
    scope: Scope,
    /// A watch, or a connection that stays open.
    stays: bool,
    annotations: Annotations,
    late: Mutex<Late>,
}

/// What becomes known bit by bit.
#[derive(Default)]
struct Late {
    event: Map<String, Value>,
    is_done: bool,
}

/// Who hangs up takes the request along, but not what it has done by then.
impl Drop for Record {
    fn drop(&mut self) {
        if self.late().is_done {
            return;
        }
        let status = json!({"metadata": {}, "status": "Failure", "code": CLOSED_EARLY,
            "message": "Connection closed early"});
        self.complete(&status, None);
    }
}

impl Record {
    fn late(&self) -> MutexGuard<'_, Late> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where admission writes its annotations.
    pub(crate) fn annotations(&self) -> Annotations {
        self.annotations.clone()
    }

    pub(crate) fn annotate(&self, name: &str, value: &str) {
        let mut annotations = self.annotations.lock().unwrap_or_else(PoisonError::into_inner);
        // The first word stands, as upstream has it.
        annotations.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }

    pub(crate) fn impersonated(&self, user: &User) {
        self.late().event.insert("impersonatedUser".into(), shown(user));
    }

    fn decided(&self, decision: &Decision) {
        self.annotate("authorization.k8s.io/decision", if decision.allowed { "allow" } else { "forbid" });
        self.annotate("authorization.k8s.io/reason", &decision.reason);
    }

    /// The request's body. What it says of its object completes the reference.
    fn heard(&self, body: &Value) {
        let mut late = self.late();
        let event = &mut late.event;
        if let Some(Value::Object(reference)) = event.get_mut("objectRef") {
            for (from, to) in [
                ("name", "name"),
                ("namespace", "namespace"),
                ("uid", "uid"),
                ("resourceVersion", "resourceVersion"),
            ] {
                if let Some(text) = body["metadata"][from].as_str().filter(|text| !text.is_empty()) {
                    reference.entry(to).or_insert_with(|| text.into());
                }
            }
        }
        if self.scope.level >= Level::Request {
            event.insert("requestObject".into(), self.cleaned(body.clone()));
        }
    }

    fn cleaned(&self, mut object: Value) -> Value {
        if self.scope.omit_managed_fields {
            without_managed_fields(&mut object);
            if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
                items.iter_mut().for_each(without_managed_fields);
            }
        }
        object
    }

    /// Whether the answer must be readable: it is written down whole.
    fn wants_answer(&self) -> bool {
        self.scope.level >= Level::RequestResponse
    }

    /// Tells of the answer: at once, or, of one that is still to come piece by piece, of its beginning now and of its end at its end.
    pub(crate) async fn answered(self: &Arc<Self>, answer: Answer) -> Answer {
        let code = answer.status();
        let is_failure = code.is_client_error() || code.is_server_error();
        if self.stays && !is_failure {
            self.tell(Stage::ResponseStarted, Some(&status_of(code, None)));
        }
        let length = answer.body().size_hint().exact();
        let is_too_long = self.wants_answer() && length.is_some_and(|length| length > LONGEST_ANSWER);
        if (self.stays && !is_failure) || length.is_none() || is_too_long {
            let watched = Watched { record: self.clone(), code };
            return answer.map(|body| Body::new(Told { body, _watched: watched }));
        }
        let tells_why = is_failure && length.is_some_and(|length| length <= LONGEST_STATUS);
        if !self.wants_answer() && !tells_why {
            self.complete(&status_of(code, None), None);
            return answer;
        }
        let (head, body) = answer.into_parts();
        let bytes = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(failure) => {
                let told = json!({"status": "Failure", "message": failure.to_string()});
                self.complete(&status_of(code, Some(&told)), None);
                return Answer::from_parts(head, broken(failure));
            }
        };
        let object = object_of(&bytes);
        let told = object.as_ref().filter(|object| is_failure && object["kind"] == "Status");
        self.complete(&status_of(code, told), object.as_ref());
        Answer::from_parts(head, respond::full(bytes))
    }

    pub(crate) fn panicked(&self) {
        let status = json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": "APIServer panic'd"});
        self.tell(Stage::Panic, Some(&status));
        self.late().is_done = true;
    }

    fn complete(&self, status: &Value, object: Option<&Value>) {
        if let Some(object) = object.filter(|_| self.wants_answer()) {
            let object = self.cleaned(object.clone());
            self.late().event.insert("responseObject".into(), object);
        }
        self.tell(Stage::ResponseComplete, Some(status));
        self.late().is_done = true;
    }

    fn tell(&self, stage: Stage, status: Option<&Value>) {
        if self.scope.omit_stages.contains(&stage) {
            return;
        }
        let mut event = {
            let late = self.late();
            if late.is_done {
                return;
            }
            late.event.clone()
        };
        event.insert("stage".into(), stage.word().into());
        if let Some(status) = status {
            event.insert("responseStatus".into(), status.clone());
        }
        event.insert("stageTimestamp".into(), (self.audit.clock)().micro().into());
        let annotations: BTreeMap<String, String> =
            self.annotations.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !annotations.is_empty() {
            event.insert("annotations".into(), json!(annotations));
        }
        self.audit.tell(&Value::Object(event));
    }
}

/// Whether the request is allowed; its record, if it has one, hears of it.
pub(crate) fn decided(extensions: &Extensions, decision: &Decision) {
    if let Some(record) = extensions.get::<Arc<Record>>() {
        record.decided(decision);
    }
}

/// The request is for a version or a kind that should no longer be used.
/// `removed`: the minor version that serves it no more, if anybody has said.
pub(crate) fn deprecated(extensions: &Extensions, removed: Option<u8>) {
    if let Some(record) = extensions.get::<Arc<Record>>() {
        record.annotate("k8s.io/deprecated", "true");
        if let Some(minor) = removed {
            record.annotate("k8s.io/removed-release", &format!("1.{minor}"));
        }
    }
}

/// A request's body was read; its record, if it has one, hears of it.
pub(crate) fn heard(extensions: &Extensions, body: &Value) {
    if let Some(record) = extensions.get::<Arc<Record>>() {
        record.heard(body);
    }
}

/// Where admission writes, of a request that is written down.
pub(crate) fn annotations(extensions: &Extensions) -> Option<Annotations> {
    extensions.get::<Arc<Record>>().map(|record| record.annotations())
}

/// A body that ends as another one did.
fn broken(failure: std::io::Error) -> Body {
    Body::new(StreamBody::new(stream::iter([Err(failure)])))
}

/// An answer that comes piece by piece.
struct Told {
    body: Body,
    /// Goes with it.
    _watched: Watched,
}

struct Watched {
    record: Arc<Record>,
    code: StatusCode,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.record.complete(&status_of(self.code, None), None);
    }
}

impl http_body::Body for Told {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// The object in an answer, whichever way it is written; None: it holds none.
fn object_of(bytes: &Bytes) -> Option<Value> {
    if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
        return Some(value).filter(Value::is_object);
    }
    let (api_version, kind) = crate::protobuf::identity(bytes).ok()?;
    let (group, version) = api_version.split_once('/').unwrap_or(("core", &api_version));
    let group = group.split('.').next().unwrap_or(group);
    let mut object = crate::protobuf::decode(&format!("{group}.{version}.{kind}"), bytes).ok()?;
    object["apiVersion"] = api_version.as_str().into();
    object["kind"] = kind.as_str().into();
    Some(object)
}

fn without_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// `responseStatus`: of a failure what it says, of anything else the code.
fn status_of(code: StatusCode, told: Option<&Value>) -> Value {
    let mut status = json!({"metadata": {}, "code": code.as_u16()});
    for field in ["status", "message", "reason", "details"] {
        if let Some(value) = told.and_then(|told| told.get(field)) {
            status[field] = value.clone();
        }
    }
    status
}

fn shown(user: &User) -> Value {
    let mut shown = json!({"username": &*user.name});
    if !user.uid.is_empty() {
        shown["uid"] = (*user.uid).into();
    }
    if !user.groups.is_empty() {
        shown["groups"] = user.groups.iter().map(|group| Value::from(&**group)).collect();
    }
    if !user.extra.is_empty() {
        shown["extra"] = json!(user.extra);
    }
    shown
}

fn reference(attributes: &Attributes<'_>) -> Value {
    let Attributes { group, version, resource, subresource, namespace, name, .. } = *attributes;
    let fields = [
        ("resource", resource),
        ("namespace", namespace),
        ("name", name),
        ("apiGroup", group),
        ("apiVersion", version),
        ("subresource", subresource),
    ];
    let given = fields.into_iter().filter(|(_, text)| !text.is_empty());
    Value::Object(given.map(|(name, text)| (name.to_owned(), text.into())).collect())
}

/// Whom the request came from and through, the nearest last: what proxies say, and the other end of the connection.
fn sources(headers: &HeaderMap, address: Option<IpAddr>) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut found: Vec<IpAddr> =
        text("x-forwarded-for").split(',').filter_map(|one| one.trim().parse().ok()).collect();
    if let Ok(real) = text("x-real-ip").trim().parse()
        && found.first() != Some(&real)
    {
        found.push(real);
    }
    if let Some(address) = address.map(|address| address.to_canonical())
        && found.last() != Some(&address)
    {
        found.push(address);
    }
    found.iter().map(IpAddr::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written down of an answer, and whether the client gets it whole.
    async fn check(body: Body, expected: (Value, bool)) {
        let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
            "rules": [{"level": "RequestResponse"}]});
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let log = LogOptions { path: path.clone(), ..LogOptions::default() };
        let policy = Policy::parse(policy).expect("a policy");
        let clock: Clock = Arc::new(|| object::Time::from_micros(0));
        let audit = Arc::new(Audit::new(policy, Some(log), None, clock).expect("a log"));
        let request = Request::get("/version").body(()).expect("a request");
        let attributes = Attributes { verb: "get", path: "/version", ..Attributes::default() };
        let record = audit.open("a", None, &attributes, None, false, &request).expect("a record");
        let answer = record.answered(Answer::new(body)).await;
        let is_whole = answer.into_body().collect().await.is_ok();
        drop((record, audit));
        let log = std::fs::read_to_string(&path).expect("a log");
        let event: Value = serde_json::from_str(&log).expect("one event");
        let told = json!([event["responseStatus"], event.get("responseObject")]);
        assert_eq!((told, is_whole), expected);
    }

    /// A body of a known length that breaks off.
    struct Breaks;

    impl http_body::Body for Breaks {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            Poll::Ready(Some(Err(std::io::Error::other("gone"))))
        }

        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(2)
        }
    }

    #[tokio::test]
    async fn an_answer_is_written_down_if_it_is_short_and_whole() {
        let ok = json!({"metadata": {}, "code": 200});
        check(respond::full(Bytes::from_static(b"{}")), (json!([ok, {}]), true)).await;
        let frames = stream::iter([Ok(Frame::data(Bytes::from_static(b"{}")))]);
        check(Body::new(StreamBody::new(frames)), (json!([ok, null]), true)).await;
        check(respond::full(Bytes::from(vec![b' '; 9 << 20])), (json!([ok, null]), true)).await;
        let gone = json!({"metadata": {}, "code": 200, "status": "Failure", "message": "gone"});
        check(Body::new(Breaks), (json!([gone, null]), false)).await;
    }

    #[test]
    fn a_request_ends_once_even_if_nobody_waits_for_its_answer() {
        let policy =
            json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]});
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let log = LogOptions { path: path.clone(), ..LogOptions::default() };
        let policy = Policy::parse(policy).expect("a policy");
        let clock: Clock = Arc::new(|| object::Time::from_micros(0));
        let audit = Arc::new(Audit::new(policy, Some(log), None, clock).expect("a log"));
        let open = |id: &str| {
            let request = Request::get("/version").body(()).expect("a request");
            let attributes = Attributes { verb: "get", path: "/version", ..Attributes::default() };
            audit.open(id, None, &attributes, None, false, &request).expect("a record")
        };
        drop(open("hung-up"));
        open("answered").complete(&status_of(StatusCode::OK, None), None);
        open("panicked").panicked();
        drop(audit);
        let log = std::fs::read_to_string(&path).expect("a log");
        let events = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
        let told: Vec<String> = events
            .filter(|event| event["stage"] != "RequestReceived")
            .map(|event| {
                let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
                format!("{} {} {}", word("auditID"), word("stage"), event["responseStatus"]["code"])
            })
            .collect();
        assert_eq!(
            told,
            ["hung-up ResponseComplete 499", "answered ResponseComplete 200", "panicked Panic 500"]
        );
    }

    #[test]
    fn sources_are_those_that_proxies_name_and_the_connection() {
        let mut headers = HeaderMap::new();
        let peer = Some("10.0.0.9".parse().expect("an address"));
        assert_eq!(sources(&headers, peer), ["10.0.0.9"]);
        headers.insert("x-forwarded-for", "203.0.113.7, nonsense, 10.0.0.9".parse().expect("a header"));
        assert_eq!(sources(&headers, peer), ["203.0.113.7", "10.0.0.9"]);
        headers.insert("x-real-ip", "198.51.100.1".parse().expect("a header"));
        assert_eq!(sources(&headers, peer), ["203.0.113.7", "10.0.0.9", "198.51.100.1", "10.0.0.9"]);
        assert!(sources(&HeaderMap::new(), None).is_empty());
    }
}
