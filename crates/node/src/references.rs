//! The ConfigMaps and Secrets that this node's pods name: each followed as long as a pod here names it, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kubelet::Pod;
use object::Resource;

use crate::mirror::{Mirror, Source};
use crate::task::Task;

#[derive(Default)]
pub struct References {
    /// By pod uid.
    wanted: BTreeMap<String, BTreeSet<Source>>,
    followed: BTreeMap<Source, Task>,
}

impl References {
    /// Follows what the pod names. Whether all of it is known.
    pub fn set(&mut self, mirror: &Arc<Mirror>, pod: &Pod) -> bool {
        let sources: BTreeSet<Source> = kubelet::references(pod)
            .into_iter()
            .map(|reference| source(reference.is_secret, &pod.metadata.namespace, &reference.name))
            .collect();
        for source in &sources {
            self.followed.entry(source.clone()).or_insert_with(|| mirror.follow(source.clone()));
        }
        let known = sources.iter().all(|source| mirror.is_synced(source));
        if self.wanted.get(&pod.metadata.uid) != Some(&sources) {
            self.wanted.insert(pod.metadata.uid.clone(), sources);
            self.sweep(mirror);
        }
        known
    }

    /// The pod is gone.
    pub fn drop_pod(&mut self, mirror: &Arc<Mirror>, uid: &str) {
        if self.wanted.remove(uid).is_some() {
            self.sweep(mirror);
        }
    }

    /// The pods that name this object.
    pub fn users(&self, source: &Source) -> Vec<String> {
        self.wanted.iter().filter(|(_, named)| named.contains(source)).map(|(uid, _)| uid.clone()).collect()
    }

    fn sweep(&mut self, mirror: &Arc<Mirror>) {
        let needed: BTreeSet<&Source> = self.wanted.values().flatten().collect();
        let followed = std::mem::take(&mut self.followed);
        for (source, task) in followed {
            if needed.contains(&source) {
                self.followed.insert(source, task);
            } else {
                drop(task);
                mirror.forget(&source);
            }
        }
    }
}

/// The source of one ConfigMap or Secret: the Node authorizer allows a node exactly these.
pub fn source(is_secret: bool, namespace: &str, name: &str) -> Source {
    let plural = if is_secret { "secrets" } else { "configmaps" };
    Source {
        resource: Resource::new(plural),
        path: format!("/api/v1/namespaces/{namespace}/{plural}"),
        field_selector: format!("metadata.name={name}"),
        user: None,
    }
}
