//! Says of every group and version that is served here that it is: an APIService without a service, for built-ins and for definitions.
//!
//! Who asks for APIServices (helm's and Argo CD's cluster caches, `kubectl get apiservices`) finds all groups there. One that is deleted
//! comes back; one that somebody else made stays theirs.
//! <https://kubernetes.io/docs/concepts/extend-kubernetes/api-extension/apiserver-aggregation/>

use kinds::{API_SERVICES, CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES};
use object::{Event, Key, Object, Snapshot, Time};
use plan::{Expect, Plan, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::views::{Condition, condition};
use crate::writes::merge;
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "autoregister-controller",
    user: "autoregister-controller",
    watches: &[
        Watch { resource: API_SERVICES, keys: itself },
        Watch { resource: CUSTOM_RESOURCE_DEFINITIONS, keys: of_definition },
        Watch { resource: NAMESPACES, keys: built_in },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

/// Tells whose an APIService is: `onstart` for built-ins, `true` for definitions.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Priorities of groups and of versions within them, as upstream has them: which group `kubectl` means by a name that several have.
const BUILT_IN: &[(&str, &str, i64, i64)] = &[
    ("", "v1", 18_000, 1),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("apps", "v1", 17_800, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("resource.k8s.io", "v1", 16_200, 20),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
];
/// Versions of a definition's group are sorted by their names.
const OF_DEFINITIONS: (i64, i64) = (1000, 100);

fn key(group: &str, version: &str) -> Key {
    Key::cluster(API_SERVICES, format!("{version}.{group}"))
}

fn itself(_: &Snapshot, event: &Event) -> Vec<Key> {
    vec![event.key().clone()]
}

/// All that were compiled in, once there is a cluster.
fn built_in(_: &Snapshot, event: &Event) -> Vec<Key> {
    if *event.key().name != *"kube-system" {
        return Vec::new();
    }
    BUILT_IN.iter().map(|(group, version, ..)| key(group, version)).collect()
}

#[derive(Deserialize)]
struct View {
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Spec {
    group: String,
    versions: Vec<Version>,
}

#[derive(Deserialize)]
struct Version {
    name: String,
    #[serde(default)]
    served: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

/// Of the definition as it is and as it was: a version may have gone.
fn of_definition(_: &Snapshot, event: &Event) -> Vec<Key> {
    let states = [Some(&event.object), event.previous.as_ref()];
    let views = states.into_iter().flatten().filter_map(|object| object.decode::<View>().ok());
    let mut keys: Vec<Key> = Vec::new();
    for View { spec, .. } in views {
        for version in spec.versions {
            let key = key(&spec.group, &version.name);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    keys
}

fn reconcile(snapshot: &Snapshot, key: &Key, _: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some((version, group)) = key.name.split_once('.') else { return plan };
    let wanted = wanted(snapshot, group, version);
    match (snapshot.get(key), wanted) {
        (None, Some(object)) => plan.write(Write::Create { resource: API_SERVICES, object }),
        (Some(held), wanted) if is_managed(held) => match wanted {
            None => plan.write(Write::Delete {
                key: key.clone(),
                expect: Expect::unchanged(held),
                grace_seconds: None,
                propagation: None,
            }),
            Some(wanted) => repair(held, &wanted, &mut plan),
        },
        _ => {}
    }
    plan
}

fn is_managed(held: &Object) -> bool {
    held.meta.label(MANAGED).is_some()
}

/// What stands in ours is as it should be.
fn repair(held: &Object, wanted: &Value, plan: &mut Plan) {
    let Ok(value) = held.to_value() else { return };
    if value["spec"] != wanted["spec"] {
        let mut patch = json!({"spec": wanted["spec"]});
        patch["spec"]["service"] = Value::Null;
        patch["spec"]["caBundle"] = Value::Null;
        plan.write(merge(held, patch));
    }
}

/// The APIService of a group and version; none if nothing is served there.
fn wanted(snapshot: &Snapshot, group: &str, version: &str) -> Option<Value> {
    let known = BUILT_IN.iter().find(|(own, name, ..)| (*own, *name) == (group, version));
    let (managed, (group_priority, version_priority)) = match known {
        Some((_, _, group, version)) => ("onstart", (*group, *version)),
        None => {
            let mut definitions = snapshot.list(CUSTOM_RESOURCE_DEFINITIONS, "");
            definitions
                .any(|definition| serves(definition, group, version))
                .then_some(("true", OF_DEFINITIONS))?
        }
    };
    Some(json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: managed}},
        "spec": {
            "group": group, "version": version,
            "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
        },
    }))
}

fn serves(definition: &Object, group: &str, version: &str) -> bool {
    // A definition is named <plural>.<group>: most need not be read.
    if definition.key.name.split_once('.').is_none_or(|(_, own)| own != group) {
        return false;
    }
    let Ok(View { spec, status }) = definition.decode::<View>() else { return false };
    let is_established =
        condition(&status.conditions, "Established").is_some_and(|held| held.status == "True");
    is_established && spec.versions.iter().any(|one| one.served && one.name == version)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_group_that_is_compiled_in_has_its_priorities() {
        let served: BTreeSet<_> = kinds::all()
            .iter()
            .map(|kind| (kind.group, kind.version))
            .filter(|(group, _)| *group != "apiregistration.k8s.io")
            .collect();
        let listed: BTreeSet<_> = BUILT_IN.iter().map(|(group, version, ..)| (*group, *version)).collect();
        assert_eq!(served, listed);
    }
}
