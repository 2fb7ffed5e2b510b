//! The part of the cluster that this node knows: a snapshot, filled by list and watch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use kinds::{CONFIG_MAPS, PODS, SECRETS, SERVICES};
use object::{Event, Key, Meta, Object, Resource, Revision, Snapshot};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::api::{Api, ApiError};
use crate::task::Task;

/// An event line: an object is at most 1.5 MiB in the store, and grows by its envelope.
const LINE_LIMIT: usize = 8 << 20;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// What to watch: one resource, or the part of it that a field selector picks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    pub resource: Resource,
    /// `/api/v1/pods`, `/api/v1/namespaces/default/secrets`
    pub path: String,
    /// `spec.nodeName=node-1`, `metadata.name=ca`; empty for all.
    pub field_selector: String,
    /// Whose part of the node's work it is for, where that has an account of its own: it is asked for as them.
    pub user: Option<&'static str>,
}

pub struct Mirror {
    api: Arc<Api>,
    snapshot: Mutex<Snapshot>,
    synced: Mutex<BTreeSet<Source>>,
    listeners: Listeners,
}

/// Who hears of what: the pods' loop of pods and what they name, the network of everything else, and of pods for their host ports.
pub struct Listeners {
    pub pods: mpsc::UnboundedSender<Change>,
    pub network: mpsc::UnboundedSender<Change>,
}

impl Listeners {
    fn tell(&self, resource: Resource, change: Change) {
        let for_pods = matches!(resource, PODS | CONFIG_MAPS | SECRETS);
        // Nobody listens only when the node is stopping.
        if let (true, Change::Object(event)) = (resource == PODS, &change) {
            let _ = self.network.send(Change::Object(event.clone()));
        }
        let _ = if for_pods { self.pods.send(change) } else { self.network.send(change) };
    }
}

/// What the mirror tells as it happens.
#[derive(Debug)]
pub enum Change {
    /// An object came, changed or went.
    Object(Event),
    /// Everything of a source is known now, for the first time.
    Synced(Source),
}

impl Mirror {
    pub fn new(api: Arc<Api>, listeners: Listeners) -> Arc<Self> {
        Arc::new(Self { api, snapshot: Mutex::default(), synced: Mutex::default(), listeners })
    }

    pub fn snapshot(&self) -> Snapshot {
        lock(&self.snapshot).clone()
    }

    pub fn is_synced(&self, source: &Source) -> bool {
        lock(&self.synced).contains(source)
    }

    /// Follows a source as long as the task is held.
    pub fn follow(self: &Arc<Self>, source: Source) -> Task {
        let mirror = self.clone();
        Task::spawn(async move {
            let mut retry = FIRST_RETRY;
            loop {
                match mirror.list_and_watch(&source).await {
                    Ok(()) => retry = FIRST_RETRY,
                    Err(error) => {
                        match error {
                            ApiError::Status { .. } => {
                                warn!(path = source.path, %error, "the server refuses a watch")
                            }
                            _ => debug!(path = source.path, %error, "a watch ended"),
                        }
                        tokio::time::sleep(retry).await;
                        retry = (retry * 2).min(LONGEST_RETRY);
                    }
                }
            }
        })
    }

    /// Forgets what a source that is no longer followed had brought.
    pub fn forget(&self, source: &Source) {
        lock(&self.synced).remove(source);
        let gone: Vec<Key> = lock(&self.snapshot)
            .list(source.resource, namespace_of(&source.path))
            .filter(|object| is_selected(object, &source.field_selector))
            .map(|object| object.key.clone())
            .collect();
        let mut snapshot = lock(&self.snapshot);
        let revision = snapshot.revision();
        for key in gone {
            snapshot.remove(&key, revision);
        }
    }

    async fn list_and_watch(&self, source: &Source) -> Result<(), ApiError> {
        let mut revision = self.list(source).await?;
        loop {
            let path = format!(
                "{}?watch=true&allowWatchBookmarks=true&resourceVersion={revision}{}",
                source.path,
                selector_query(source)
            );
            let stream = match self.api.stream(source.user, &path).await {
                Err(error) if error.is_expired() => return Ok(()),
                other => other?,
            };
            match self.watch(source, stream, revision).await {
                Some(reached) => revision = reached,
                None => return Ok(()),
            }
        }
    }

