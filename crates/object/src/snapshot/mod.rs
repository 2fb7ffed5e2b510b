mod labels;

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Change, Event, Key, LabelSelector, Meta, Resource, Revision, body};
use labels::Labels;

/// One stored object: typed metadata beside its JSON text.
#[derive(Debug)]
pub struct Object {
    pub key: Key,
    /// The revision of its last change: its resourceVersion.
    pub revision: Revision,
    pub meta: Meta,
    /// The values of the kind's selectable fields, in the order of its row; absent values are empty.
    pub fields: Box<[Box<str>]>,
    /// JSON with the resourceVersion spliced in: what a client gets.
    pub body: Bytes,
}

impl Object {
    /// A narrow view of the object: only the fields that `T` names are read.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// The whole object as a JSON tree. For writers; readers take a narrow view.
    pub fn to_value(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// An object on its way into a store: everything but the revision.
#[derive(Clone, Debug)]
pub struct Draft {
    pub key: Key,
    pub meta: Meta,
    pub fields: Box<[Box<str>]>,
    /// JSON without resourceVersion, as `body::encode` writes it.
    pub stored: Bytes,
}

#[derive(Deserialize)]
struct WithMeta {
    #[serde(default)]
    metadata: Meta,
}

impl Draft {
    /// Reads the metadata out of a stored text; fails if the text is not an object's JSON.
    pub fn read(key: Key, fields: Box<[Box<str>]>, stored: Bytes) -> Result<Self, serde_json::Error> {
        let WithMeta { metadata } = serde_json::from_slice(&stored)?;
        Ok(Self { key, meta: metadata, fields, stored })
    }

    pub fn at(self, revision: Revision) -> Object {
        let body = body::with_revision(&self.stored, revision);
        Object { key: self.key, revision, meta: self.meta, fields: self.fields, body }
    }
}

/// Everything that is true at one revision. A clone is a few pointer copies and never changes.
///
/// Measured at 150,000 objects: 8 µs an update, a scan of all in 11 ms, 38 MB on top of the bodies.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    revision: Revision,
    tables: OrdMap<Resource, Arc<Table>>,
    /// (owner's uid, key of the owned)
    owned: OrdSet<Arc<(Box<str>, Key)>>,
    /// What was written last can never be read; what is held of them, if anything, is an older state.
    unreadable: OrdSet<Key>,
}

/// All objects of one resource.
#[derive(Clone, Debug, Default)]
pub struct Table {
    objects: Objects,
    /// The value of the kind's first selectable field and the path, for values that are not empty.
    by_field: OrdSet<Arc<str>>,
    labels: Arc<Labels>,
    bytes: usize,
    /// Zero: nothing was ever put into it.
    version: u64,
    revision: Revision,
}

/// By their paths.
type Objects = OrdMap<Arc<str>, Arc<Object>>;

/// Gives every version of every table a number of its own; later ones have greater numbers.
static VERSIONS: AtomicU64 = AtomicU64::new(1);

/// Between the parts of a path, below everything that namespaces consist of: paths are ordered by namespace, then name, as lists are.
const BETWEEN: &str = "\0";
/// Behind the last path that begins with something and `BETWEEN`.
const BEHIND: &str = "\x01";

/// Where an object stands in its table. One text, because a change copies the pointers of a whole node of the tree.
fn path(key: &Key) -> String {
    [&*key.namespace, BETWEEN, &key.name].concat()
}

impl Table {
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Bytes of all bodies.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The revision of the last change to any of its objects.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// The objects of one namespace (all of them if it is empty) behind `after`, an exclusive (namespace, name).
    pub fn range<'a>(
        &'a self,
        namespace: &str,
        after: Option<(&str, &str)>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let first = if namespace.is_empty() { String::new() } else { [namespace, BETWEEN].concat() };
        // Whatever `after` says, which clients carry around: nothing of another namespace is found.
        let from = match after.map(|(namespace, name)| [namespace, BETWEEN, name].concat()) {
            Some(after) if after >= first => Bound::Excluded(after),
            _ => Bound::Included(first),
        };
        let to = [namespace, BEHIND].concat();
        let (to, is_behind) = match &from {
            _ if namespace.is_empty() => (Bound::Unbounded, false),
            Bound::Excluded(after) => (Bound::Excluded(&*to), *after >= to),
            _ => (Bound::Excluded(&*to), false),
        };
        let range = (from.as_ref().map(String::as_str), to);
        let found = (!is_behind).then(|| self.objects.range::<_, str>(range));
        found.into_iter().flatten().map(|(_, object)| object)
    }

