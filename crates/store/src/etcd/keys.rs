//! Where upstream's API server keeps each resource in etcd, so that both can serve the same data.

use std::collections::HashMap;

use object::{Key, Resource};

pub(super) const ROOT: &str = "/registry/";

/// Built-ins that do not stand under their plural, as upstream's storage factory has it for the sake of old data.
const SPECIAL: [(&str, &str); 7] = [
    ("apiservices.apiregistration.k8s.io", "apiregistration.k8s.io/apiservices"),
    ("customresourcedefinitions.apiextensions.k8s.io", "apiextensions.k8s.io/customresourcedefinitions"),
    ("endpoints", "services/endpoints"),
    ("ingresses.networking.k8s.io", "ingress"),
    ("nodes", "minions"),
    ("replicationcontrollers", "controllers"),
    ("services", "services/specs"),
];

/// The folder of a resource below `/registry/`. Built-ins stand without their group, custom resources with it.
///
/// ```text
/// pods → pods    deployments.apps → deployments    services → services/specs    widgets.example.com → example.com/widgets
/// ```
pub fn storage_prefix(resource: Resource, builtin: bool) -> String {
    if let Some((_, prefix)) = SPECIAL.iter().find(|(name, _)| *name == resource.as_str()) {
        return (*prefix).to_owned();
    }
    match resource.group() {
        group if !builtin && !group.is_empty() => format!("{group}/{}", resource.plural()),
        _ => resource.plural().to_owned(),
    }
}

/// Translates keys both ways.
pub(super) struct Keys {
    by_prefix: HashMap<String, Resource>,
    by_resource: HashMap<Resource, String>,
}

impl Keys {
    pub(super) fn new(builtins: &[Resource]) -> Self {
        let pairs = || builtins.iter().map(|resource| (storage_prefix(*resource, true), *resource));
        Self {
            by_prefix: pairs().collect(),
            by_resource: pairs().map(|(prefix, resource)| (resource, prefix)).collect(),
        }
    }

    pub(super) fn write(&self, key: &Key) -> Vec<u8> {
        let custom;
        let prefix = match self.by_resource.get(&key.resource) {
            Some(prefix) => prefix,
            None => {
                custom = storage_prefix(key.resource, false);
                &custom
            }
        };
        let path = if key.namespace.is_empty() { key.name.to_string() } else { key.path() };
        format!("{ROOT}{prefix}/{path}").into_bytes()
    }

    /// The object that a key of etcd stands for; `None` for keys that are none of ours (allocators, other users of the etcd).
    pub(super) fn read(&self, key: &[u8]) -> Option<Key> {
        let path = std::str::from_utf8(key).ok()?.strip_prefix(ROOT)?;
        let (first, rest) = path.split_once('/')?;
        if let Some(resource) = self.by_prefix.get(first) {
            return object_key(*resource, rest);
        }
        let (second, rest) = rest.split_once('/')?;
        if let Some(resource) = self.by_prefix.get(&path[..first.len() + 1 + second.len()]) {
            return object_key(*resource, rest);
        }
        // A group has a dot, no folder of a built-in has one: what remains is a custom resource.
        if !first.contains('.') {
            return None;
        }
        object_key(Resource::intern(&format!("{second}.{first}")), rest)
    }
}

fn object_key(resource: Resource, path: &str) -> Option<Key> {
    match path.split_once('/') {
        Some((namespace, name)) if !name.contains('/') => Some(Key::new(resource, namespace, name)),
        Some(_) => None,
        None => Some(Key::cluster(resource, path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_upstreams_both_ways() {
        let builtins = [
            "apiservices.apiregistration.k8s.io",
            "customresourcedefinitions.apiextensions.k8s.io",
            "deployments.apps",
            "endpoints",
            "events",
            "ingresses.networking.k8s.io",
            "leases.coordination.k8s.io",
            "nodes",
            "pods",
            "replicationcontrollers",
            "services",
        ];
        let keys = Keys::new(&builtins.map(Resource::new));
        for (resource, namespace, name, written) in [
            ("pods", "default", "a", "/registry/pods/default/a"),
            ("deployments.apps", "default", "a", "/registry/deployments/default/a"),
            ("services", "default", "a", "/registry/services/specs/default/a"),
            ("endpoints", "default", "a", "/registry/services/endpoints/default/a"),
            ("nodes", "", "n", "/registry/minions/n"),
            ("replicationcontrollers", "d", "a", "/registry/controllers/d/a"),
            ("leases.coordination.k8s.io", "kube-system", "l", "/registry/leases/kube-system/l"),
            ("ingresses.networking.k8s.io", "d", "a", "/registry/ingress/d/a"),
            (
                "apiservices.apiregistration.k8s.io",
                "",
                "v1.",
                "/registry/apiregistration.k8s.io/apiservices/v1.",
            ),
            (
                "customresourcedefinitions.apiextensions.k8s.io",
                "",
                "w.example.com",
                "/registry/apiextensions.k8s.io/customresourcedefinitions/w.example.com",
            ),
            ("widgets.example.com", "d", "a", "/registry/example.com/widgets/d/a"),
            ("gadgets.example.com", "", "a", "/registry/example.com/gadgets/a"),
        ] {
            let key = Key::new(Resource::new(resource), namespace, name);
            assert_eq!(String::from_utf8(keys.write(&key)).expect("text"), written);
            assert_eq!(keys.read(written.as_bytes()), Some(key));
        }
        for foreign in [
            "compact_rev_key",
            "/registry/ranges/serviceips",
            "/registry/masterleases/10.0.0.1",
            "/registry/pods/a/b/c",
        ] {
            assert_eq!(keys.read(foreign.as_bytes()), None, "{foreign}");
        }
    }
}
