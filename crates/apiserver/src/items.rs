//! A list as it goes out: the objects of a snapshot, joined as the bytes that they are or in the encoding that was asked for.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use object::{Object, Status, Table, Time};
use schema::Kind;
use serde_json::Value;

use crate::metrics::Listing;
use crate::negotiate::{Media, Shape, View};
use crate::respond::Answer;
use crate::select::Selection;
use crate::shared::Shared;
use crate::show::{self, table};
use crate::{protobuf, respond};

/// What is handed over at a time.
const BUFFER_BYTES: usize = 128 * 1024;
/// A buffer has room for one more object of this size, so that few ever grow: growing copies all of it.
const BUFFER_SLACK_BYTES: usize = 16 * 1024;
/// So much of a list in protobuf is kept between measuring it and sending it.
const KEPT_BYTES: usize = 4 * 1024 * 1024;

/// A list of objects as an answer.
pub(crate) async fn answer(
    shared: &Shared,
    kind: &Arc<Kind>,
    view: View,
    metadata: Value,
    objects: Objects,
    listing: Listing,
) -> Result<Answer, Status> {
    let mut metadata = metadata;
    if kind.custom.is_some() && view.shape == Shape::Whole && metadata["continue"].is_null() {
        // What has no type of its own in Go is written with all of it.
        metadata["continue"] = "".into();
    }
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
        listing: Arc::new(listing),
    };
    match view.media {
        Media::Protobuf => body.begin_protobuf(&metadata).await?,
        Media::Json => body.begin_json(&metadata),
        Media::Cbor | Media::Yaml => {
            body.begin_json(&metadata);
            body.rewrite().await?;
        }
    }
    Ok(respond::negotiated(view.media, StatusCode::OK, body.boxed_unsync()))
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
    /// Counts what is read. One that is tried first shares it only as long as what it makes is kept.
    listing: Arc<Listing>,
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
        let mut trial = Self { listing: Arc::default(), ..self.clone() };
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
            let (fetched, returned) = trial.listing.seen();
            self.listing.saw(fetched, returned);
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
        let Self { kind, view, now, objects, is_first, failure, listing, .. } = self;
        let (mut fetched, mut returned) = (0, 0);
        let mut write = |object: &Object| {
            returned += 1;
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
                // Go writes no kind and version of what is typed; custom resources are not.
                Shape::Whole if kind.custom.is_none() => show::item(kind, object, &mut buffer),
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
                let full_at = rest.find(|object| {
                    fetched += 1;
                    selection.matches_within(object) && write(object)
                });
                *last = full_at.map(|object| (object.key.namespace.clone(), object.key.name.clone()));
                last.is_some()
            }
        };
        listing.saw(fetched, returned);
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

    fn size_hint(&self) -> SizeHint {
        let ready = self.ready.iter().map(|piece| piece.len() as u64).sum();
        let mut hint = SizeHint::with_exact(ready);
        if !self.closed {
            hint = SizeHint::new();
            hint.set_lower(ready);
        }
        hint
    }
}
