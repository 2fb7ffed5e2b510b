//! Claims of a pod: which there are, and what of the node is mounted for each.
//!
//! The API's server tells a node of a claim and its volume only one at a time and when asked, so they are read
//! (`PodOp::ReadClaims`) and not followed. Messages: `pkg/kubelet/volumemanager/populator`.

use std::path::PathBuf;

use plan::pod::{Claimed, VolumeSource};
use serde::Deserialize;

use crate::env::Facts;
use crate::pod::{HostPath, Pod, Volume};
use crate::volumes::host_path_kind;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Claim {
    metadata: Metadata,
    spec: ClaimSpec,
    status: Phase,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    uid: String,
    deletion_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimSpec {
    volume_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Phase {
    phase: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PersistentVolume {
    spec: VolumeSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VolumeSpec {
    claim_ref: Option<Reference>,
    volume_mode: String,
    host_path: Option<HostPath>,
    local: Option<Local>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reference {
    uid: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Local {
    path: String,
}

/// What a claim comes down to on this node.
pub struct Bound {
    pub path: PathBuf,
    pub source: VolumeSource,
}

/// The name of the claim that a volume stands for. A generic ephemeral volume's is made of the pod's and its own (KEP-1698).
pub fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    match &volume.persistent_volume_claim {
        Some(source) => Some(source.claim_name.clone()),
        None => volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.metadata.name, volume.name)),
    }
}

/// The claims of a pod, in the order of its volumes.
pub fn names(pod: &Pod) -> Vec<String> {
    pod.spec.volumes.iter().filter_map(|volume| claim_name(pod, volume)).collect()
}

/// What is mounted for a claim of this name, or why nothing can be.
pub fn bound(facts: &Facts, volume: &Volume, name: &str) -> Result<Bound, String> {
    let full_name = format!("{}/{name}", facts.pod.metadata.namespace);
    let not_yet = |why: String| {
        format!(
            "Unable to attach or mount volumes: unmounted volumes=[{0}], unattached volumes=[], failed to process volumes=[{0}]: error processing PVC {full_name}: {why}",
            volume.name
        )
    };
    let missing = || Claimed::default();
    let claimed = facts.claims.get(name).cloned().unwrap_or_else(missing);
    let volume_name = bound_volume(facts.pod, name, &claimed).map_err(not_yet)?;
    let spec = claimed.volume.and_then(|volume| serde_json::from_value::<PersistentVolume>(volume).ok());
    let spec = spec.unwrap_or_default().spec;
    on_this_node(&volume_name, spec)
        .map_err(|why| format!("MountVolume.SetUp failed for volume \"{volume_name}\" : {why}"))
}

fn bound_volume(pod: &Pod, name: &str, claimed: &Claimed) -> Result<String, String> {
    let unreadable = |why: &str| format!("failed to fetch PVC from API server: {why}");
    if let Some(error) = &claimed.error {
        return Err(unreadable(error));
    }
    let Some(claim) = &claimed.claim else {
        return Err(unreadable(&format!("persistentvolumeclaims \"{name}\" not found")));
    };
    let claim: Claim =
        serde_json::from_value(claim.clone()).map_err(|error| unreadable(&error.to_string()))?;
    // A pod that runs already keeps what it has.
    if claim.metadata.deletion_timestamp.is_some() && pod.status.phase != "Running" {
        return Err("PVC is being deleted".into());
    }
    let volume_name = claim.spec.volume_name;
    if claim.status.phase != "Bound" || volume_name.is_empty() {
        return Err("PVC is not bound".into());
    }
    let Some(volume) = &claimed.volume else {
        return Err(format!(
            "failed to fetch PV {volume_name} from API server: persistentvolumes \"{volume_name}\" not found"
        ));
    };
    let volume: PersistentVolume =
        serde_json::from_value(volume.clone()).map_err(|error| error.to_string())?;
    match volume.spec.claim_ref {
        Some(holder) if holder.uid == claim.metadata.uid => Ok(volume_name),
        Some(holder) => Err(format!(
            "PV {volume_name} from API server: pv.Spec.ClaimRef.UID {:?} does not match PVC.UID {:?}",
            holder.uid, claim.metadata.uid
        )),
        None => Err(format!("PV {volume_name} from API server: pv.Spec.ClaimRef is nil")),
    }
}

fn on_this_node(name: &str, spec: VolumeSpec) -> Result<Bound, String> {
    if spec.volume_mode == "Block" {
        return Err("this node mounts filesystems only, and the volume's mode is Block".into());
    }
    if let Some(host) = spec.host_path {
        let kind = host_path_kind(host.r#type.as_deref().unwrap_or_default())?;
        let path = PathBuf::from(host.path);
        return Ok(Bound { path: path.clone(), source: VolumeSource::HostPath { path, kind } });
    }
    if let Some(Local { path }) = spec.local {
        let path = PathBuf::from(path);
        return Ok(Bound {
            path: path.clone(),
            source: VolumeSource::Local { volume: name.to_owned(), path },
        });
    }
    Err("no volume plugin matched: this node mounts persistent volumes of hostPath and local".into())
}
