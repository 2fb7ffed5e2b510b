//! The kinds that this cluster serves, found by what requests name them by: those that were compiled in and those of definitions.
//!
//! A catalog is a function of the definitions in a snapshot. It is never told of a change: whoever asks for it gets one that is as new as
//! the store's state, made again if the definitions have changed since the last one. Rows of definitions that have not are taken over, so
//! that the address of a row says whether it is still the one that is served.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use kinds::CUSTOM_RESOURCE_DEFINITIONS;
use kinds::custom::{Identity, Rows};
use object::{Object, Resource, Revision, Snapshot};
use schema::Kind;
use store::Store;

/// A list of kinds with its indexes.
#[derive(Default)]
pub struct Catalog {
    all: Vec<Arc<Kind>>,
    by_resource: HashMap<Resource, Arc<Kind>>,
    served: Groups,
    /// By name.
    definitions: BTreeMap<Arc<str>, Definition>,
}

/// group → version → plural
pub type Groups = BTreeMap<&'static str, BTreeMap<&'static str, BTreeMap<&'static str, Arc<Kind>>>>;

struct Definition {
    identity: Identity,
    /// None: it cannot be served.
    rows: Option<Rows>,
}

impl Catalog {
    /// The kinds that were compiled in.
    pub fn built_in() -> Self {
        Self::of_version(u8::MAX)
    }

    /// Those of them that a minor version (36) serves.
    pub fn of_version(minor: u8) -> Self {
        let mut catalog = Self::default();
        for kind in kinds::all().iter().filter(|kind| kind.since <= minor) {
            catalog.add(&Arc::new((*kind).clone()), true);
        }
        catalog
    }

    fn add(&mut self, kind: &Arc<Kind>, is_served: bool) {
        // The first row of a resource is the one it is stored as.
        self.by_resource.entry(kind.resource).or_insert_with(|| kind.clone());
        if !is_served {
            return;
        }
        let plurals = self.served.entry(kind.group).or_default().entry(kind.version).or_default();
        // What was compiled in stays what it is.
        plurals.entry(kind.resource.plural()).or_insert_with(|| {
            self.all.push(kind.clone());
            kind.clone()
        });
    }

    /// The catalog of the definitions in a snapshot; None: it would be the same.
    fn renewed(&self, snapshot: &Snapshot) -> Option<Self> {
        let definitions: BTreeMap<Arc<str>, Definition> = snapshot
            .list(CUSTOM_RESOURCE_DEFINITIONS, "")
            .filter_map(|object| Some((object.key.name.clone(), self.definition(object)?)))
            .collect();
        let same = |(name, own): (&Arc<str>, &Definition)| {
            self.definitions.get(name).is_some_and(|known| known.identity == own.identity)
        };
        if definitions.len() == self.definitions.len() && definitions.iter().all(same) {
            return None;
        }
        let mut renewed = Self::default();
        for kind in self.all.iter().filter(|kind| kind.custom.is_none()) {
            renewed.add(kind, true);
        }
        for rows in definitions.values().filter_map(|one| one.rows.as_ref()) {
            renewed.add(&rows.stored, false);
            rows.served.iter().for_each(|kind| renewed.add(kind, true));
        }
        renewed.definitions = definitions;
        Some(renewed)
    }

    /// A definition that is served, with the rows that it had if it says the same as before.
    fn definition(&self, object: &Object) -> Option<Definition> {
        let identity = Identity::of(object).filter(Identity::is_served)?;
        let known = self.definitions.get(&object.key.name).filter(|known| known.identity == identity);
        let rows = match known {
            Some(known) => known.rows.clone(),
            None => kinds::custom::rows(object)
                .inspect_err(|error| tracing::error!(definition = %object.key.name, error, "a definition cannot be served"))
                .ok(),
        };
        Some(Definition { identity, rows })
    }

    /// What is served, the compiled-in rows first.
    pub fn all(&self) -> &[Arc<Kind>] {
        &self.all
    }

    /// The row that objects of a resource are stored by.
    pub fn by_resource(&self, resource: Resource) -> Option<&Arc<Kind>> {
        self.by_resource.get(&resource)
    }

    /// The kind behind `/apis/{group}/{version}/…/{plural}`; the core group is empty.
    pub fn served(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.served.get(group)?.get(version)?.get(plural)
    }

    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.served.get(group).is_some_and(|versions| versions.contains_key(version))
    }

    /// Whether this very row is served, not another one of its names.
    pub fn serves(&self, kind: &Arc<Kind>) -> bool {
        self.served(kind.group, kind.version, kind.resource.plural())
            .is_some_and(|now| Arc::ptr_eq(now, kind))
    }

    /// Group by group in alphabetical order, each with its versions and their kinds by plural.
    pub fn groups(&self) -> &Groups {
        &self.served
    }
}

/// The catalog of a store, kept up with it.
pub(crate) struct Live {
    current: RwLock<(Seen, Arc<Catalog>)>,
}

/// What tells one state of the definitions from the next: every write raises the revision, every removal lowers the count.
type Seen = (Revision, usize);

impl Live {
    /// `built_in` is what there is without definitions.
    pub(crate) fn new(built_in: Catalog) -> Self {
        Self { current: RwLock::new(((0, 0), Arc::new(built_in))) }
    }

    /// The catalog of the store's newest state.
    pub(crate) fn get(&self, store: &dyn Store) -> Arc<Catalog> {
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if current.0 == seen(&store.snapshot()) {
                return current.1.clone();
            }
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Read again: whoever had the lock before may have looked at a newer state.
        let snapshot = store.snapshot();
        if current.0 != seen(&snapshot) {
            current.0 = seen(&snapshot);
            if let Some(renewed) = current.1.renewed(&snapshot) {
                current.1 = Arc::new(renewed);
            }
        }
        current.1.clone()
    }
}

fn seen(snapshot: &Snapshot) -> Seen {
    snapshot.table(CUSTOM_RESOURCE_DEFINITIONS).map_or((0, 0), |table| (table.revision(), table.len()))
}
