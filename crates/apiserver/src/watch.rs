//! WATCH: the store's log as a stream of events, filtered for one client.
//!
//! An event is `{"type":"ADDED","object":`, the object's bytes as they are, and `}`; nothing is decoded. Small ones go out in one piece,
//! which is one frame and one record; of large ones every watcher shares the bytes.
//! A selector makes its own story of the log: what enters the selected set is ADDED, what leaves it is DELETED.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::stream;
use http::{HeaderValue, Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use kinds::CUSTOM_RESOURCE_DEFINITIONS;
use object::{Change, Event, Object, Reason, Revision, Snapshot, Status, Table, body};
use schema::Kind;
use serde_json::{Value, json};
use store::{Watch, WatchError};
use tokio::time::{Instant, sleep_until};

use crate::fairness::Watching;
use crate::list::{at_least, readable, revision};
use crate::metrics::Open;
use crate::negotiate::{self, Asked, Media, Meta, Shape, View};
use crate::query::{ListOptions, Query};
use crate::respond::Answer;
use crate::route::Target;
use crate::select::Selection;
use crate::shared::Shared;
use crate::shared_events::{TableTold, Telling};
use crate::show::{self, table};
use crate::websocket::{self, Messages};
use crate::{cbor, protobuf, respond};

/// How long a watch lasts if the client does not say: this and up to as long again.
const LEAST_WATCH: Duration = Duration::from_secs(1800);

const END: &[u8] = b"}\n";
/// Up to this size joining an object to its frame costs less than sending it in pieces.
const JOINED_BYTES: usize = 16 * 1024;
/// Events that come at once go out in pieces of about this size.
const PIECE_BYTES: usize = 64 * 1024;

/// Answers a watch.
pub(crate) async fn watch(
    shared: &Arc<Shared>,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    let mut request = request;
    let view = negotiate::view(request.headers(), query, &target.kind, Asked::Watch, shared.config.cbor)?;
    let options = ListOptions::read(query)?;
    options.check_watch()?;
    let selection = Selection::new(&target.kind, &target.namespace, &target.name, &options)?;
    let messages = if view.media == Media::Json { Messages::Text } else { Messages::Binary };
    let opening = websocket::of_watch(&mut request, messages)?;
    let mut stream = begin(shared, &target.kind, view, selection, &options).await?;
    let (namespace, name) = (stream.selection.namespace(), stream.selection.name().unwrap_or_default());
    let watching = Watching::begin(shared.clone(), target.kind.resource, namespace, name);
    stream.open = Some((shared.requests.open(target), watching));
    stream.is_apart = opening.is_some();
    let body = StreamBody::new(stream::unfold(stream, Stream::step)).boxed_unsync();
    if let Some(opening) = opening {
        return Ok(opening.answer(body));
    }
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
    /// The initial state, as far as it is still to be sent.
    initial: Initial,
    /// Sent behind the initial state.
    initial_end: Option<Revision>,
    ready: VecDeque<Bytes>,
    /// Small events that go out together behind what is ready.
    gathered: Vec<u8>,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    /// The table's columns were told.
    described: bool,
    /// Counts it among the open ones, and among those who watch the same.
    open: Option<(Open, Watching)>,
    /// Each event is a piece of its own, for a WebSocket, which has lengths of its own too.
    is_apart: bool,
    /// Sizes of the events that it sends.
    sent: Arc<::metrics::Histogram>,
    began: Instant,
    /// Objects of the initial state that were sent, until they are counted.
    initial_events: u64,
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
    if let Some(snapshot) = snapshot.as_ref().filter(|_| wants_state) {
        readable(snapshot, kind.resource, selection.namespace(), selection.name())?;
    }
    let from = snapshot.as_ref().map_or(asked.unwrap_or(0), Snapshot::revision);
    let by_key = selection.by_key();
    let initial = match &snapshot {
        Some(snapshot) if wants_state && kind.is_made_by_webhook() => {
            let mut all = shared.gate.in_version(kind, state(snapshot, kind, &by_key)).await?;
            all.retain(|object| selection.matches(object));
            Initial::Chosen(all.into_iter())
        }
        Some(snapshot) if wants_state => Initial::of(snapshot, kind, &selection),
        _ => Initial::Done,
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
        initial,
        // Who has not said what they want with a state from the newest on is told where it ends too, as upstream does.
        initial_end: (options.bookmarks && wants_state).then_some(from),
        ready: VecDeque::new(),
        gathered: Vec::new(),
        bookmarks: options.bookmarks,
        next_bookmark: now + shared.config.limits.bookmark_every,
        ends: now + lasts,
        described: false,
        open: None,
        is_apart: false,
        sent: shared.requests.watch_events(kind),
        began: now,
        initial_events: 0,
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

/// The objects that a watch begins with.
enum Initial {
    Chosen(std::vec::IntoIter<Arc<Object>>),
    /// Whatever of a table is selected, behind the last (namespace, name) that was sent: a thousand watches that begin at once hold one
    /// table, and not a thousand lists of its objects.
    Selected {
        table: Table,
        last: Option<(Arc<str>, Arc<str>)>,
    },
    Done,
}

impl Initial {
    fn of(snapshot: &Snapshot, kind: &Kind, selection: &Selection) -> Self {
        if !selection.needs_scan(kind) {
            return Self::Chosen(state(snapshot, kind, selection).into_iter());
        }
        let Some(table) = snapshot.table(kind.resource) else { return Self::Done };
        match selection.look_up(table, None, usize::MAX) {
            Some(found) => Self::Chosen(found.into_iter().cloned().collect::<Vec<_>>().into_iter()),
            None => Self::Selected { table: table.clone(), last: None },
        }
    }
}

/// What is selected by a name, by the indexed field, or by going through the namespace.
fn state(snapshot: &Snapshot, kind: &Kind, selection: &Selection) -> Vec<Arc<Object>> {
    let matches = |object: &&Arc<Object>| selection.matches(object);
    if let (Some(name), false) = (selection.name(), selection.needs_scan(kind)) {
        let found = snapshot.find(kind.resource, selection.namespace(), name);
        return found.into_iter().filter(matches).cloned().collect();
    }
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
            self.begin();
            if self.initial_events > 0 && matches!(self.initial, Initial::Done) {
                self.shared.reads.began(self.kind.resource, std::mem::take(&mut self.initial_events));
            }
            if let Some(revision) = self.initial_end.take_if(|_| matches!(self.initial, Initial::Done)) {
                self.bookmark(revision, true);
                let is_of_namespace = !self.selection.namespace().is_empty();
                self.shared.requests.watch_began(&self.kind, is_of_namespace, self.began.elapsed());
            }
            self.release();
            if self.ready.is_empty() {
                self.wait().await?;
                self.release();
            }
        }
    }

    /// Gets more of the initial state ready, if there is more: about a piece.
    fn begin(&mut self) {
        while let Initial::Chosen(rest) = &mut self.initial {
            match rest.next() {
                Some(object) => {
                    self.initial_events += 1;
                    self.frame_shared("ADDED", &object);
                }
                None => self.initial = Initial::Done,
            }
            if self.has_piece() {
                return;
            }
        }
        let Initial::Selected { table, last } = &mut self.initial else { return };
        let (table, after) = (table.clone(), last.take());
        let after = after.as_ref().map(|(namespace, name)| (&**namespace, &**name));
        let namespace = self.selection.namespace().to_owned();
        let mut full_at = None;
        for object in table.range(&namespace, after) {
            if self.selection.matches_within(object) {
                self.initial_events += 1;
                self.frame_shared("ADDED", object);
            }
            if self.has_piece() {
                full_at = Some((object.key.namespace.clone(), object.key.name.clone()));
                break;
            }
        }
        match (&mut self.initial, full_at) {
            (Initial::Selected { last, .. }, Some(at)) => *last = Some(at),
            // That was all, or one of them could not be told and ended the watch.
            _ => self.initial = Initial::Done,
        }
    }

    /// Whether enough is there to be sent.
    fn has_piece(&self) -> bool {
        !self.ready.is_empty() || self.gathered.len() >= PIECE_BYTES
    }

    /// What was gathered goes out.
    fn release(&mut self) {
        if !self.gathered.is_empty() {
            self.ready.push_back(std::mem::take(&mut self.gathered).into());
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

    /// One change, as it looks through the selectors: nothing, behind one that could not be told and ended the watch.
    fn tell(&mut self, event: &Event) {
        if self.log.is_none() {
            return;
        }
        let was = event.previous.as_ref().filter(|previous| self.selection.matches(previous));
        let is = event.change != Change::Deleted && self.selection.matches(&event.object);
        match (was, is) {
            (None, true) => self.frame_shared("ADDED", &event.object),
            (Some(_), true) => self.frame_shared("MODIFIED", &event.object),
            (Some(_), false) if event.change == Change::Deleted => {
                self.frame_shared("DELETED", &event.object)
            }
            (Some(previous), false) => {
                let left = departed(previous, event.revision);
                self.frame("DELETED", &left);
            }
            (None, false) => {}
        }
    }

    /// A change, or what a watch begins with, that others who watch are told of too.
    fn frame_shared(&mut self, change: &'static str, object: &Arc<Object>) {
        let table = match self.view.shape {
            Shape::Table(..) => {
                let second = self.shared.gate.now().as_secs();
                Some(TableTold { second, describes_columns: !self.described })
            }
            Shape::Whole if self.view.media == Media::Json && self.kind.reads_as_stored(object) => {
                return self.frame(change, object);
            }
            Shape::Metadata(_) | Shape::Whole => None,
        };
        let (shared, kind) = (self.shared.clone(), self.kind.clone());
        let written = shared.events.get(&kind, object, Telling { change, view: self.view, table }, || {
            let text = self.text(object);
            self.event(change, &text)
        });
        self.described |= table.is_some();
        self.send(written);
    }

    fn frame(&mut self, change: &'static str, object: &Object) {
        let text = self.text(object);
        self.put(change, text);
    }

    /// An object in JSON, in the shape that was asked for.
    fn text(&mut self, object: &Object) -> Bytes {
        if self.view.shape == Shape::Whole && self.kind.reads_as_stored(object) {
            return object.body.clone();
        }
        let mut text = Vec::with_capacity(object.body.len());
        let now = self.shared.gate.now();
        match self.view.shape {
            Shape::Table(include, meta) => {
                let describe = !std::mem::replace(&mut self.described, true);
                table::single(&self.kind, include, meta, object, describe, now, &mut text);
            }
            shape => show::object(&self.kind, shape, object, now, &mut text),
        }
        text.into()
    }

    /// Makes an event of an object's text, in the encoding that was asked for.
    fn put(&mut self, change: &'static str, text: Bytes) {
        if self.view.media != Media::Json || self.is_apart {
            let event = self.event(change, &text);
            return self.send(event);
        }
        let head = json_head(change);
        self.sent.observe((head.len() + text.len() + END.len()) as f64);
        if text.len() > JOINED_BYTES {
            self.release();
            return self.ready.extend([Bytes::from_static(head), text, Bytes::from_static(END)]);
        }
        self.gathered.reserve(head.len() + text.len() + END.len());
        [head, &text, END].iter().for_each(|part| self.gathered.extend_from_slice(part));
    }

    fn event(&self, change: &'static str, text: &[u8]) -> Result<Bytes, Status> {
        match self.view.media {
            Media::Protobuf => {
                let mut framed = Vec::new();
                protobuf::event(change, &self.protobuf(text)?, &mut framed);
                Ok(framed.into())
            }
            Media::Json | Media::Yaml => Ok([json_head(change), text, END].concat().into()),
            Media::Cbor => {
                let object: Value = serde_json::from_slice(text).map_err(Status::internal)?;
                Ok(respond::encode(Media::Cbor, &json!({"type": change, "object": object}))?.into())
            }
        }
    }

    fn send(&mut self, event: Result<Bytes, Status>) {
        if let Ok(event) = &event {
            self.sent.observe(event.len() as f64);
        }
        match event {
            Ok(event) if self.is_apart => self.hand_over(event),
            Ok(event) if event.len() <= JOINED_BYTES => self.gathered.extend_from_slice(&event),
            Ok(event) => {
                self.release();
                self.ready.push_back(event);
            }
            Err(status) => self.end(&status),
        }
    }

    /// Ready as a message of its own.
    fn hand_over(&mut self, mut event: Bytes) {
        if self.view.media == Media::Protobuf {
            event.advance(protobuf::LENGTH_BYTES);
        }
        self.ready.push_back(event);
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
        let mut metadata = json!({"resourceVersion": revision.to_string()});
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
                    "metadata": {"resourceVersion": revision.to_string()}, "columnDefinitions": null,
                    "rows": [{"cells": [], "object": partial(meta, &metadata)}]})
            }
        };
        self.put("BOOKMARK", object.to_string().into());
    }

    /// An ERROR event, behind which nothing comes.
    fn end(&mut self, status: &Status) {
        self.log = None;
        self.initial = Initial::Done;
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
        self.release();
        match self.is_apart {
            true => self.hand_over(event.into()),
            false => self.ready.push_back(event.into()),
        }
    }

    /// The log cannot be followed any more: an ERROR event ends the stream.
    fn fail(&mut self, error: WatchError) {
        self.log = None;
        self.initial = Initial::Done;
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
