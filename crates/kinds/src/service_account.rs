use object::Resource;
use schema::{Kind, Strategy, Subresource};
use serde_json::{Value, json};

use crate::column::{AGE, NAME};
use crate::{row, strategy};

pub const SERVICE_ACCOUNTS: Resource = Resource::new("serviceaccounts");

pub static KIND: Kind = Kind {
    resource: SERVICE_ACCOUNTS,
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    singular: "serviceaccount",
    short_names: &["sa"],
    namespaced: true,
    subresources: &[Subresource {
        name: "token",
        gvk: Some(("authentication.k8s.io", "v1", "TokenRequest")),
        verbs: &["create"],
    }],
    type_name: "core.v1.ServiceAccount",
    columns: &[NAME, AGE],
    strategy: Strategy { prepare, ..strategy::PLAIN },
    warn: |new, _| {
        let key = "kubernetes.io/enforce-mountable-secrets";
        let is_set = new["metadata"]["annotations"][key] == "true";
        let told = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
        is_set.then(|| format!("metadata.annotations[{key}]: {told}")).into_iter().collect()
    },
    ..row::BASE
};

/// Of the secrets that it may use only the names are kept.
fn prepare(account: &mut Value, _old: Option<&Value>) {
    if let Some(Value::Array(secrets)) = account.get_mut("secrets") {
        for secret in secrets {
            *secret = json!({"name": secret["name"]});
        }
    }
}
