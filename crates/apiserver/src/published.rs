//! The documents about what is served, made anew when that changes.

use std::sync::{Arc, Mutex, PoisonError};

use gate::Catalog;

use crate::aggregate::Known;
use crate::server::Shared;
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
}

impl Shared {
    /// The documents of what is served now.
    pub(crate) fn published(&self) -> Arc<Documents> {
        let (catalog, remotes) = (self.gate.catalog(), self.remotes.all());
        let mut current = self.documents.current.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |known: &&Arc<Documents>| {
            Arc::ptr_eq(&known.catalog, &catalog) && Arc::ptr_eq(&known.remotes, &remotes)
        };
        if let Some(known) = current.as_ref().filter(is_same) {
            return known.clone();
        }
        let before = current.as_ref().map(|known| &known.openapi);
        let made = Arc::new(Documents {
            discovery: discovery::Documents::of(&catalog, &remotes),
            openapi: openapi::Documents::of(&catalog, &remotes, &self.config.version.git, before),
            catalog,
            remotes,
        });
        *current = Some(made.clone());
        made
    }
}
