//! The objects that the Node authorizer looks into, down to what it needs of them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct PodView {
    pub metadata: PodMeta,
    pub spec: PodSpec,
    pub status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct PodMeta {
    annotations: Option<BTreeMap<String, String>>,
}

impl PodView {
    /// A pod that stands for one that the kubelet runs from a file.
    pub fn is_mirror(&self) -> bool {
        self.metadata.annotations.as_ref().is_some_and(|all| all.contains_key("kubernetes.io/config.mirror"))
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub resource_claim_statuses: Vec<ResourceClaim>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceClaim {
    pub resource_claim_name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub service_account_name: String,
    image_pull_secrets: Vec<Named>,
    volumes: Vec<Volume>,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    ephemeral_containers: Vec<Container>,
    pub resource_claims: Vec<ResourceClaim>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    env: Vec<Env>,
    env_from: Vec<EnvFrom>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Env {
    value_from: Option<ValueFrom>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ValueFrom {
    config_map_key_ref: Option<Named>,
    secret_key_ref: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct EnvFrom {
    config_map_ref: Option<Named>,
    secret_ref: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Volume {
    name: String,
    config_map: Option<Named>,
    secret: Option<SecretVolume>,
    projected: Option<Projected>,
    persistent_volume_claim: Option<ClaimVolume>,
    ephemeral: Option<Value>,
    csi: Option<InlineDriver>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SecretVolume {
    secret_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Projected {
    sources: Vec<Source>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Source {
    config_map: Option<Named>,
    secret: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimVolume {
    claim_name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct InlineDriver {
    node_publish_secret_ref: Option<Named>,
}

impl PodSpec {
    fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().chain(&self.init_containers).chain(&self.ephemeral_containers)
    }

    pub fn config_maps(&self) -> impl Iterator<Item = &str> {
        let volumes = self.volumes.iter().filter_map(|volume| volume.config_map.as_ref());
        let sources = self.volumes.iter().filter_map(|volume| volume.projected.as_ref());
        let sources =
            sources.flat_map(|held| held.sources.iter().filter_map(|source| source.config_map.as_ref()));
        let env = self.all_containers().flat_map(|container| {
            let keys =
                container.env.iter().filter_map(|env| env.value_from.as_ref()?.config_map_key_ref.as_ref());
            keys.chain(container.env_from.iter().filter_map(|from| from.config_map_ref.as_ref()))
        });
        volumes.chain(sources).chain(env).map(|named| named.name.as_str())
    }

    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let volumes = self.volumes.iter().filter_map(|volume| volume.secret.as_ref());
        let volumes = volumes.map(|secret| secret.secret_name.as_str());
        let inline =
            self.volumes.iter().filter_map(|volume| volume.csi.as_ref()?.node_publish_secret_ref.as_ref());
        let sources = self.volumes.iter().filter_map(|volume| volume.projected.as_ref());
        let sources =
            sources.flat_map(|held| held.sources.iter().filter_map(|source| source.secret.as_ref()));
        let env = self.all_containers().flat_map(|container| {
            let keys =
                container.env.iter().filter_map(|env| env.value_from.as_ref()?.secret_key_ref.as_ref());
            keys.chain(container.env_from.iter().filter_map(|from| from.secret_ref.as_ref()))
        });
        let named = self.image_pull_secrets.iter().chain(inline).chain(sources).chain(env);
        volumes.chain(named.map(|named| named.name.as_str()))
    }

    /// The claims that the pod mounts: by name, and `<pod>-<volume>` for ephemeral ones.
    pub fn claims(&self, pod: &str) -> impl Iterator<Item = String> {
        self.volumes.iter().filter_map(move |volume| {
            match (&volume.persistent_volume_claim, &volume.ephemeral) {
                (Some(claim), _) => Some(claim.claim_name.clone()),
                (None, Some(_)) => Some(format!("{pod}-{}", volume.name)),
                (None, None) => None,
            }
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct AtNode {
    pub spec: AtNodeSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AtNodeSpec {
    pub node_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct ClaimObject {
    pub spec: ClaimSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSpec {
    pub volume_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct VolumeObject {
    pub spec: VolumeSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSpec {
    pub claim_ref: Option<Reference>,
    pub csi: Option<Driver>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Reference {
    pub namespace: String,
    pub name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Driver {
    node_publish_secret_ref: Option<Reference>,
    node_stage_secret_ref: Option<Reference>,
    node_expand_secret_ref: Option<Reference>,
}

impl Driver {
    pub fn has_secret(&self, namespace: &str, name: &str) -> bool {
        [&self.node_publish_secret_ref, &self.node_stage_secret_ref, &self.node_expand_secret_ref]
            .into_iter()
            .flatten()
            .any(|held| held.namespace == namespace && held.name == name)
    }
}
