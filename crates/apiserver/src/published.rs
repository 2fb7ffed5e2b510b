//! The documents about what is served, made anew when that changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ::metrics::Counter;
use gate::Catalog;

use crate::aggregate::Known;
use crate::shared::Shared;
use crate::{discovery, openapi};

/// The documents of one catalog and of the extension servers beside it. Those that are long are made when they are first asked for.
pub(crate) struct Documents {
    catalog: Arc<Catalog>,
    remotes: Known,
    pub(crate) discovery: discovery::Documents,
    pub(crate) openapi: openapi::Documents,
}

#[derive(Default)]
pub(crate) struct Published {
    current: Mutex<Option<Arc<Documents>>>,
    /// How often they were put together.
    pub(crate) made: Counter,
}

impl Shared {
    /// The documents of what is served now.
    pub(crate) fn published(&self) -> Arc<Documents> {
        let (catalog, remotes) = (self.gate.catalog(), self.remotes.all());
        let mut current = self.documents.current.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |known: &&Arc<Documents>| {
            let are_none = known.remotes.is_empty() && remotes.is_empty();
            Arc::ptr_eq(&known.catalog, &catalog) && (are_none || Arc::ptr_eq(&known.remotes, &remotes))
        };
        if let Some(known) = current.as_ref().filter(is_same) {
            return known.clone();
        }
        let before = current.as_ref().map(|known| &known.openapi);
        let version = &self.config.version.git;
        let made = if catalog.is_built_in() && remotes.is_empty() {
            Documents::built_in(catalog, remotes, version)
        } else {
            Arc::new(Documents::of(catalog, remotes, version, before))
        };
        self.documents.made.increase();
        *current = Some(made.clone());
        made
    }
}

impl Documents {
    fn of(catalog: Arc<Catalog>, remotes: Known, version: &str, before: Option<&openapi::Documents>) -> Self {
        Self {
            discovery: discovery::Documents::of(&catalog, &remotes),
            openapi: openapi::Documents::of(&catalog, &remotes, version, before),
            catalog,
            remotes,
        }
    }

    /// Those of a cluster that serves nothing of its own. They are the same for all such of a version, and held as long as one of them
    /// has them: hundreds of clusters in a process make and keep them once.
    fn built_in(catalog: Arc<Catalog>, remotes: Known, version: &str) -> Arc<Self> {
        static HELD: Mutex<BTreeMap<String, Weak<Documents>>> = Mutex::new(BTreeMap::new());
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        let known = held.get(version).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| Arc::ptr_eq(&known.catalog, &catalog)) {
            return known;
        }
        let made = Arc::new(Self::of(catalog, remotes, version, None));
        held.insert(version.to_owned(), Arc::downgrade(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_of_a_version_share_what_they_serve() {
        let of = |minor, version| Documents::built_in(Catalog::of_version(minor), Known::default(), version);
        let first = of(36, "v1.36.0-shared");
        assert!(Arc::ptr_eq(&first, &of(36, "v1.36.0-shared")));
        assert!(!Arc::ptr_eq(&first, &of(34, "v1.34.0-shared")));
        // Another program of the same version number, or a catalog that a test has made.
        assert!(!Arc::ptr_eq(&first, &of(35, "v1.36.0-shared")));
    }
}
