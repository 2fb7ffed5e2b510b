//! The claims of an ordinal: made from the templates, kept when the pod goes, unless the retention policy says otherwise.

use kinds::PERSISTENT_VOLUME_CLAIMS;
use object::Key;
use plan::Write;
use serde_json::{Value, json};

use super::{KIND, Run};
use crate::views::Pod;
use crate::writes::merge;

impl Run<'_> {
    /// (template's name, claim's name) for every template.
    fn claim_names(&self, ordinal: i64) -> Vec<(String, String)> {
        let templates = self.spec.volume_claim_templates.iter();
        templates
            .filter_map(|template| template.pointer("/metadata/name").and_then(Value::as_str))
            .map(|name| (name.to_owned(), format!("{name}-{}-{ordinal}", self.set.key.name)))
            .collect()
    }

    /// The volumes of a pod that its claims are.
    pub fn claim_volumes(&self, ordinal: i64) -> Vec<Value> {
        let volume = |(name, claim): (String, String)| json!({"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": false}});
        self.claim_names(ordinal).into_iter().map(volume).collect()
    }

    pub fn create_claims(&mut self, ordinal: i64) {
        let pod = self.pod_name(ordinal);
        for (index, (_, name)) in self.claim_names(ordinal).into_iter().enumerate() {
            let key = Key::new(PERSISTENT_VOLUME_CLAIMS, self.set.key.namespace.clone(), name.as_str());
            if self.snapshot.get(&key).is_some() {
                continue;
            }
            let object = self.claim(index, &name);
            self.plan.write(Write::Create { resource: PERSISTENT_VOLUME_CLAIMS, object });
            let message =
                format!("create Claim {name} Pod {pod} in StatefulSet {} success", self.set.key.name);
            self.event(false, "SuccessfulCreate", message);
        }
    }

    fn claim(&self, index: usize, name: &str) -> Value {
        let template = &self.spec.volume_claim_templates[index];
        let mut labels = template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
        for (label, value) in &self.spec.selector.match_labels {
            labels[label] = value.as_str().into();
        }
        let mut metadata = json!({"namespace": &*self.set.key.namespace, "name": name, "labels": labels});
        if let Some(annotations) = template.pointer("/metadata/annotations") {
            metadata["annotations"] = annotations.clone();
        }
        if self.spec.persistent_volume_claim_retention_policy.when_deleted == "Delete" {
            metadata["ownerReferences"] = json!([KIND.controller_ref(self.set)]);
        }
        let spec = template.get("spec").cloned().unwrap_or_default();
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    }

    /// Lets claims go with their set or with a pod that is scaled away, as the policy asks: by owner references, so that the garbage
    /// collector does it.
    pub fn keep_claim_owners(&mut self, ordinal: i64, pod: &Pod, condemned: bool) {
        let policy = &self.spec.persistent_volume_claim_retention_policy;
        let with_pod = condemned && policy.when_scaled == "Delete";
        let with_set = policy.when_deleted == "Delete" && !with_pod;
        for (_, name) in self.claim_names(ordinal) {
            let Some(claim) = self.snapshot.find(PERSISTENT_VOLUME_CLAIMS, &self.set.key.namespace, &name)
            else {
                continue;
            };
            let ours = [&self.set.meta.uid, &pod.object.meta.uid];
            let held = &claim.meta.owner_references;
            let mut owners: Vec<Value> =
                held.iter().filter(|owner| !ours.contains(&&owner.uid)).map(|owner| json!(owner)).collect();
            if with_pod {
                owners.push(json!({
                    "apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.object.meta.uid,
                }));
            } else if with_set {
                owners.push(KIND.controller_ref(self.set));
            }
            if json!(held) != Value::from(owners.clone()) {
                let owners = if owners.is_empty() { Value::Null } else { owners.into() };
                self.plan.write(merge(claim, json!({"metadata": {"ownerReferences": owners}})));
            }
        }
    }
}
