//! The Service `kubernetes` of the namespace `default`, where pods find the API servers, and the ServiceCIDR of the same name, which says
//! where the addresses of services come from.
//!
//! <https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/>

use kinds::{ENDPOINT_SLICES, ENDPOINTS, NAMESPACES, SERVICE_CIDRS, SERVICES};
use object::{Event, Key, Snapshot, Time};
use plan::{Expect, Plan, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::endpoint_slice::SERVICE_NAME;
use crate::views::{Condition, condition};
use crate::writes::merge;
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "kubernetes-service-controller",
    user: "kubernetes-service-controller",
    watches: &[
        Watch { resource: ENDPOINTS, keys: the_one },
        Watch { resource: ENDPOINT_SLICES, keys: the_one },
        Watch { resource: NAMESPACES, keys: the_one },
        Watch { resource: SERVICE_CIDRS, keys: the_one },
        Watch { resource: SERVICES, keys: the_one },
    ],
    reconcile,
    refused: None,
    resync_secs: Some(300),
};

const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";

fn the_one(_: &Snapshot, event: &Event) -> Vec<Key> {
    let key = event.key();
    let concerns = match key.resource {
        NAMESPACES => *key.name == *NAMESPACE,
        SERVICE_CIDRS => *key.name == *NAME,
        _ => *key.namespace == *NAMESPACE && *key.name == *NAME,
    };
    if concerns { vec![Key::new(SERVICES, NAMESPACE, NAME)] } else { Vec::new() }
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, settings: &Settings) -> Plan {
    let mut plan = Plan::default();
    publish_range(snapshot, settings, now, &mut plan);
    if snapshot.find(NAMESPACES, "", NAMESPACE).is_none_or(|found| found.meta.is_deleting()) {
        return plan;
    }
    let metadata = |labels: Value| json!({"namespace": NAMESPACE, "name": NAME, "labels": labels});
    let https = json!({"name": "https", "protocol": "TCP", "port": settings.api_server_port});
    if snapshot.get(key).is_none() {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": metadata(json!({"component": "apiserver", "provider": "kubernetes"})),
            "spec": {
                "type": "ClusterIP", "clusterIP": settings.kubernetes_service_ip, "sessionAffinity": "None",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": settings.api_server_port}],
            },
        });
        plan.write(Write::Create { resource: SERVICES, object });
    }
    if settings.api_server_addresses.is_empty() {
        return plan;
    }
    let addresses: Vec<Value> = settings.api_server_addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let subsets = json!([{"addresses": addresses, "ports": [https]}]);
    match snapshot.find(ENDPOINTS, NAMESPACE, NAME) {
        None => plan.write(Write::Create {
            resource: ENDPOINTS,
            object: json!({
                "apiVersion": "v1", "kind": "Endpoints",
                "metadata": metadata(json!({"endpointslice.kubernetes.io/skip-mirror": "true"})),
                "subsets": subsets,
            }),
        }),
        Some(held) if member(held, "subsets") == subsets => {}
        Some(held) => plan.write(merge(held, json!({"subsets": subsets}))),
    }
    publish_slice(snapshot, settings, &https, metadata(json!({SERVICE_NAME: NAME})), &mut plan);
    plan
}

/// The range as an object; that it is ready is said once, as upstream's `defaultservicecidr` does.
fn publish_range(snapshot: &Snapshot, settings: &Settings, now: Time, plan: &mut Plan) {
    #[derive(Deserialize)]
    struct View {
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    #[derive(Deserialize)]
    struct Spec {
        cidrs: Vec<String>,
    }
    #[derive(Default, Deserialize)]
    struct Status {
        #[serde(default)]
        conditions: Vec<Condition>,
    }
    let Some(held) = snapshot.find(SERVICE_CIDRS, "", NAME) else {
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": NAME},
            "spec": {"cidrs": [settings.service_cidr]},
        });
        return plan.write(Write::Create { resource: SERVICE_CIDRS, object });
    };
    let Ok(View { spec, status }) = held.decode() else { return };
    let is_ours = spec.cidrs == [&*settings.service_cidr];
    if held.meta.is_deleting() || !is_ours || condition(&status.conditions, "Ready").is_some() {
        return;
    }
    let ready = Condition::new("Ready", "True", "", "Kubernetes default Service CIDR is ready", now);
    plan.write(Write::Merge {
        key: held.key.clone(),
        expect: Expect::unchanged(held),
        subresource: "status",
        patch: json!({"status": {"conditions": [crate::service_cidr::written(&ready)]}}),
    });
}

fn publish_slice(snapshot: &Snapshot, settings: &Settings, https: &Value, metadata: Value, plan: &mut Plan) {
    let addresses = settings.api_server_addresses.iter();
    let endpoints: Value =
        addresses.map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    let ports = json!([https]);
    match snapshot.find(ENDPOINT_SLICES, NAMESPACE, NAME) {
        None => plan.write(Write::Create {
            resource: ENDPOINT_SLICES,
            object: json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
                "addressType": if settings.kubernetes_service_ip.is_ipv4() { "IPv4" } else { "IPv6" },
                "endpoints": endpoints, "ports": ports,
            }),
        }),
        Some(held) if member(held, "endpoints") == endpoints && member(held, "ports") == ports => {}
        Some(held) => plan.write(merge(held, json!({"endpoints": endpoints, "ports": ports}))),
    }
}

fn member(object: &object::Object, name: &str) -> Value {
    #[derive(Deserialize)]
    struct View {
        #[serde(default)]
        subsets: Value,
        #[serde(default)]
        endpoints: Value,
        #[serde(default)]
        ports: Value,
    }
    let Ok(view) = object.decode::<View>() else { return Value::Null };
    match name {
        "subsets" => view.subsets,
        "endpoints" => view.endpoints,
        _ => view.ports,
    }
}
