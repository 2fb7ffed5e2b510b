use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

/// The store's one counter, as etcd's revision: every commit takes the next value. Zero is "before everything".
pub type Revision = u64;

/// A resource as upstream's errors and RBAC name it: `pods`, `deployments.apps`.
///
/// A copy of a pointer: built-ins are constants, custom resources are interned once each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource(&'static str);

impl Resource {
    /// A resource whose name is known at compile time: `Resource::new("deployments.apps")`.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// The resource of a name that is only known at run time (a custom resource).
    ///
    /// Each distinct name is kept for the life of the process, so callers intern names of established definitions only, never of requests.
    /// A definition whose names nobody had before costs about 350 bytes for good, as measured by making and deleting two thousand of them:
    /// a gigabyte wants three million, each of which was a transaction on the disk.
    pub fn intern(name: &str) -> Self {
        Self(intern(name))
    }

    /// `deployments.apps`, or `pods` for the core group.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// `deployments` of `deployments.apps`.
    pub fn plural(self) -> &'static str {
        self.0.split_once('.').map_or(self.0, |(plural, _)| plural)
    }

    /// `apps` of `deployments.apps`; empty for the core group.
    pub fn group(self) -> &'static str {
        self.0.split_once('.').map_or("", |(_, group)| group)
    }
}

/// The one copy of a name that is only known at run time: of a group, a version, a kind, a short name.
///
/// As [`Resource::intern`], for the life of the process.
pub fn intern(name: &str) -> &'static str {
    static NAMES: Interned<str> = Interned::new();
    NAMES.get(name, |name| Box::leak(name.into()))
}

/// The one copy of a list of names.
pub fn intern_list(names: &[&'static str]) -> &'static [&'static str] {
    static LISTS: Interned<[&'static str]> = Interned::new();
    LISTS.get(names, |names| Box::leak(names.into()))
}

struct Interned<T: ?Sized + 'static>(OnceLock<Mutex<BTreeSet<&'static T>>>);

impl<T: ?Sized + Ord> Interned<T> {
    const fn new() -> Self {
        Self(OnceLock::new())
    }

    fn get(&self, wanted: &T, keep: impl FnOnce(&T) -> &'static T) -> &'static T {
        let known = self.0.get_or_init(Mutex::default);
        let mut known = known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(found) = known.get(wanted) {
            return found;
        }
        let kept = keep(wanted);
        known.insert(kept);
        kept
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Where an object lives. The namespace is empty for cluster-scoped objects.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub resource: Resource,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    pub fn new(resource: Resource, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { resource, namespace: namespace.into(), name: name.into() }
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(resource: Resource, name: impl Into<Arc<str>>) -> Self {
        Self::new(resource, "", name)
    }

    /// `namespace/name`, or `name` alone at cluster scope: how logs and work queues name an object.
    pub fn path(&self) -> String {
        if self.namespace.is_empty() {
            self.name.to_string()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.resource, self.path())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_knows_its_group() {
        for (name, plural, group) in [
            ("pods", "pods", ""),
            ("deployments.apps", "deployments", "apps"),
            ("roles.rbac.authorization.k8s.io", "roles", "rbac.authorization.k8s.io"),
        ] {
            let resource = Resource::new(name);
            assert_eq!((resource.plural(), resource.group()), (plural, group));
            assert_eq!(Resource::intern(&String::from(name)), resource);
        }
    }
}
