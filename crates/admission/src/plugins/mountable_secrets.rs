//! A pod of a service account with the annotation `kubernetes.io/enforce-mountable-secrets` names no Secrets but the account's.
//! <https://kubernetes.io/docs/concepts/security/service-accounts/#enforce-mountable-secrets>

use schema::path;
use serde_json::Value;

/// What is wrong with a pod, in upstream's words. `account` is the service account's object.
pub fn check(account: &Value, pod: &Value) -> Result<(), String> {
    let allowed = Allowed { account };
    if !allowed.are_limited() {
        return Ok(());
    }
    for volume in path::list(pod, "spec.volumes") {
        if let Some(secret) = path::get(volume, "secret.secretName").and_then(Value::as_str) {
            allowed.judge("secrets", secret, || format!("volume with secret.secretName=\"{secret}\""))?;
        }
    }
    allowed.containers(path::list(pod, "spec.initContainers"), "init container")?;
    allowed.containers(path::list(pod, "spec.containers"), "container")?;
    for (index, secret) in path::list(pod, "spec.imagePullSecrets").iter().enumerate() {
        let name = path::text(secret, "name");
        allowed.judge("imagePullSecrets", name, || format!("imagePullSecrets[{index}].name=\"{name}\""))?;
    }
    Ok(())
}

/// The same of the containers that join a pod.
pub fn check_ephemeral(account: &Value, pod: &Value) -> Result<(), String> {
    let allowed = Allowed { account };
    if !allowed.are_limited() {
        return Ok(());
    }
    allowed.containers(path::list(pod, "spec.ephemeralContainers"), "ephemeral container")
}

struct Allowed<'a> {
    account: &'a Value,
}

impl Allowed<'_> {
    fn are_limited(&self) -> bool {
        let told = &self.account["metadata"]["annotations"]["kubernetes.io/enforce-mountable-secrets"];
        matches!(told.as_str(), Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }

    fn containers(&self, containers: &[Value], what: &str) -> Result<(), String> {
        for container in containers {
            let named = format!("{what} {}", path::text(container, "name"));
            for variable in path::list(container, "env") {
                let from = path::get(variable, "valueFrom.secretKeyRef.name").and_then(Value::as_str);
                if let Some(secret) = from {
                    let name = path::text(variable, "name");
                    self.judge("secrets", secret, || {
                        format!("{named} with envVar {name} referencing secret.secretName=\"{secret}\"")
                    })?;
                }
            }
            for source in path::list(container, "envFrom") {
                if let Some(secret) = path::get(source, "secretRef.name").and_then(Value::as_str) {
                    self.judge("secrets", secret, || {
                        format!("{named} with envFrom referencing secret.secretName=\"{secret}\"")
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Is the Secret in this list of the account?
    fn judge(&self, list: &str, secret: &str, what: impl FnOnce() -> String) -> Result<(), String> {
        if path::list(self.account, list).iter().any(|held| held["name"] == secret) {
            return Ok(());
        }
        let (account, kind) = (path::text(self.account, "metadata.name"), list.trim_end_matches('s'));
        Err(format!(
            "{} is not allowed because service account {account} does not reference that {kind}",
            what()
        ))
    }
}