    /// The objects of one namespace (of all, if it is empty) behind `after`, an exclusive (namespace, name), that a label selector matches
    /// and that are accepted, ordered as lists are, as many as are wanted. None: [`Table::range`] finds them as fast.
    ///
    /// The first question about a label goes through the table. Later ones look up what it found, and what has changed since.
    pub fn look_up<'a>(
        &'a self,
        namespace: &str,
        labels: &LabelSelector,
        after: Option<(&str, &str)>,
        most: usize,
        accepts: impl Fn(&Object) -> bool,
    ) -> Option<Vec<&'a Arc<Object>>> {
        let after = after.map(|(namespace, name)| [namespace, BETWEEN, name].concat()).unwrap_or_default();
        let paths = self.labels.candidates(self, namespace, labels, &after)?;
        let objects = paths.iter().filter_map(|path| self.objects.get(path));
        let matching = objects.filter(|object| labels.matches(&object.meta.labels) && accepts(object));
        Some(matching.take(most).collect())
    }

    /// What differs from another version of the table: the objects before and after, in the order of their paths. Compares no contents:
    /// an object that was written anew differs.
    pub fn changes_since<'a>(
        &'a self,
        before: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a Arc<Object>>, Option<&'a Arc<Object>>)> {
        let (mut old, mut new) = (before.objects.iter().peekable(), self.objects.iter().peekable());
        std::iter::from_fn(move || {
            loop {
                let order = match (old.peek(), new.peek()) {
                    (Some((old, _)), Some((new, _))) => old.cmp(new),
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (None, None) => return None,
                };
                let was = if order.is_le() { old.next() } else { None };
                let is = if order.is_ge() { new.next() } else { None };
                match (was, is) {
                    (Some((_, was)), Some((_, is))) if Arc::ptr_eq(was, is) => {}
                    (was, is) => return Some((was.map(|(_, was)| was), is.map(|(_, is)| is))),
                }
            }
        })
    }

    /// To be called behind each change, with the object that it did away with.
    fn changed(&mut self, path: &Arc<str>, previous: Option<&Object>, revision: Revision) {
        // A list may bring older objects after newer ones.
        self.revision = self.revision.max(revision);
        let gone = previous.map_or(0, |previous| previous.body.len());
        self.bytes -= gone;
        let from = std::mem::replace(&mut self.version, VERSIONS.fetch_add(1, Relaxed));
        self.labels.changed(self, from, path, gone);
    }
}

