//! AWS objects in the account store: typed records in, typed records out.
//!
//! A record is stored as an object like any other, so that the store, its watch and its history need to know nothing of AWS:
//!
//! ```text
//! {"apiVersion":"aws/v1","kind":"roles.iam","metadata":{"name":"node","uid":"…","creationTimestamp":"…"},"spec":{…the record…}}
//! ```

use std::sync::Arc;

use object::{Draft, Key, Object, Resource, Revision, Snapshot, body};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A kind of AWS object. The namespace of its keys is what it belongs to (a cluster's name, a VPC's id), or empty.
pub trait Record: Serialize + DeserializeOwned {
    /// `roles.iam`
    const RESOURCE: Resource;
}

/// A record and the revision at which it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept<T> {
    pub key: Key,
    pub revision: Revision,
    pub record: T,
}

#[derive(serde::Deserialize)]
struct View<T> {
    spec: T,
}

/// The record of a key, if there is one. One that cannot be read counts as absent; it can only be another version's.
pub fn get<T: Record>(state: &Snapshot, owner: &str, name: &str) -> Option<Kept<T>> {
    kept(state.find(T::RESOURCE, owner, name)?)
}

/// All records of a kind that belong to `owner`, all of them if it is empty, in the order of their keys.
pub fn list<T: Record>(state: &Snapshot, owner: &str) -> Vec<Kept<T>> {
    let table = state.table(T::RESOURCE);
    table.into_iter().flat_map(|table| table.range(owner, None)).filter_map(kept).collect()
}

fn kept<T: Record>(object: &Arc<Object>) -> Option<Kept<T>> {
    let View { spec } = object.decode().ok()?;
    Some(Kept { key: object.key.clone(), revision: object.revision, record: spec })
}

/// What a call or a controller wants written: one transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes(pub Vec<Change>);

/// One key's change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub key: Key,
    pub expect: Expect,
    /// The whole object to store; none removes it, or leaves it as [`Expect::Unchanged`] says.
    pub object: Option<Value>,
}

impl Change {
    /// What is to be stored; none for a removal.
    pub fn draft(&self) -> Option<Result<Draft, serde_json::Error>> {
        let stored = body::encode(self.object.as_ref()?);
        Some(Draft::read(self.key.clone(), Box::default(), stored))
    }
}

/// What must be true of a key when the change happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    At(Revision),
    /// It was last changed then, and is left as it is.
    Unchanged(Revision),
}

impl Changes {
    /// A record that is not there yet.
    pub fn create<T: Record>(&mut self, owner: &str, name: &str, record: &T) {
        let key = Key::new(T::RESOURCE, owner, name);
        let object = Some(object_of(&key, record));
        self.0.push(Change { key, expect: Expect::Absent, object });
    }

    /// The new state of a record that was read.
    pub fn update<T: Record>(&mut self, kept: &Kept<T>) {
        let object = Some(object_of(&kept.key, &kept.record));
        self.0.push(Change { key: kept.key.clone(), expect: Expect::At(kept.revision), object });
    }

    pub fn delete<T: Record>(&mut self, kept: &Kept<T>) {
        self.0.push(Change { key: kept.key.clone(), expect: Expect::At(kept.revision), object: None });
    }

    /// What is decided here holds only as long as a record is as it was read: what is made for something that goes at the same moment is
    /// not made. To be said last: a key that is written anyway is compared anyway.
    pub fn require<T: Record>(&mut self, kept: &Kept<T>) {
        if !self.has(&kept.key) {
            let expect = Expect::Unchanged(kept.revision);
            self.0.push(Change { key: kept.key.clone(), expect, object: None });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a key stands in it. One transaction names a key once.
    pub fn has(&self, key: &Key) -> bool {
        self.0.iter().any(|change| change.key == *key)
    }

    /// Makes the changes on a snapshot alone: what tests do instead of a store. Preconditions are the caller's to keep.
    pub fn apply(self, state: &mut Snapshot) {
        let revision = state.revision() + 1;
        for change in self.0 {
            match change.draft() {
                _ if matches!(change.expect, Expect::Unchanged(_)) => {}
                Some(Ok(draft)) => drop(state.put(draft.at(revision))),
                Some(Err(_)) => {}
                None => drop(state.remove(&change.key, revision)),
            }
        }
        state.advance(revision);
    }
}

fn object_of<T: Record>(key: &Key, record: &T) -> Value {
    // A record is a plain struct of plain members: it always becomes JSON.
    let spec = serde_json::to_value(record).unwrap_or_default();
    let mut metadata = json!({"name": &*key.name});
    if !key.namespace.is_empty() {
        metadata["namespace"] = json!(&*key.namespace);
    }
    json!({"apiVersion": "aws/v1", "kind": key.resource.as_str(), "metadata": metadata, "spec": spec})
}
