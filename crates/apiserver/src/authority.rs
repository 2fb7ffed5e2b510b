//! RBAC as the server and the gate ask it: an index of roles and bindings, kept as fresh as the snapshot that is asked about.

use std::sync::{Arc, Mutex, PoisonError};

use access::rbac::Index;
use access::{AccessPolicies, View};
use kinds::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES};
use object::{FieldSelector, Key, Resource, Revision, Snapshot, Status};
use plan::{Attributes, Decision, User};
use serde_json::Value;

const TABLES: [Resource; 4] = [ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS];

/// Where the access policies of a cluster of EKS are asked for, at each decision: they change in the account, not in the cluster.
pub type AccessSource = Arc<dyn Fn() -> Arc<AccessPolicies> + Send + Sync>;

/// The authorizers of a cluster. Roles and bindings change rarely, so the index is made anew when one of them has.
#[derive(Default)]
pub struct Rbac {
    cached: Mutex<Option<([Revision; 4], Arc<Index>)>>,
    access: Option<AccessSource>,
}

impl Rbac {
    pub fn new() -> Self {
        Self::default()
    }

    /// With the access policies of EKS beside RBAC.
    pub fn with_access_policies(access: AccessSource) -> Self {
        Self { access: Some(access), ..Self::default() }
    }

    fn index(&self, snapshot: &Snapshot) -> Arc<Index> {
        let at = TABLES.map(|resource| snapshot.table(resource).map_or(0, |table| table.revision()));
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, index)) = &*cached
            && *known == at
        {
            return index.clone();
        }
        let index = Arc::new(Index::of(snapshot));
        *cached = Some((at, index.clone()));
        index
    }

    /// Calls `ask` with what authorization looks at.
    pub(crate) fn view<T>(&self, snapshot: &Snapshot, ask: impl FnOnce(&View<'_>) -> T) -> T {
        let index = self.index(snapshot);
        let access = self.access.as_ref().map(|source| source());
        ask(&View { snapshot, rbac: &index, access_policies: access.as_deref() })
    }

    pub(crate) fn authorize_list(
        &self,
        snapshot: &Snapshot,
        user: &User,
        attributes: &Attributes<'_>,
        fields: &FieldSelector,
    ) -> Decision {
        self.view(snapshot, |view| access::authorize_list(view, user, attributes, fields))
    }
}

impl gate::Authority for Rbac {
    fn authorize(&self, snapshot: &Snapshot, user: &User, attributes: &Attributes<'_>) -> Decision {
        self.view(snapshot, |view| access::authorize(view, user, attributes))
    }

    fn may_grant(
        &self,
        snapshot: &Snapshot,
        user: &User,
        key: &Key,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if !TABLES.contains(&key.resource) {
            return Ok(());
        }
        self.view(snapshot, |view| access::rbac::check_write(view, user, key, new, old))
    }
}