impl Snapshot {
    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.tables.get(&key.resource)?.objects.get(&*path(key))
    }

    /// The cluster-scoped or namespaced object of a name, without a key at hand.
    pub fn find(&self, resource: Resource, namespace: &str, name: &str) -> Option<&Arc<Object>> {
        self.tables.get(&resource)?.objects.get(&*[namespace, BETWEEN, name].concat())
    }

    pub fn table(&self, resource: Resource) -> Option<&Table> {
        self.tables.get(&resource).map(|table| &**table)
    }

    pub fn tables(&self) -> impl Iterator<Item = (Resource, &Table)> {
        self.tables.iter().map(|(resource, table)| (*resource, &**table))
    }

    /// The objects of a resource in one namespace, or in all if it is empty, ordered by namespace and name.
    pub fn list<'a>(
        &'a self,
        resource: Resource,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Object>> {
        self.tables.get(&resource).into_iter().flat_map(move |table| table.range(namespace, None))
    }

    /// The objects of a resource in one namespace, or in all if it is empty, that a label selector matches, ordered by namespace and name.
    pub fn select(
        &self,
        resource: Resource,
        namespace: &str,
        labels: &LabelSelector,
    ) -> impl Iterator<Item = &Arc<Object>> {
        let found = self.tables.get(&resource).map(|table| {
            table.look_up(namespace, labels, None, usize::MAX, |_| true).unwrap_or_else(|| {
                let all = table.range(namespace, None);
                all.filter(|object| labels.matches(&object.meta.labels)).collect()
            })
        });
        found.unwrap_or_default().into_iter()
    }

    /// The objects whose first selectable field (for pods: `spec.nodeName`) has this value.
    pub fn list_by_field<'a>(
        &'a self,
        resource: Resource,
        value: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Object>> {
        self.tables.get(&resource).into_iter().flat_map(move |table| {
            let (from, to) = ([value, BETWEEN].concat(), [value, BEHIND].concat());
            let range = (Bound::Included(from.as_str()), Bound::Excluded(to.as_str()));
            let paths = table.by_field.range::<_, str>(range);
            let objects =
                paths.filter_map(move |path| table.objects.get(path.get(value.len() + BETWEEN.len()..)?));
            // A value may have in it what stands between the parts.
            objects.filter(move |object| indexed(object) == Some(value))
        })
    }

    /// The objects with an owner reference to this uid.
    pub fn owned_by<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
        let start = Arc::new((uid.into(), Key::cluster(Resource::new(""), "")));
        let owned = self.owned.range(start..).take_while(move |owned| *owned.0 == *uid);
        owned.filter_map(|owned| self.get(&owned.1))
    }

    /// Puts an object and says what changed. The object's revision becomes the snapshot's.
    pub fn put(&mut self, object: Object) -> Event {
        let object = Arc::new(object);
        let previous = self.insert(object.clone());
        let change = if previous.is_some() { Change::Updated } else { Change::Created };
        Event { revision: object.revision, change, object, previous }
    }

    fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let path = path(&object.key);
        self.revision = self.revision.max(object.revision);
        self.mend(&object.key);
        let table = Arc::make_mut(self.tables.entry(object.key.resource).or_default());
        table.bytes += object.body.len();
        // One text for all versions: what else knows the path shares it.
        let known = table.objects.get_key_value(&*path).map(|(known, _)| known.clone());
        let known = known.unwrap_or_else(|| path.as_str().into());
        let previous = table.objects.insert(known.clone(), object.clone());
        let old_field = previous.as_ref().and_then(|old| indexed(old));
        if old_field != indexed(&object) {
            if let Some(value) = old_field {
                table.by_field.remove(&*[value, BETWEEN, &path].concat());
            }
            if let Some(value) = indexed(&object) {
                table.by_field.insert([value, BETWEEN, &path].concat().into());
            }
        }
        table.changed(&known, previous.as_deref(), object.revision);
        self.own(&object, previous.as_deref());
        previous
    }

    /// Removes an object, if it is there, and says so at the given revision.
    pub fn remove(&mut self, key: &Key, revision: Revision) -> Option<Event> {
        let previous = self.take_out(key, revision)?;
        let object = Arc::new(Object {
            key: key.clone(),
            revision,
            meta: previous.meta.clone(),
            fields: previous.fields.clone(),
            body: body::with_revision(&body::without_revision(&previous.body), revision),
        });
        Some(Event { revision, change: Change::Deleted, object, previous: Some(previous) })
    }

    fn take_out(&mut self, key: &Key, revision: Revision) -> Option<Arc<Object>> {
        let path = path(key);
        self.mend(key);
        let table = Arc::make_mut(self.tables.get_mut(&key.resource)?);
        let (known, previous) = table.objects.remove_with_key(&*path)?;
        self.revision = self.revision.max(revision);
        if let Some(value) = indexed(&previous) {
            table.by_field.remove(&*[value, BETWEEN, &path].concat());
        }
        table.changed(&known, Some(&previous), revision);
        for owner in &previous.meta.owner_references {
            self.owned.remove(&(owner.uid.clone(), key.clone()));
        }
        Some(previous)
    }

    /// The objects of one resource alone, for [`Self::take_back`]: of others, and of who owns whom, it says nothing. What changes in it is
    /// no change of the live table, whose memory of labels it does not share.
    pub fn aside(&self, resource: Resource) -> Self {
        let table =
            self.tables.get(&resource).map(|table| Table { labels: Labels::aside(), ..Table::clone(table) });
        let tables = table.map(|table| OrdMap::unit(resource, Arc::new(table))).unwrap_or_default();
        Self { revision: self.revision, tables, owned: OrdSet::new(), unreadable: self.unreadable.clone() }
    }

    /// Undoes a change: `before` is what was there. The object is shared with whoever has it, and the revision stays.
    pub fn take_back(&mut self, key: &Key, before: Option<Arc<Object>>) {
        match before {
            Some(object) => drop(self.insert(object)),
            None => drop(self.take_out(key, self.revision)),
        }
    }

    /// At this revision something was written of an object that can never be read. Its older state stays, so that nothing that belongs to
    /// it looks orphaned; whoever asks for the object as it is now is to look at [`Snapshot::unreadable`] first.
    pub fn spoil(&mut self, key: Key, revision: Revision) {
        self.advance(revision);
        self.unreadable.insert(key);
    }

    fn mend(&mut self, key: &Key) {
        if !self.unreadable.is_empty() {
            self.unreadable.remove(key);
        }
    }

    /// The first object of a namespace (of all, if it is empty), or the one of a name, whose newest state cannot be read.
    pub fn unreadable(&self, resource: Resource, namespace: &str, name: Option<&str>) -> Option<&Key> {
        if self.unreadable.is_empty() {
            return None;
        }
        let is_meant = |key: &&Key| {
            (namespace.is_empty() || *key.namespace == *namespace)
                && name.is_none_or(|name| *key.name == *name)
        };
        let from = Key::new(resource, namespace, if namespace.is_empty() { "" } else { name.unwrap_or("") });
        self.unreadable.range(from..).take_while(|key| key.resource == resource).find(is_meant)
    }

    /// The store's revision has moved on without a change to any object (an aborted or empty commit).
    pub fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// Takes the place of an earlier state without the changes between them: any object may have changed, or be gone, so all tables have
    /// changed as of this revision. Who follows a table by its revision would not notice otherwise what was deleted.
    pub fn replace(&mut self, former: &Self) {
        let resources: Vec<Resource> = self.tables.keys().chain(former.tables.keys()).copied().collect();
        for resource in resources {
            Arc::make_mut(self.tables.entry(resource).or_default()).revision = self.revision;
        }
    }

    fn own(&mut self, object: &Object, previous: Option<&Object>) {
        let before = previous.map_or(&[][..], |old| &old.meta.owner_references);
        let after = &object.meta.owner_references;
        if before == &after[..] {
            return;
        }
        for owner in before {
            self.owned.remove(&(owner.uid.clone(), object.key.clone()));
        }
        for owner in after {
            self.owned.insert(Arc::new((owner.uid.clone(), object.key.clone())));
        }
    }
}

