//! Which ConfigMaps and Secrets a pod names.

use std::collections::BTreeSet;

use crate::pod::{Container, Pod};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub is_secret: bool,
    pub name: String,
}

/// Every ConfigMap and Secret of the pod's namespace that its node must know to run it.
pub fn references(pod: &Pod) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    let mut add = |is_secret: bool, name: &str| {
        if !name.is_empty() {
            found.insert(Reference { is_secret, name: name.to_owned() });
        }
    };
    for secret in &pod.spec.image_pull_secrets {
        add(true, &secret.name);
    }
    for volume in &pod.spec.volumes {
        if let Some(map) = &volume.config_map {
            add(false, &map.name);
        }
        if let Some(secret) = &volume.secret {
            add(true, &secret.secret_name);
        }
        for part in volume.projected.iter().flat_map(|projected| &projected.sources) {
            if let Some(map) = &part.config_map {
                add(false, &map.name);
            }
            if let Some(secret) = &part.secret {
                add(true, &secret.secret_name);
            }
        }
    }
    for Container { env, env_from, .. } in pod.spec.all_containers() {
        for source in env_from {
            source.config_map_ref.iter().for_each(|reference| add(false, &reference.name));
            source.secret_ref.iter().for_each(|reference| add(true, &reference.name));
        }
        for source in env.iter().filter_map(|variable| variable.value_from.as_ref()) {
            source.config_map_key_ref.iter().for_each(|reference| add(false, &reference.name));
            source.secret_key_ref.iter().for_each(|reference| add(true, &reference.name));
        }
    }
    found
}
