use object::{Key, Resource, Revision};
use serde_json::Value;

/// What a decider wants done: writes in order, each a transaction of its own; the first that fails ends the plan and its key runs again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub writes: Vec<Write>,
    pub events: Vec<Occurrence>,
    /// Run this key again at this time even if nothing changes.
    pub wake_at: Option<object::Time>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.events.is_empty()
    }

    pub fn write(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Wakes at the earlier of this time and the one already asked for.
    pub fn wake(&mut self, at: object::Time) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }
}

/// One write, as a controller asks for it. The gate gives it names, defaults, validation and admission as if it had come over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// The whole object; `metadata.name` or `metadata.generateName` names it. Existing already is success for the plan if
    /// `metadata.name` was fixed and its controller owner is the same, otherwise it ends the plan.
    Create { resource: Resource, object: Value },
    /// A JSON merge patch (RFC 7396) of the object or one of its subresources (`status`, `scale`).
    Merge { key: Key, expect: Expect, subresource: &'static str, patch: Value },
    /// The whole object or subresource in place of the old one.
    Replace { key: Key, expect: Expect, subresource: &'static str, object: Value },
    /// As the DELETE of the API: grace and finalizers hold.
    Delete { key: Key, expect: Expect, grace_seconds: Option<i64>, propagation: Option<Propagation> },
    /// The `binding` subresource of a pod.
    Bind { pod: Key, uid: Box<str>, node: Box<str> },
}

/// What must still be true for a write to happen. An object that is gone or another one by now ends the plan without an error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expect {
    pub uid: Option<Box<str>>,
    pub revision: Option<Revision>,
}

impl Expect {
    /// Exactly the object that was read: same uid, same resourceVersion.
    pub fn unchanged(object: &object::Object) -> Self {
        Self { uid: Some(object.meta.uid.clone()), revision: Some(object.revision) }
    }

    /// The same object, whatever has happened to it since.
    pub fn same(object: &object::Object) -> Self {
        Self { uid: Some(object.meta.uid.clone()), revision: None }
    }
}

/// `DeleteOptions.propagationPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// Something that people are told about an object: a Kubernetes Event. The engine aggregates repeats and names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Occurrence {
    pub about: Key,
    /// `apps/v1`
    pub api_version: Box<str>,
    /// `Deployment`
    pub kind: Box<str>,
    pub uid: Box<str>,
    /// `involvedObject.fieldPath`, e.g. `spec.containers{web}`; empty for the object itself.
    pub field_path: Box<str>,
    pub warning: bool,
    /// `ScalingReplicaSet`
    pub reason: &'static str,
    pub message: String,
}