fn indexed(object: &Object) -> Option<&str> {
    object.fields.first().map(|value| &**value).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: Resource = Resource::new("pods");

    fn pod(namespace: &str, name: &str, node: &str, owner: &str, revision: Revision) -> Object {
        let text = serde_json::json!({"metadata": {"name": name, "ownerReferences": [
            {"apiVersion": "v1", "kind": "X", "name": "x", "uid": owner}]}});
        let key = Key::new(PODS, namespace, name);
        Draft::read(key, [node.into()].into(), body::encode(&text)).expect("a draft").at(revision)
    }

    fn names<'a>(objects: impl Iterator<Item = &'a Arc<Object>>) -> Vec<&'a str> {
        objects.map(|object| &*object.key.name).collect()
    }

    #[test]
    fn what_cannot_be_read_is_known_until_it_can() {
        let mut now = Snapshot::default();
        now.put(pod("a", "one", "", "u1", 1));
        now.put(pod("a", "two", "", "u1", 2));
        now.spoil(Key::new(PODS, "a", "one"), 3);
        now.spoil(Key::new(PODS, "b", "never"), 4);
        assert_eq!(
            (now.revision(), names(now.list(PODS, ""))),
            (4, vec!["one", "two"]),
            "the older state stays"
        );
        let check = |now: &Snapshot, resource, namespace, name, expected: Option<&str>| {
            let found = now.unreadable(resource, namespace, name).map(|key| &*key.name);
            assert_eq!(found, expected, "{resource} {namespace} {name:?}");
        };
        for (resource, namespace, name, expected) in [
            (PODS, "", None, Some("one")),
            (PODS, "a", None, Some("one")),
            (PODS, "a", Some("one"), Some("one")),
            (PODS, "a", Some("two"), None),
            (PODS, "b", None, Some("never")),
            (PODS, "c", None, None),
            (Resource::new("secrets"), "", None, None),
        ] {
            check(&now, resource, namespace, name, expected);
        }
        now.put(pod("a", "one", "", "u1", 5));
        check(&now, PODS, "a", None, None);
        now.remove(&Key::new(PODS, "b", "never"), 6);
        check(&now, PODS, "", None, None);
    }

    #[test]
    fn the_indexes_follow_every_change() {
        let mut now = Snapshot::default();
        now.put(pod("a", "one", "", "u1", 1));
        now.put(pod("b", "two", "n1", "u1", 2));
        let before = now.clone();
        let event = now.put(pod("a", "one", "n1", "u2", 3));
        assert_eq!(event.change, Change::Updated);
        assert_eq!(names(now.list(PODS, "")), ["one", "two"]);
        assert_eq!(names(now.list(PODS, "b")), ["two"]);
        assert_eq!(names(now.list_by_field(PODS, "n1")), ["one", "two"]);
        assert_eq!(names(now.owned_by("u1")), ["two"]);
        assert_eq!(names(before.list_by_field(PODS, "n1")), ["two"]);
        let event = now.remove(&Key::new(PODS, "b", "two"), 4).expect("it was there");
        assert_eq!((event.change, event.object.revision, now.revision()), (Change::Deleted, 4, 4));
        assert_eq!(names(now.list_by_field(PODS, "n1")), ["one"]);
        assert_eq!(names(now.owned_by("u1")), [""; 0]);
        let after: Vec<_> = now.table(PODS).expect("pods").range("", Some(("a", "one"))).collect();
        assert!(after.is_empty());
    }

    #[test]
    fn what_takes_a_states_place_has_changed_in_all_tables() {
        const NODES: Resource = Resource::new("nodes");
        let mut before = Snapshot::default();
        before.put(pod("a", "one", "", "u1", 1));
        before.put(Object { key: Key::cluster(NODES, "n"), ..pod("", "n", "", "u1", 2) });
        before.put(pod("a", "two", "", "u1", 3));
        let mut now = Snapshot::default();
        now.put(pod("a", "one", "", "u1", 1));
        now.advance(9);
        now.replace(&before);
        let seen: Vec<_> =
            now.tables().map(|(resource, table)| (resource, table.revision(), table.len())).collect();
        assert_eq!(seen, [(NODES, 9, 0), (PODS, 9, 1)]);
        assert_eq!(before.table(PODS).map(Table::revision), Some(3));
    }

    #[test]
    fn a_range_keeps_to_its_namespace() {
        let mut now = Snapshot::default();
        for (at, (namespace, name)) in
            [("a", "one"), ("a", "two"), ("a-b", "one"), ("b", "one")].into_iter().enumerate()
        {
            now.put(pod(namespace, name, "", "", at as u64 + 1));
        }
        let check = |namespace: &str, after: Option<(&str, &str)>, expected: &[&str]| {
            let table = now.table(PODS).expect("pods");
            let found: Vec<String> = table.range(namespace, after).map(|object| object.key.path()).collect();
            assert_eq!(found, expected, "{namespace:?} behind {after:?}");
        };
        check("", None, &["a/one", "a/two", "a-b/one", "b/one"]);
        check("", Some(("a", "two")), &["a-b/one", "b/one"]);
        check("a", None, &["a/one", "a/two"]);
        check("a", Some(("a", "one")), &["a/two"]);
        check("a-b", None, &["a-b/one"]);
        // A token of another namespace opens nothing.
        check("a", Some(("b", "")), &[]);
        check("b", Some(("a", "one")), &["b/one"]);
    }
}
