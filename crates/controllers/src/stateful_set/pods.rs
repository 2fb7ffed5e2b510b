//! The pod of an ordinal: its name, its labels, its place in DNS, its volumes.

use kinds::PODS;
use plan::Write;
use serde_json::{Value, json};

use super::{KIND, REVISION, Run};
use crate::revisions::Revision;
use crate::views::Pod;
use crate::writes::{merge, pod_of};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

impl Run<'_> {
    pub fn create_pod(&mut self, ordinal: i64) {
        let revision = self.revision_for(ordinal);
        let name = self.pod_name(ordinal);
        self.create_claims(ordinal);
        let object = self.pod(ordinal, &revision);
        self.plan.write(Write::Create { resource: PODS, object });
        let message = format!("create Pod {name} in StatefulSet {} successful", self.set.key.name);
        self.event(false, "SuccessfulCreate", message);
    }

    pub fn pod_name(&self, ordinal: i64) -> String {
        format!("{}-{ordinal}", self.set.key.name)
    }

    /// Pods that the update has not reached come back as they were.
    fn revision_for(&self, ordinal: i64) -> Revision {
        let offset = ordinal - self.spec.ordinals.start;
        let stays = match &self.spec.update_strategy.rolling_update {
            Some(rolling) => offset < rolling.partition,
            None => self.is_rolling() && offset < self.status.current_replicas,
        };
        if stays { self.current.clone() } else { self.update.clone() }
    }

    fn pod(&self, ordinal: i64, revision: &Revision) -> Value {
        let name = self.pod_name(ordinal);
        let set = &self.set.key;
        let mut pod = pod_of(&revision.template, &set.namespace, &name, KIND.controller_ref(self.set));
        pod["metadata"]["generateName"] = format!("{}-", set.name).into();
        let labels = &mut pod["metadata"]["labels"];
        labels[POD_NAME] = name.as_str().into();
        labels[POD_INDEX] = ordinal.to_string().into();
        labels[REVISION] = revision.name.as_str().into();
        let spec = &mut pod["spec"];
        spec["hostname"] = name.into();
        if !self.spec.service_name.is_empty() {
            spec["subdomain"] = self.spec.service_name.as_str().into();
        }
        let claims = self.claim_volumes(ordinal);
        if !claims.is_empty() {
            let held = spec["volumes"].as_array().cloned().unwrap_or_default();
            let is_claimed = |volume: &Value| claims.iter().any(|claim| claim["name"] == volume["name"]);
            let others = held.into_iter().filter(|volume| !is_claimed(volume));
            spec["volumes"] = claims.iter().cloned().chain(others).collect();
        }
        pod
    }

    /// Puts back the labels that make the pod who it is.
    pub fn keep_identity(&mut self, ordinal: i64, pod: &Pod) {
        let meta = &pod.object.meta;
        if meta.label(POD_NAME) == Some(pod.name()) && meta.label(POD_INDEX) == Some(&ordinal.to_string()) {
            return;
        }
        let labels = json!({POD_NAME: pod.name(), POD_INDEX: ordinal.to_string()});
        self.plan.write(merge(&pod.object, json!({"metadata": {"labels": labels}})));
        let message = format!("update Pod {} in StatefulSet {} successful", pod.name(), self.set.key.name);
        self.event(false, "SuccessfulUpdate", message);
    }
}
