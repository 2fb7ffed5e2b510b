//! Tells the SDKs in a pod of EKS whose keys they get, and where: by a role on its service account (IRSA), or by an association
//! (Pod Identity), which wins. What is set already stays.
//!
//! The rules are those of amazon-eks-pod-identity-webhook, except that [`PodIdentity::environment`] comes on top: it points an SDK at the
//! endpoint of this site.
//! <https://docs.aws.amazon.com/eks/latest/userguide/pod-configuration.html>,
//! <https://docs.aws.amazon.com/eks/latest/userguide/pod-id-configure-pods.html>

use std::collections::{BTreeMap, BTreeSet};

use object::{Snapshot, Status};
use schema::path;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Operation, Plugin, Request, pod};

pub const PLUGIN: Plugin = Plugin { name: "PodIdentity", mutate: Some(mutate), validate: None };

/// What is true of a cluster of EKS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodIdentity {
    /// `us-east-1`
    pub region: String,
    /// Variables that lead an SDK to the endpoint, from inside of a pod: `AWS_ENDPOINT_URL`.
    pub environment: Vec<(String, String)>,
    /// Namespace and name of the service accounts with an association.
    pub associations: BTreeSet<(String, String)>,
}

const SKIP: &str = "eks.amazonaws.com/skip-pod-identity-webhook";
const SKIP_CONTAINERS: &str = "eks.amazonaws.com/skip-containers";
const ROLE: &str = "eks.amazonaws.com/role-arn";
const AUDIENCE: &str = "eks.amazonaws.com/audience";
const REGIONAL: &str = "eks.amazonaws.com/sts-regional-endpoints";
const EXPIRATION: &str = "eks.amazonaws.com/token-expiration";

const DAY_SECONDS: i64 = 86_400;
const SHORTEST_SECONDS: i64 = 600;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Account {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    annotations: BTreeMap<String, String>,
}

/// One way to keys: the variables that an SDK looks at, and the token that it shows.
struct Way {
    variables: Vec<(&'static str, String)>,
    volume: &'static str,
    mount_path: &'static str,
    file: &'static str,
    audience: String,
    expiration_seconds: i64,
    regional: bool,
}

fn mutate(
    snapshot: &Snapshot,
    request: &Request,
    object: &mut Value,
    _: &mut Vec<String>,
) -> Result<(), Status> {
    let Some(eks) = request.pod_identity else { return Ok(()) };
    if !request.is(kinds::PODS, &[Operation::Create]) || pod::is_mirror(object) {
        return Ok(());
    }
    if object["metadata"]["labels"].get(SKIP).is_some() {
        return Ok(());
    }
    let account = object["spec"]["serviceAccountName"].as_str().unwrap_or_default().to_owned();
    let namespace = request.key.namespace.to_string();
    let held = snapshot.find(kinds::SERVICE_ACCOUNTS, &namespace, &account);
    let held: Account = held.and_then(|held| held.decode().ok()).unwrap_or_default();
    let annotations = held.metadata.annotations;
    let way = if eks.associations.contains(&(namespace, account)) {
        Way::by_association(expiration(object, &annotations))
    } else if let Some(role) = annotations.get(ROLE) {
        Way::by_role(role, &annotations, expiration(object, &annotations))
    } else {
        return Ok(());
    };
    way.apply(eks, object);
    Ok(())
}

/// What the pod says goes before what its account says; a number that is none is not heard.
fn expiration(pod: &Value, account: &BTreeMap<String, String>) -> i64 {
    let own = pod["metadata"]["annotations"][EXPIRATION].as_str();
    let read = |text: &str| text.parse::<i64>().ok();
    let seconds = own.and_then(read).or_else(|| read(account.get(EXPIRATION)?));
    seconds.unwrap_or(DAY_SECONDS).clamp(SHORTEST_SECONDS, DAY_SECONDS)
}

impl Way {
    fn by_association(expiration_seconds: i64) -> Self {
        let (mount_path, file) =
            ("/var/run/secrets/pods.eks.amazonaws.com/serviceaccount", "eks-pod-identity-token");
        let variables = vec![
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials".to_owned()),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", format!("{mount_path}/{file}")),
        ];
        let audience = "pods.eks.amazonaws.com".to_owned();
        let volume = "eks-pod-identity-token";
        Self { variables, volume, mount_path, file, audience, expiration_seconds, regional: true }
    }

