//! WATCH: the store's log as a stream of events, filtered for one client.
//!
//! An event is `{"type":"ADDED","object":`, the object's bytes as they are, and `}`; nothing is decoded. Small ones go out in one piece,
//! which is one frame and one record; of large ones every watcher shares the bytes.
//! A selector makes its own story of the log: what enters the selected set is ADDED, what leaves it is DELETED.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kinds::CUSTOM_RESOURCE_DEFINITIONS;
use object::{Change, Event, Object, Reason, Revision, Snapshot, Status, body};
use schema::Kind;
use serde_json::{Value, json};
use store::{Watch, WatchError};
use tokio::time::{Instant, sleep_until};

use crate::list::{at_least, revision};
use crate::metrics::Open;
use crate::negotiate::{self, Asked, Media, Meta, Shape, View};
use crate::query::{ListOptions, Query};
use crate::respond::Answer;
use crate::route::Target;
use crate::select::Selection;
use crate::server::Shared;
use crate::{cbor, protobuf, respond, show, table};

/// How long a watch lasts if the client does not say: this and up to as long again.
const LEAST_WATCH: Duration = Duration::from_secs(1800);

const END: &[u8] = b"}\n";
/// Up to this size joining an object to its frame costs less than sending it in pieces.
const JOINED_BYTES: usize = 16 * 1024;

