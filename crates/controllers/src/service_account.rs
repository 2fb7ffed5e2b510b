//! Gives every namespace its ServiceAccount `default`.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#serviceaccount-controller>

use kinds::{NAMESPACES, SERVICE_ACCOUNTS};
use object::{Event, Key, Snapshot, Time};
use plan::{Plan, Write};
use serde_json::json;

use crate::namespace::is_active;
use crate::ownership::own_key;
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "serviceaccount-controller",
    user: "service-account-controller",
    watches: &[
        Watch { resource: NAMESPACES, keys: own_key },
        Watch { resource: SERVICE_ACCOUNTS, keys: of_account },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

const NAME: &str = "default";

fn of_account(_: &Snapshot, event: &Event) -> Vec<Key> {
    let key = event.key();
    if *key.name == *NAME { vec![Key::cluster(NAMESPACES, key.namespace.clone())] } else { Vec::new() }
}

fn reconcile(snapshot: &Snapshot, key: &Key, _: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let wanted = snapshot.get(key).is_some_and(|namespace| is_active(namespace));
    if wanted && snapshot.find(SERVICE_ACCOUNTS, &key.name, NAME).is_none() {
        let object = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": &*key.name, "name": NAME},
        });
        plan.write(Write::Create { resource: SERVICE_ACCOUNTS, object });
    }
    plan
}
