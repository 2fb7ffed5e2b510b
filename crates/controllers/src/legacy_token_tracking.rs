//! Says since when the uses of tokens in Secrets are noted: who cleans them up must know how far back the notes go.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#legacy-serviceaccount-token-tracking-controller>

use kinds::{CONFIG_MAPS, NAMESPACES};
use object::{Event, Key, Snapshot, Time};
use plan::{Plan, Write};
use serde::Deserialize;
use serde_json::json;

use crate::writes::merge;
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "legacy-token-tracking-controller",
    user: "system:apiserver",
    watches: &[
        Watch { resource: CONFIG_MAPS, keys: of_config_map },
        Watch { resource: NAMESPACES, keys: of_namespace },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-apiserver-legacy-service-account-token-tracking";

#[derive(Default, Deserialize)]
#[serde(default)]
struct View {
    data: Option<Data>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Data {
    since: String,
}

fn key() -> Key {
    Key::new(CONFIG_MAPS, NAMESPACE, NAME)
}

fn of_config_map(_: &Snapshot, event: &Event) -> Vec<Key> {
    let is_its = *event.key().namespace == *NAMESPACE && *event.key().name == *NAME;
    is_its.then(key).into_iter().collect()
}

fn of_namespace(_: &Snapshot, event: &Event) -> Vec<Key> {
    (*event.key().name == *NAMESPACE).then(key).into_iter().collect()
}

/// The first day; none before it is told.
pub(crate) fn since(snapshot: &Snapshot) -> Option<Time> {
    let view: View = snapshot.get(&key())?.decode().ok()?;
    Time::of_day(&view.data?.since)
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    if since(snapshot).is_some() {
        return plan;
    }
    let data = json!({"since": now.day()});
    plan.write(match snapshot.get(key) {
        Some(held) => merge(held, json!({"data": data})),
        None => Write::Create {
            resource: CONFIG_MAPS,
            object: json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"namespace": NAMESPACE, "name": NAME}, "data": data}),
        },
    });
    plan
}
