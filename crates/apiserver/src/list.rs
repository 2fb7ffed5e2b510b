//! LIST: objects of one snapshot, joined as the bytes that they are.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt;
use object::{Cause, Object, Reason, Revision, Snapshot, Status, Table, Time};
use schema::Kind;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::negotiate::{self, Asked, Media, Shape, View};
use crate::query::{ListOptions, Query, VersionMatch};
use crate::respond::Answer;
use crate::route::Target;
use crate::select::Selection;
use crate::server::Shared;
use crate::{compress, protobuf, respond, show, table};

/// How long a read waits for a revision that this server has not seen yet.
const CATCH_UP: Duration = Duration::from_secs(3);
/// What is handed over at a time.
const BUFFER_BYTES: usize = 128 * 1024;
/// A buffer has room for one more object of this size, so that few ever grow: growing copies all of it.
const BUFFER_SLACK_BYTES: usize = 16 * 1024;

/// So much of a list in protobuf is kept between measuring it and sending it.
const KEPT_BYTES: usize = 4 * 1024 * 1024;

/// Where a list goes on, as clients carry it around.
#[derive(Debug, Deserialize, Serialize)]
struct Token {
    v: String,
    /// The snapshot's revision; -1 goes on in the newest one.
    rv: i64,
    /// (namespace, name) of the last object that was given.
    start: (String, String),
}

/// Why there is no snapshot to list in.
enum Refusal {
    Status(Status),
    /// The token's snapshot is no longer held.
    Expired(Token),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Snapshots that continue tokens go on in.
#[derive(Default)]
pub(crate) struct Held {
    by_revision: Mutex<BTreeMap<Revision, (Instant, Snapshot)>>,
}

impl Held {
    fn keep(&self, snapshot: &Snapshot, lifetime: Duration, most: usize) {
        let now = Instant::now();
        let mut held = self.by_revision.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, (since, _)| now.duration_since(*since) < lifetime);
        while held.len() >= most.max(1) {
            held.pop_first();
        }
        held.entry(snapshot.revision()).or_insert_with(|| (now, snapshot.clone()));
    }

    fn get(&self, revision: Revision, lifetime: Duration) -> Option<Snapshot> {
        let held = self.by_revision.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, snapshot) = held.get(&revision)?;
        (since.elapsed() < lifetime).then(|| snapshot.clone())
    }
}

