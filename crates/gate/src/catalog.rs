//! The kinds that this cluster serves, found by what requests name them by: those that were compiled in and those of definitions.
//!
//! A catalog is a function of the definitions in a snapshot. It is never told of a change: whoever asks for it gets one that is as new as
//! the store's state, made again if the definitions have changed since the last one. Rows of definitions that have not are taken over, so
//! that the address of a row says whether it is still the one that is served.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use kinds::CUSTOM_RESOURCE_DEFINITIONS;
use kinds::custom::{Identity, Rows};
use object::{Object, Resource, Revision, Snapshot};
use schema::Kind;
use serde_json::Value;
use store::Store;

use crate::measures::Measures;

/// A list of kinds with its indexes.
#[derive(Default)]
pub struct Catalog {
    all: Vec<Arc<Kind>>,
    by_resource: HashMap<Resource, Arc<Kind>>,
    served: Groups,
}

/// group → version → plural
pub type Groups = BTreeMap<&'static str, BTreeMap<&'static str, BTreeMap<&'static str, Arc<Kind>>>>;

/// What was found when a definition was last looked at.
struct Looked {
    revision: Revision,
    /// None: it is not established.
    identity: Option<Identity>,
    /// None: it cannot be served.
    rows: Option<Rows>,
}

impl Catalog {
    /// The kinds that were compiled in.
    pub fn built_in() -> Arc<Self> {
        Self::of_version(u8::MAX)
    }

    /// Those of them that a minor version (36) serves: the same rows for every cluster of that version in this process.
    pub fn of_version(minor: u8) -> Arc<Self> {
        static MADE: Mutex<BTreeMap<u8, Arc<Catalog>>> = Mutex::new(BTreeMap::new());
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let mut catalog = Self::default();
            for kind in kinds::all().iter().filter(|kind| kind.since <= minor) {
                catalog.add(&Arc::new((*kind).clone()), true);
            }
            Arc::new(catalog)
        };
        made.entry(minor).or_insert_with(make).clone()
    }

    /// Whether it has no rows of definitions.
    pub fn is_built_in(&self) -> bool {
        self.all.iter().all(|kind| kind.custom.is_none())
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

    /// The compiled-in rows of this one, and those of definitions.
    fn with<'a>(&self, definitions: impl Iterator<Item = &'a Rows>) -> Self {
        let mut catalog = Self::default();
        for kind in self.all.iter().filter(|kind| kind.custom.is_none()) {
            catalog.add(kind, true);
        }
        for rows in definitions {
            catalog.add(&rows.stored, false);
            rows.served.iter().for_each(|kind| catalog.add(kind, true));
        }
        catalog
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
    state: RwLock<State>,
}

struct State {
    seen: Seen,
    catalog: Arc<Catalog>,
    /// By name.
    definitions: BTreeMap<Arc<str>, Looked>,
}

/// What tells one state of the definitions from the next: every write raises the revision, every removal lowers the count.
type Seen = (Revision, usize);

impl Live {
    /// Begins with the kinds that were compiled in.
    pub(crate) fn new(catalog: Arc<Catalog>) -> Self {
        let state = State { seen: (0, 0), catalog, definitions: BTreeMap::new() };
        Self { state: RwLock::new(state) }
    }

    /// The catalog of the store's newest state.
    pub(crate) fn get(&self, store: &dyn Store, measures: &Measures) -> Arc<Catalog> {
        {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            if state.seen == seen(&store.snapshot()) {
                return state.catalog.clone();
            }
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // Read again: whoever had the lock before may have looked at a newer state.
        let snapshot = store.snapshot();
        if state.seen != seen(&snapshot) {
            state.seen = seen(&snapshot);
            state.follow(&snapshot, measures);
        }
        state.catalog.clone()
    }
}

fn seen(snapshot: &Snapshot) -> Seen {
    snapshot.table(CUSTOM_RESOURCE_DEFINITIONS).map_or((0, 0), |table| (table.revision(), table.len()))
}

impl State {
    /// Looks at the definitions that have changed, and makes the catalog anew if any of them says something else.
    fn follow(&mut self, snapshot: &Snapshot, measures: &Measures) {
        let mut before = std::mem::take(&mut self.definitions);
        let mut differs = false;
        for object in snapshot.list(CUSTOM_RESOURCE_DEFINITIONS, "") {
            let known = before.remove(&*object.key.name);
            let looked = match known {
                Some(known) if known.revision == object.revision => known,
                known => {
                    let was = known.as_ref().and_then(|known| known.identity.clone());
                    let looked = look(object, known, measures);
                    differs |= looked.identity != was;
                    looked
                }
            };
            self.definitions.insert(object.key.name.as_ref().into(), looked);
        }
        differs |= before.values().any(|gone| gone.identity.is_some());
        if differs {
            let rows = self.definitions.values().filter_map(|looked| looked.rows.as_ref());
            self.catalog = Arc::new(self.catalog.with(rows));
        }
    }
}

/// A definition, with the rows that it had if it says the same as before.
fn look(object: &Object, known: Option<Looked>, measures: &Measures) -> Looked {
    let compile = |schema: &Value, is_resource: bool| {
        let began = Instant::now();
        let rules = kinds::custom::compile(schema, is_resource);
        rules.iter().for_each(|_| measures.compiled_rules(began.elapsed()));
        rules
    };
    let identity = Identity::of(object).filter(Identity::is_served);
    let revision = object.revision;
    let rows = match known {
        Some(known) if known.identity == identity => known.rows,
        _ if identity.is_none() => None,
        _ => kinds::custom::rows(object, &compile)
            .inspect_err(|error| {
                tracing::error!(definition = %object.key.name, error, "a definition cannot be served");
            })
            .ok(),
    };
    Looked { revision, identity, rows }
}