    fn by_role(role: &str, account: &BTreeMap<String, String>, expiration_seconds: i64) -> Self {
        let (mount_path, file) = ("/var/run/secrets/eks.amazonaws.com/serviceaccount", "token");
        let variables = vec![
            ("AWS_ROLE_ARN", role.to_owned()),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", format!("{mount_path}/{file}")),
        ];
        let audience = account.get(AUDIENCE).map_or("sts.amazonaws.com", String::as_str).to_owned();
        let regional = account.get(REGIONAL).is_none_or(|text| text != "false");
        let volume = "aws-iam-token";
        Self { variables, volume, mount_path, file, audience, expiration_seconds, regional }
    }

    fn apply(&self, eks: &PodIdentity, object: &mut Value) {
        let skipped = object["metadata"]["annotations"][SKIP_CONTAINERS].as_str().unwrap_or_default();
        let skipped: Vec<String> = skipped.split(',').map(|name| name.trim().to_owned()).collect();
        let mut is_used = false;
        pod::each_container(object, |container, _| {
            let name = container["name"].as_str().unwrap_or_default();
            if !skipped.iter().any(|skipped| skipped == name) {
                is_used |= self.tell(eks, container);
            }
        });
        let has_volume =
            path::list(object, "spec.volumes").iter().any(|volume| volume["name"] == self.volume);
        if !is_used || has_volume {
            return;
        }
        let token = json!({
            "audience": self.audience, "expirationSeconds": self.expiration_seconds, "path": self.file,
        });
        let sources = json!([{"serviceAccountToken": token}]);
        push(object, &["spec", "volumes"], json!({"name": self.volume, "projected": {"sources": sources}}));
    }

    /// Whether the container is told anything, and needs the token.
    fn tell(&self, eks: &PodIdentity, container: &mut Value) -> bool {
        let given: BTreeSet<String> = path::list(container, "env")
            .iter()
            .filter_map(|variable| variable["name"].as_str().map(str::to_owned))
            .collect();
        let has = |name: &str| given.contains(name);
        let mut variables: Vec<(&str, &str)> = Vec::new();
        if self.regional && !has("AWS_STS_REGIONAL_ENDPOINTS") {
            variables.push(("AWS_STS_REGIONAL_ENDPOINTS", "regional"));
        }
        if !has("AWS_REGION") && !has("AWS_DEFAULT_REGION") {
            variables.extend([("AWS_DEFAULT_REGION", &*eks.region), ("AWS_REGION", &*eks.region)]);
        }
        let is_own = self.variables.iter().any(|(name, _)| has(name));
        if !is_own {
            variables.extend(self.variables.iter().map(|(name, value)| (*name, &**value)));
        }
        for (name, value) in eks.environment.iter().filter(|(name, _)| !has(name)) {
            variables.push((name, value));
        }
        if variables.is_empty() {
            return false;
        }
        for (name, value) in variables {
            push(container, &["env"], json!({"name": name, "value": value}));
        }
        let mounts = path::list(container, "volumeMounts");
        if !mounts.iter().any(|mount| mount["name"] == self.volume) {
            let mount = json!({"name": self.volume, "mountPath": self.mount_path, "readOnly": true});
            push(container, &["volumeMounts"], mount);
        }
        true
    }
}

/// Adds an item to a list that may not be there yet.
fn push(object: &mut Value, place: &[&str], item: Value) {
    let list = place.iter().fold(object, |value, name| &mut value[*name]);
    match list.as_array_mut() {
        Some(items) => items.push(item),
        None => *list = json!([item]),
    }
}