/// Answers a list.
pub(crate) async fn list(
    shared: &Shared,
    target: &Target,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Answer, Status> {
    let view = negotiate::view(headers, query, &target.kind, Asked::List, shared.config.cbor)?;
    let options = ListOptions::read(query)?;
    options.check_list()?;
    let selection = Selection::new(&target.kind, &target.namespace, "", &options)?;
    let (snapshot, after) = match snapshot(shared, &target.kind, &options).await {
        Ok(found) => found,
        Err(Refusal::Status(status)) => return Err(status),
        Err(Refusal::Expired(token)) => return Ok(expired(token)),
    };
    let mut metadata = json!({"resourceVersion": snapshot.revision().to_string()});
    let is_converted = target.kind.is_made_by_webhook();
    if options.limit == 0 && selection.needs_scan(&target.kind) && !is_converted {
        let table = snapshot.table(target.kind.resource).cloned().unwrap_or_default();
        let last = after.map(|(namespace, name)| (namespace.into(), name.into()));
        let objects = Objects::Selected { table, selection, last };
        return answer(shared, &target.kind, view, metadata, objects, headers).await;
    }
    let page = if is_converted {
        converted(shared, &snapshot, &target.kind, &selection, after.as_ref(), options.limit).await?
    } else {
        select(&snapshot, &target.kind, &selection, after.as_ref(), options.limit)
    };
    if let Some(remaining) = page.remaining {
        shared.held.keep(&snapshot, shared.config.limits.token_lifetime, shared.config.limits.held_snapshots);
        let rv = i64::try_from(snapshot.revision()).unwrap_or(-1);
        metadata["continue"] = token(rv, page.objects.last().map(|last| &**last)).into();
        if selection.is_everything() {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    let objects = Objects::Chosen(page.objects.into_iter());
    answer(shared, &target.kind, view, metadata, objects, headers).await
}

/// Every object that a request selects, for `deletecollection`.
pub(crate) async fn selected(
    shared: &Shared,
    target: &Target,
    query: &Query,
) -> Result<Vec<Arc<Object>>, Status> {
    let options = ListOptions::read(query)?;
    let selection = Selection::new(&target.kind, &target.namespace, "", &options)?;
    let (snapshot, after) =
        snapshot(shared, &target.kind, &options).await.map_err(|refusal| match refusal {
            Refusal::Status(status) => status,
            Refusal::Expired(_) => Status::new(Reason::Expired, EXPIRED),
        })?;
    if !target.kind.is_made_by_webhook() {
        return Ok(select(&snapshot, &target.kind, &selection, after.as_ref(), options.limit).objects);
    }
    let page = converted(shared, &snapshot, &target.kind, &selection, after.as_ref(), options.limit).await?;
    // What is deleted are the objects as they are stored.
    Ok(page.objects.iter().filter_map(|object| snapshot.get(&object.key)).cloned().collect())
}

struct Page {
    objects: Vec<Arc<Object>>,
    /// How many more there are; None: this is the end.
    remaining: Option<usize>,
}

fn select(
    snapshot: &Snapshot,
    kind: &Kind,
    selection: &Selection,
    after: Option<&(String, String)>,
    limit: usize,
) -> Page {
    let behind = |object: &Object| {
        after.is_none_or(|(namespace, name)| {
            (&*object.key.namespace, &*object.key.name) > (&**namespace, &**name)
        })
    };
    let matching: Box<dyn Iterator<Item = &Arc<Object>>> = match (selection.name(), selection.indexed()) {
        (Some(name), _) if !selection.namespace().is_empty() || !kind.namespaced => {
            let found = snapshot.find(kind.resource, selection.namespace(), name);
            Box::new(found.into_iter().filter(move |object| behind(object)))
        }
        (_, Some(value)) => {
            Box::new(snapshot.list_by_field(kind.resource, value).filter(move |object| behind(object)))
        }
        _ => match snapshot.table(kind.resource) {
            Some(table) => {
                let after = after.map(|(namespace, name)| (&**namespace, &**name));
                Box::new(table.range(selection.namespace(), after))
            }
            None => Box::new(std::iter::empty()),
        },
    };
    let mut matching = matching.filter(|object| selection.matches(object));
    if limit == 0 {
        return Page { objects: matching.cloned().collect(), remaining: None };
    }
    let objects: Vec<_> = matching.by_ref().take(limit).cloned().collect();
    // Counting is only worth it when the count is told.
    let rest = if selection.is_everything() { matching.count() } else { matching.take(1).count() };
    Page { objects, remaining: (rest > 0).then_some(rest) }
}

/// As [`select`], of a version that a webhook makes: labels and fields are those of the objects in this version, so that they must be
/// converted before they are chosen from.
async fn converted(
    shared: &Shared,
    snapshot: &Snapshot,
    kind: &Kind,
    selection: &Selection,
    after: Option<&(String, String)>,
    limit: usize,
) -> Result<Page, Status> {
    if selection.is_by_key() {
        let page = select(snapshot, kind, selection, after, limit);
        return Ok(Page { objects: shared.gate.in_version(kind, page.objects).await?, ..page });
    }
    let all = select(snapshot, kind, &selection.by_key(), after, 0).objects;
    let mut objects = shared.gate.in_version(kind, all).await?;
    objects.retain(|object| selection.matches(object));
    let rest = if limit == 0 { 0 } else { objects.len().saturating_sub(limit) };
    objects.truncate(objects.len() - rest);
    Ok(Page { objects, remaining: (rest > 0).then_some(rest) })
}

/// The snapshot to list in, and behind which object to go on.
async fn snapshot(
    shared: &Shared,
    kind: &Kind,
    options: &ListOptions,
) -> Result<(Snapshot, Option<(String, String)>), Refusal> {
    if !options.token.is_empty() {
        return continued(shared, options).await;
    }
    Ok((at(shared, kind, options).await?, None))
}

/// resourceVersion and resourceVersionMatch: <https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list>
async fn at(shared: &Shared, kind: &Kind, options: &ListOptions) -> Result<Snapshot, Status> {
    let asked = &options.resource_version;
    if asked.is_empty() {
        return shared.newest().await;
    }
    if asked == "0" {
        return Ok(shared.store().snapshot());
    }
    let revision = revision(asked)?;
    let exact = match &options.version_match {
        Some(version_match) => *version_match == VersionMatch::Exact,
        None => options.limit > 0,
    };
    let snapshot = at_least(shared, revision).await?;
    if !exact || snapshot.revision() == revision {
        return Ok(snapshot);
    }
    // The newest snapshot is as good as the asked one if the resource has not changed since.
    let changed = snapshot.table(kind.resource).map_or(0, |table| table.revision());
    if changed <= revision {
        return Ok(snapshot);
    }
    shared
        .held
        .get(revision, shared.config.limits.token_lifetime)
        .ok_or_else(|| Status::new(Reason::Expired, "The resourceVersion for the provided list is too old."))
}

/// A resourceVersion as a number.
pub(crate) fn revision(text: &str) -> Result<Revision, Status> {
    text.parse().map_err(|_| {
        Status::bad_request(format!(
            "invalid resource version: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

/// A snapshot at least as new as a revision; 504 if the store does not get there soon.
pub(crate) async fn at_least(shared: &Shared, revision: Revision) -> Result<Snapshot, Status> {
    let now = shared.store().snapshot();
    if now.revision() >= revision {
        return Ok(now);
    }
    match tokio::time::timeout(CATCH_UP, shared.store().read_at_least(revision)).await {
        Ok(Ok(snapshot)) => Ok(snapshot),
        Ok(Err(error)) => Err(Status::new(Reason::ServiceUnavailable, error.to_string())),
        Err(_) => Err(too_large(revision, shared.store().snapshot().revision())),
    }
}

fn too_large(asked: Revision, now: Revision) -> Status {
    let message = format!("Timeout: Too large resource version: {asked}, current: {now}");
    let mut status = Status::new(Reason::Timeout, message);
    let cause = "Too large resource version".to_owned();
    status.causes.push(Cause { reason: "ResourceVersionTooLarge", message: cause, field: String::new() });
    status.retry_after_seconds = Some(1);
    status
}

async fn continued(
    shared: &Shared,
    options: &ListOptions,
) -> Result<(Snapshot, Option<(String, String)>), Refusal> {
    if !matches!(&*options.resource_version, "" | "0") {
        let why = "specifying resource version is not allowed when using continue";
        return Err(Refusal::Status(Status::bad_request(why)));
    }
    let token = read_token(&options.token)
        .map_err(|why| Status::bad_request(format!("continue key is not valid: {why}")))?;
    let Ok(revision) = Revision::try_from(token.rv) else {
        return Ok((shared.newest().await?, Some(token.start)));
    };
    let lifetime = shared.config.limits.token_lifetime;
    match shared.held.get(revision, lifetime) {
        Some(snapshot) => Ok((snapshot, Some(token.start))),
        None => Err(Refusal::Expired(token)),
    }
}

fn read_token(text: &str) -> Result<Token, String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| error.to_string())?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if token.v != "meta.k8s.io/v1" { Err(format!("unknown version {:?}", token.v)) } else { Ok(token) }
}

fn token(rv: i64, last: Option<&Object>) -> String {
    let start =
        last.map(|last| (last.key.namespace.to_string(), last.key.name.to_string())).unwrap_or_default();
    write_token(&Token { v: "meta.k8s.io/v1".into(), rv, start })
}

fn write_token(token: &Token) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(token).unwrap_or_default())
}

const EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list \
    without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing \
    with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the \
    first chunk was returned and now may show up in the list.";

/// 410 with a token that goes on in the newest snapshot.
fn expired(token: Token) -> Answer {
    let mut status = Status::new(Reason::Expired, EXPIRED).to_json();
    status["metadata"]["continue"] = write_token(&Token { rv: -1, ..token }).into();
    respond::failure_document(StatusCode::GONE.as_u16(), status)
}

/// A list of objects as an answer.
pub(crate) async fn answer(
    shared: &Shared,
    kind: &Arc<Kind>,
    view: View,
    metadata: Value,
    objects: Objects,
    headers: &HeaderMap,
) -> Result<Answer, Status> {
    let mut body = Items {
        kind: kind.clone(),
        view,
        now: shared.gate.now(),
        objects,
        is_first: true,
        closed: false,
        ready: VecDeque::new(),
        spare: Arc::default(),
        failure: None,
    };
    match view.media {
        Media::Protobuf => body.begin_protobuf(&metadata).await?,
        Media::Json => body.begin_json(&metadata),
        Media::Cbor | Media::Yaml => {
            body.begin_json(&metadata);
            body.rewrite().await?;
        }
    }
    let beginning: usize = body.ready.iter().map(Bytes::len).sum();
    let is_long = !body.closed || beginning > shared.config.limits.compress_above_bytes;
    let gzip = is_long && negotiate::reads_gzip(headers);
    let body = if gzip { compress::gzip(body).boxed_unsync() } else { body.boxed_unsync() };
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::OK;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(view.media.name()));
    if gzip {
        compress::mark(answer.headers_mut());
    }
    Ok(answer)
}

/// What a list consists of.
#[derive(Clone)]
pub(crate) enum Objects {
    Chosen(std::vec::IntoIter<Arc<Object>>),
    /// Whatever of a table is selected, behind the last (namespace, name) that was written: looked for when it is sent, so
    /// that a long list begins at once and none of its objects is held.
    Selected {
        table: Table,
        selection: Selection,
        last: Option<(Arc<str>, Arc<str>)>,
    },
}

/// A list on its way out: joined buffer by buffer, so that a long one is never in memory twice.
#[derive(Clone)]
struct Items {
    kind: Arc<Kind>,
    view: View,
    now: Time,
    objects: Objects,
    /// No object was written yet.
    is_first: bool,
    /// The list's end was written.
    closed: bool,
    /// Written and not yet handed over.
    ready: VecDeque<Bytes>,
    /// Buffers that were sent: fresh memory costs more than filling it.
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
    /// An object that cannot be told in the encoding that was asked for.
    failure: Option<Status>,
}

/// A buffer that comes back when all of it was sent.
struct Lent {
    buffer: Vec<u8>,
    home: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        home.push(std::mem::take(&mut self.buffer));
    }
}

impl Items {
    /// Kind and version of the list.
    fn identity(&self) -> (String, String) {
        match self.view.shape {
            Shape::Whole | Shape::Table(..) => (self.kind.list_kind(), self.kind.api_version()),
            Shape::Metadata(meta) => ("PartialObjectMetadataList".into(), meta.api_version().into()),
        }
    }

    fn begin_json(&mut self, metadata: &Value) {
        let mut head = Vec::new();
        if let Shape::Table(_, meta) = self.view.shape {
            table::head(&self.kind, meta, metadata, true, &mut head);
        } else {
            let (kind, version) = self.identity();
            let text = format!(
                "{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{metadata},\"items\":["
            );
            head.extend_from_slice(text.as_bytes());
        }
        let beginning = self.write(head);
        self.ready.push_back(beginning);
    }

    /// A message begins with its length, so all objects are encoded once before the first byte is sent. What that makes is kept if it
    /// is not too much; otherwise it is made again as it goes out.
    async fn begin_protobuf(&mut self, metadata: &Value) -> Result<(), Status> {
        let mut trial = self.clone();
        let (mut length, mut kept) = (0, VecDeque::new());
        while let Some(piece) = trial.next() {
            length += piece.len();
            if length <= KEPT_BYTES {
                kept.push_back(piece);
            } else {
                kept.clear();
            }
            if !trial.closed {
                tokio::task::yield_now().await;
            }
        }
        if let Some(status) = trial.failure {
            return Err(status);
        }
        let (kind, version) = self.identity();
        let items = length.saturating_sub(protobuf::LIST_TAIL.len()) as u64;
        self.ready.push_back(protobuf::list_head(&version, &kind, metadata, items)?.into());
        if length <= KEPT_BYTES {
            self.ready.append(&mut kept);
            self.closed = true;
        }
        Ok(())
    }

    /// All of a list that was begun as JSON, in an encoding that is only made of the whole.
    async fn rewrite(&mut self) -> Result<(), Status> {
        let mut whole = Vec::new();
        while let Some(piece) = self.next() {
            whole.extend_from_slice(&piece);
            tokio::task::yield_now().await;
        }
        let value = serde_json::from_slice(&whole).map_err(Status::internal)?;
        self.ready.push_back(respond::encode(self.view.media, &value)?.into());
        Ok(())
    }

    /// The next objects, behind what the buffer begins with.
    fn write(&mut self, mut buffer: Vec<u8>) -> Bytes {
        buffer.reserve(BUFFER_BYTES + BUFFER_SLACK_BYTES);
        let Self { kind, view, now, objects, is_first, failure, .. } = self;
        let mut write = |object: &Object| {
            if view.media == Media::Protobuf {
                if let Err(status) = protobuf_item(kind, view.shape, object, &mut buffer) {
                    *failure = Some(status);
                }
                return failure.is_some() || buffer.len() >= BUFFER_BYTES;
            }
            if !std::mem::replace(is_first, false) {
                buffer.push(b',');
            }
            match view.shape {
                Shape::Table(include, meta) => table::row(kind, include, meta, object, *now, &mut buffer),
                shape => show::object(kind, shape, object, *now, &mut buffer),
            }
            buffer.len() >= BUFFER_BYTES
        };
        let is_full = match objects {
            Objects::Chosen(rest) => rest.any(|object| write(&object)),
            Objects::Selected { table, selection, last } => {
                let began = last.take();
                let after = began.as_ref().map(|(namespace, name)| (&**namespace, &**name));
                let mut rest = table.range(selection.namespace(), after);
                let full_at = rest.find(|object| selection.matches_within(object) && write(object));
                *last = full_at.map(|object| (object.key.namespace.clone(), object.key.name.clone()));
                last.is_some()
            }
        };
        if !is_full || self.failure.is_some() {
            let end = if self.view.media == Media::Protobuf { protobuf::LIST_TAIL } else { b"]}\n" };
            buffer.extend_from_slice(end);
            self.closed = true;
        }
        Bytes::from_owner(Lent { buffer, home: self.spare.clone() })
    }

    fn next(&mut self) -> Option<Bytes> {
        if !self.ready.is_empty() || self.closed {
            return self.ready.pop_front();
        }
        // The one before may still be on its way.
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = spare.unwrap_or_default();
        buffer.clear();
        Some(self.write(buffer))
    }
}

fn protobuf_item(kind: &Kind, shape: Shape, object: &Object, to: &mut Vec<u8>) -> Result<(), Status> {
    match shape {
        Shape::Metadata(_) => protobuf::metadata_item(&object.body, to),
        _ if kind.reads_as_stored(object) => protobuf::item(kind.type_name, &object.body, to),
        _ => {
            let mut text = Vec::with_capacity(object.body.len());
            show::whole(kind, object, &mut text);
            protobuf::item(kind.type_name, &text, to)
        }
    }
}

impl http_body::Body for Items {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(self.next().map(|bytes| Ok(Frame::data(bytes))))
    }
}
