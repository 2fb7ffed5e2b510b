//! Puts the authority of the API server's certificate into every namespace, where pods find it beside their token.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-token-volume>

use kinds::{CONFIG_MAPS, NAMESPACES};
use object::{Event, Key, Snapshot, Time};
use plan::{Plan, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::namespace::is_active;
use crate::ownership::own_key;
use crate::writes::merge;
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "root-ca-certificate-publisher-controller",
    user: "root-ca-cert-publisher",
    watches: &[
        Watch { resource: CONFIG_MAPS, keys: of_config_map },
        Watch { resource: NAMESPACES, keys: own_key },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

fn of_config_map(_: &Snapshot, event: &Event) -> Vec<Key> {
    let key = event.key();
    if *key.name == *NAME { vec![Key::cluster(NAMESPACES, key.namespace.clone())] } else { Vec::new() }
}

fn reconcile(snapshot: &Snapshot, key: &Key, _: Time, settings: &Settings) -> Plan {
    #[derive(Deserialize)]
    struct View {
        #[serde(default)]
        data: Value,
    }
    let mut plan = Plan::default();
    let wanted = snapshot.get(key).is_some_and(|namespace| is_active(namespace));
    if !wanted || settings.ca_pem.is_empty() {
        return plan;
    }
    let annotations = json!({"kubernetes.io/description": DESCRIPTION});
    let data = json!({"ca.crt": settings.ca_pem});
    match snapshot.find(CONFIG_MAPS, &key.name, NAME) {
        None => plan.write(Write::Create {
            resource: CONFIG_MAPS,
            object: json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"namespace": &*key.name, "name": NAME, "annotations": annotations},
                "data": data,
            }),
        }),
        Some(held) if held.decode::<View>().is_ok_and(|view| view.data == data) => {}
        Some(held) => {
            let old = held.decode::<View>().map(|view| view.data).unwrap_or_default();
            plan.write(merge(held, json!({"data": crate::writes::difference(&old, data)})));
        }
    }
    plan
}