    async fn list(&self, source: &Source) -> Result<Revision, ApiError> {
        #[derive(Deserialize)]
        struct List {
            metadata: ListMeta,
            #[serde(default)]
            items: Vec<Box<RawValue>>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ListMeta {
            resource_version: String,
        }
        let path = format!("{}?resourceVersion=0{}", source.path, selector_query(source));
        let list: List = self.api.get_as(source.user, &path).await?;
        let mut listed: BTreeMap<Key, Object> = BTreeMap::new();
        for item in list.items {
            let text: Box<str> = item.into();
            if let Some(object) = read(source, Bytes::from(String::from(text))) {
                listed.insert(object.key.clone(), object);
            }
        }
        let revision = list.metadata.resource_version.parse().unwrap_or(0);
        let mut events = Vec::new();
        {
            let mut snapshot = lock(&self.snapshot);
            let known: Vec<(Key, Revision)> = snapshot
                .list(source.resource, namespace_of(&source.path))
                .filter(|object| is_selected(object, &source.field_selector))
                .map(|object| (object.key.clone(), object.revision))
                .collect();
            for (key, held) in known {
                match listed.get(&key) {
                    None => events.extend(snapshot.remove(&key, revision)),
                    Some(object) if object.revision == held => {
                        listed.remove(&key);
                    }
                    Some(_) => {}
                }
            }
            events.extend(listed.into_values().map(|object| snapshot.put(object)));
        }
        let is_first = lock(&self.synced).insert(source.clone());
        self.tell(events);
        if is_first {
            self.listeners.tell(source.resource, Change::Synced(source.clone()));
            if source.resource == SERVICES {
                // Pods wait for services: their environment names them.
                let _ = self.listeners.pods.send(Change::Synced(source.clone()));
            }
        }
        Ok(revision)
    }

    /// Follows a stream to its end. The revision that it reached, or None if the list must be made again.
    async fn watch(&self, source: &Source, mut stream: Incoming, from: Revision) -> Option<Revision> {
        let mut revision = from;
        let mut pending: Vec<u8> = Vec::new();
        while let Some(frame) = stream.frame().await {
            let Ok(frame) = frame else { return Some(revision) };
            let Ok(data) = frame.into_data() else { continue };
            pending.extend_from_slice(&data);
            while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                revision = self.take(source, &line)?;
            }
            if pending.len() > LINE_LIMIT {
                warn!(resource = %source.resource, "a watch sent a line over {LINE_LIMIT} bytes");
                return None;
            }
        }
        Some(revision)
    }

    fn take(&self, source: &Source, line: &[u8]) -> Option<Revision> {
        #[derive(Deserialize)]
        struct Line<'a> {
            r#type: &'a str,
            #[serde(borrow)]
            object: &'a RawValue,
        }
        let line: Line = serde_json::from_slice(line).ok()?;
        let text = line.object.get();
        if line.r#type == "ERROR" {
            return None;
        }
        let object = read(source, Bytes::copy_from_slice(text.as_bytes()))?;
        let revision = object.revision;
        let event = match line.r#type {
            "BOOKMARK" => None,
            "DELETED" => lock(&self.snapshot).remove(&object.key, revision),
            _ => Some(lock(&self.snapshot).put(object)),
        };
        self.tell(event);
        Some(revision)
    }

    fn tell(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.listeners.tell(event.key().resource, Change::Object(event));
        }
    }
}

/// A poisoned lock only says that a thread panicked; the snapshot is persistent and whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An object as the API server sent it; None if it is none (the server is trusted, the bytes are not).
fn read(source: &Source, body: Bytes) -> Option<Object> {
    #[derive(Deserialize)]
    struct Identity {
        metadata: IdentityMeta,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct IdentityMeta {
        #[serde(default)]
        name: String,
        #[serde(default)]
        namespace: String,
        #[serde(default)]
        resource_version: String,
        #[serde(flatten)]
        meta: Meta,
    }
    let Identity { metadata } = serde_json::from_slice(&body).ok()?;
    Some(Object {
        key: Key::new(source.resource, metadata.namespace, metadata.name),
        revision: metadata.resource_version.parse().ok()?,
        meta: metadata.meta,
        // Pods come by their node's name, which is also what the snapshot finds them by.
        fields: source.field_selector.strip_prefix("spec.nodeName=").map(Into::into).into_iter().collect(),
        body,
    })
}

fn selector_query(source: &Source) -> String {
    if source.field_selector.is_empty() {
        return String::new();
    }
    format!("&fieldSelector={}", source.field_selector.replace('=', "%3D"))
}

fn namespace_of(path: &str) -> &str {
    path.split_once("/namespaces/").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default()
}

/// Sources of one resource either take all of it, or each a single object by its name.
fn is_selected(object: &Object, field_selector: &str) -> bool {
    field_selector.strip_prefix("metadata.name=").is_none_or(|name| *object.key.name == *name)
}
