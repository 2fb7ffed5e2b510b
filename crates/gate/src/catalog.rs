//! The kinds that this cluster serves, found by what requests name them by.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use object::Resource;
use schema::Kind;

/// A list of kinds with its indexes. Cloning shares it.
#[derive(Clone)]
pub struct Catalog(Arc<Indexes>);

struct Indexes {
    all: Vec<&'static Kind>,
    by_resource: HashMap<Resource, &'static Kind>,
    /// group → version → plural
    served: BTreeMap<&'static str, BTreeMap<&'static str, BTreeMap<&'static str, &'static Kind>>>,
}

impl Catalog {
    /// The kinds that were compiled in.
    pub fn built_in() -> Self {
        Self::of(kinds::all().iter().copied())
    }

    fn of(kinds: impl Iterator<Item = &'static Kind>) -> Self {
        let all: Vec<_> = kinds.collect();
        let mut by_resource = HashMap::new();
        let mut served: BTreeMap<_, BTreeMap<_, BTreeMap<_, _>>> = BTreeMap::new();
        for &kind in &all {
            // The first row of a resource is the one it is stored as.
            by_resource.entry(kind.resource).or_insert(kind);
            served
                .entry(kind.group)
                .or_default()
                .entry(kind.version)
                .or_default()
                .insert(kind.resource.plural(), kind);
        }
        Self(Arc::new(Indexes { all, by_resource, served }))
    }

    pub fn all(&self) -> &[&'static Kind] {
        &self.0.all
    }

    pub fn by_resource(&self, resource: Resource) -> Option<&'static Kind> {
        self.0.by_resource.get(&resource).copied()
    }

    /// The kind behind `/apis/{group}/{version}/…/{plural}`; the core group is empty.
    pub fn served(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        self.0.served.get(group)?.get(version)?.get(plural).copied()
    }

    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.0.served.get(group).is_some_and(|versions| versions.contains_key(version))
    }

    /// Group by group in alphabetical order, each with its versions and their kinds by plural.
    pub fn groups(
        &self,
    ) -> impl Iterator<Item = (&'static str, &BTreeMap<&'static str, BTreeMap<&'static str, &'static Kind>>)>
    {
        self.0.served.iter().map(|(group, versions)| (*group, versions))
    }
}