/// Answers a watch.
pub(crate) async fn watch(
    shared: &Arc<Shared>,
    target: &Target,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Answer, Status> {
    let view = negotiate::view(headers, query, &target.kind, Asked::Watch, shared.config.cbor)?;
    let options = ListOptions::read(query)?;
    options.check_watch()?;
    let selection = Selection::new(&target.kind, &target.namespace, &target.name, &options)?;
    let mut stream = begin(shared, &target.kind, view, selection, &options).await?;
    stream.open = Some(Open::new(shared, target));
    let body = StreamBody::new(stream::unfold(stream, Stream::step)).boxed_unsync();
    let mut answer = Response::new(body);
    if let Some(media) = view.media.of_watch() {
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    }
    Ok(answer)
}

/// One client's watch.
struct Stream {
    shared: Arc<Shared>,
    kind: Arc<Kind>,
    view: View,
    selection: Selection,
    /// What of it can be told before an object is converted.
    by_key: Selection,
    /// Changes of definitions, if the kind has one: a watch lasts as long as the row that it was begun with.
    definitions: Option<Watch>,
    /// None: the stream ends when what is ready has been sent.
    log: Option<Watch>,
    /// Objects of the initial state that are still to be sent.
    initial: std::vec::IntoIter<Arc<Object>>,
    /// Sent behind the initial state.
    initial_end: Option<Revision>,
    ready: VecDeque<Bytes>,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    /// The table's columns were told.
    described: bool,
    /// Counts it among the open ones.
    open: Option<Open>,
}

/// resourceVersion and sendInitialEvents of a watch:
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-watch>
async fn begin(
    shared: &Arc<Shared>,
    kind: &Arc<Kind>,
    view: View,
    selection: Selection,
    options: &ListOptions,
) -> Result<Stream, Status> {
    let asked = match &*options.resource_version {
        "" | "0" => None,
        text => Some(revision(text)?),
    };
    let wants_state = options.initial_events.unwrap_or(asked.is_none());
    let snapshot = match asked {
        None if options.resource_version.is_empty() => Some(shared.newest().await?),
        None => Some(shared.store().snapshot()),
        Some(revision) if wants_state => Some(at_least(shared, revision).await?),
        Some(_) => None,
    };
    let from = snapshot.as_ref().map_or(asked.unwrap_or(0), Snapshot::revision);
    let by_key = selection.by_key();
    let initial = match &snapshot {
        Some(snapshot) if wants_state && kind.is_made_by_webhook() => {
            let mut all = shared.gate.in_version(kind, state(snapshot, kind, &by_key)).await?;
            all.retain(|object| selection.matches(object));
            all
        }
        Some(snapshot) if wants_state => state(snapshot, kind, &selection),
        _ => Vec::new(),
    };
    let now = Instant::now();
    // Zero is what clients send who do not care.
    let lasts = options
        .timeout
        .filter(|timeout| !timeout.is_zero())
        .unwrap_or_else(|| LEAST_WATCH + shared.fraction(LEAST_WATCH));
    let definitions = match kind.custom {
        Some(_) => {
            let now = shared.store().snapshot().revision();
            shared.store().watch(Some(CUSTOM_RESOURCE_DEFINITIONS), now).ok()
        }
        None => None,
    };
    let mut stream = Stream {
        shared: shared.clone(),
        kind: kind.clone(),
        view,
        selection,
        by_key,
        definitions,
        log: None,
        initial: initial.into_iter(),
        initial_end: (options.initial_events == Some(true)).then_some(from),
        ready: VecDeque::new(),
        bookmarks: options.bookmarks,
        next_bookmark: now + shared.config.limits.bookmark_every,
        ends: now + lasts,
        described: false,
        open: None,
    };
    if !shared.gate.catalog().serves(kind) {
        return Ok(stream);
    }
    match shared.store().watch(Some(kind.resource), from) {
        Ok(log) => stream.log = Some(log),
        Err(error) => stream.fail(error),
    }
    Ok(stream)
}

fn state(snapshot: &Snapshot, kind: &Kind, selection: &Selection) -> Vec<Arc<Object>> {
    let matches = |object: &&Arc<Object>| selection.matches(object);
    match selection.indexed() {
        Some(value) => snapshot.list_by_field(kind.resource, value).filter(matches).cloned().collect(),
        None => snapshot.list(kind.resource, selection.namespace()).filter(matches).cloned().collect(),
    }
}

impl Stream {
    /// The next piece of the answer, and the stream to go on with.
    async fn step(mut self) -> Option<(Result<Frame<Bytes>, std::io::Error>, Self)> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some((Ok(Frame::data(piece)), self));
            }
            if let Some(object) = self.initial.next() {
                self.frame("ADDED", &object);
                continue;
            }
            if let Some(revision) = self.initial_end.take() {
                self.bookmark(revision, true);
                continue;
            }
            self.wait().await?;
        }
    }

    /// Waits for something to send. None: the watch is over.
    async fn wait(&mut self) -> Option<()> {
        let log = self.log.as_mut()?;
        let wake = if self.bookmarks { self.next_bookmark.min(self.ends) } else { self.ends };
        let found = tokio::select! {
            biased;
            () = self.shared.stopping() => return None,
            found = log.next() => Some(found),
            () = replaced(&self.shared, &self.kind, &mut self.definitions) => return None,
            () = sleep_until(wake) => None,
        };
        match found {
            Some(Ok(events)) if self.kind.is_made_by_webhook() => {
                // Who is asked may take long; what ends a watch does not wait for it.
                let (shared, kind, ends) = (self.shared.clone(), self.kind.clone(), self.ends);
                let mut definitions = self.definitions.take();
                tokio::select! {
                    biased;
                    () = shared.stopping() => return None,
                    () = replaced(&shared, &kind, &mut definitions) => return None,
                    () = self.convert(&events) => {}
                    () = sleep_until(ends) => return None,
                }
                self.definitions = definitions;
            }
            Some(Ok(events)) => events.iter().for_each(|event| self.tell(event)),
            Some(Err(error)) => self.fail(error),
            None if Instant::now() >= self.ends => {
                let progress = self.log.take().map(|log| log.progress())?;
                if !self.bookmarks {
                    return None;
                }
                self.bookmark(progress, false);
            }
            None => {
                let progress = log.progress();
                self.next_bookmark = Instant::now() + self.shared.config.limits.bookmark_every;
                self.bookmark(progress, false);
            }
        }
        Some(())
    }

    /// Changes of a kind that a webhook makes: what may be selected is converted at once, before and after, and told in its order.
    async fn convert(&mut self, events: &[Arc<Event>]) {
        let before =
            |event: &Event| event.previous.as_ref().is_some_and(|previous| self.by_key.matches(previous));
        let wanted: Vec<&Arc<Event>> =
            events.iter().filter(|event| self.by_key.matches(&event.object) || before(event)).collect();
        let mut objects: Vec<Arc<Object>> = Vec::new();
        // By its key an object is selected as it was before.
        let both = !self.selection.is_by_key();
        for event in &wanted {
            objects.push(event.object.clone());
            objects.extend(event.previous.clone().filter(|_| both));
        }
        match self.shared.gate.in_version(&self.kind, objects).await {
            Ok(converted) => {
                let mut converted = converted.into_iter();
                for event in wanted {
                    let object = converted.next().unwrap_or_else(|| event.object.clone());
                    let previous = event
                        .previous
                        .as_ref()
                        .and_then(|before| if both { converted.next() } else { Some(before.clone()) });
                    self.tell(&Event { object, previous, ..(**event).clone() });
                }
            }
            Err(status) => self.end(&status),
        }
    }

    /// One change, as it looks through the selectors.
    fn tell(&mut self, event: &Event) {
        let was = event.previous.as_ref().filter(|previous| self.selection.matches(previous));
        let is = event.change != Change::Deleted && self.selection.matches(&event.object);
        match (was, is) {
            (None, true) => self.frame("ADDED", &event.object),
            (Some(_), true) => self.frame("MODIFIED", &event.object),
            (Some(_), false) if event.change == Change::Deleted => self.frame("DELETED", &event.object),
            (Some(previous), false) => {
                let left = departed(previous, event.revision);
                self.frame("DELETED", &left);
            }
            (None, false) => {}
        }
    }

    fn frame(&mut self, change: &'static str, object: &Object) {
        let text = match self.view.shape {
            Shape::Whole if self.kind.reads_as_stored(object) => object.body.clone(),
            shape => {
                let mut text = Vec::with_capacity(object.body.len());
                let now = self.shared.gate.now();
                match shape {
                    Shape::Table(include, meta) => {
                        let describe = !std::mem::replace(&mut self.described, true);
                        table::single(&self.kind, include, meta, object, describe, now, &mut text);
                    }
                    shape => show::object(&self.kind, shape, object, now, &mut text),
                }
                text.into()
            }
        };
        self.put(change, text);
    }

    /// Makes an event of an object's text, in the encoding that was asked for.
    fn put(&mut self, change: &'static str, text: Bytes) {
        let event = match self.view.media {
            Media::Json if text.len() > JOINED_BYTES => {
                let head = Bytes::from_static(json_head(change));
                return self.ready.extend([head, text, Bytes::from_static(END)]);
            }
            Media::Protobuf => self.protobuf(&text).map(|object| {
                let mut framed = Vec::new();
                protobuf::event(change, &object, &mut framed);
                framed
            }),
            Media::Json | Media::Yaml => Ok([json_head(change), &text, END].concat()),
            Media::Cbor => serde_json::from_slice::<Value>(&text)
                .map_err(Status::internal)
                .and_then(|object| respond::encode(Media::Cbor, &json!({"type": change, "object": object}))),
        };
        match event {
            Ok(event) => self.ready.push_back(event.into()),
            Err(status) => self.end(&status),
        }
    }

    fn protobuf(&self, text: &[u8]) -> Result<Vec<u8>, Status> {
        let mut made = Vec::with_capacity(text.len());
        match self.view.shape {
            Shape::Metadata(meta) => protobuf::partial(meta, text, &mut made)?,
            _ => {
                let (type_name, version) = (self.kind.type_name, self.kind.api_version());
                protobuf::whole(type_name, &version, self.kind.kind, text, &mut made)?;
            }
        }
        Ok(made)
    }

    /// How far this watch has come (KEP-956); behind the initial state with the annotation that says so (KEP-3157).
    fn bookmark(&mut self, revision: Revision, initial_end: bool) {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let partial = |meta: Meta, metadata: &Value| json!({"kind": "PartialObjectMetadata", "apiVersion": meta.api_version(), "metadata": metadata});
        let object = match self.view.shape {
            Shape::Whole => {
                json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata})
            }
            Shape::Metadata(meta) => partial(meta, &metadata),
            Shape::Table(_, meta) => {
                json!({"kind": "Table", "apiVersion": meta.api_version(),
                    "metadata": {"resourceVersion": revision.to_string()}, "columnDefinitions": [],
                    "rows": [{"cells": [], "object": partial(meta, &metadata)}]})
            }
        };
        self.put("BOOKMARK", object.to_string().into());
    }

    /// An ERROR event, behind which nothing comes.
    fn end(&mut self, status: &Status) {
        self.log = None;
        self.initial = Vec::new().into_iter();
        self.initial_end = None;
        let status = status.to_json();
        let event = match respond::encode(self.view.media, &status) {
            Ok(object) if self.view.media == Media::Protobuf => {
                let mut framed = Vec::new();
                protobuf::event("ERROR", &object, &mut framed);
                framed
            }
            _ if self.view.media == Media::Cbor => cbor::encode(&json!({"type": "ERROR", "object": status})),
            _ => format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n").into_bytes(),
        };
        self.ready.push_back(event.into());
    }

    /// The log cannot be followed any more: an ERROR event ends the stream.
    fn fail(&mut self, error: WatchError) {
        self.log = None;
        self.initial = Vec::new().into_iter();
        self.initial_end = None;
        if let WatchError::Compacted { .. } = error {
            self.end(&Status::new(Reason::Expired, error.to_string()));
        }
    }
}

/// How an event in JSON begins.
fn json_head(change: &str) -> &'static [u8] {
    match change {
        "ADDED" => b"{\"type\":\"ADDED\",\"object\":",
        "BOOKMARK" => b"{\"type\":\"BOOKMARK\",\"object\":",
        "MODIFIED" => b"{\"type\":\"MODIFIED\",\"object\":",
        _ => b"{\"type\":\"DELETED\",\"object\":",
    }
}

/// Returns when the kind's definition has changed so that another row is served, or none. Upstream ends such watches; clients begin anew.
async fn replaced(shared: &Shared, kind: &Arc<Kind>, definitions: &mut Option<Watch>) {
    let Some(changes) = definitions else { return std::future::pending().await };
    // A log that cannot be followed may have hidden the change.
    while changes.next().await.is_ok() && shared.gate.catalog().serves(kind) {}
}

/// The last state that the client may see of an object that left the selected set, at the revision at which it left.
fn departed(previous: &Object, revision: Revision) -> Object {
    Object {
        key: previous.key.clone(),
        revision,
        meta: previous.meta.clone(),
        fields: previous.fields.clone(),
        body: body::with_revision(&body::without_revision(&previous.body), revision),
    }
}
