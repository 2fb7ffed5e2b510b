//! Says of each ValidatingAdmissionPolicy what its expressions ask of objects that their types do not have: `status.typeChecking`.

use kinds::VALIDATING_ADMISSION_POLICIES;
use object::{Event, Key, Snapshot, Time};
use plan::Plan;
use schema::path;
use serde_json::json;

use crate::writes::write_status;
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "validatingadmissionpolicy-status-controller",
    user: "validatingadmissionpolicy-status-controller",
    watches: &[Watch { resource: VALIDATING_ADMISSION_POLICIES, keys: itself }],
    reconcile,
    refused: None,
    resync_secs: None,
};

fn itself(_: &Snapshot, event: &Event) -> Vec<Key> {
    vec![event.key().clone()]
}

fn reconcile(snapshot: &Snapshot, key: &Key, _: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(policy) = snapshot.get(key) else { return plan };
    let Ok(value) = policy.to_value() else { return plan };
    let generation = policy.meta.generation;
    // As upstream: each state of a policy is looked at once.
    if path::int(&value, "status.observedGeneration").is_some_and(|seen| seen >= generation) {
        return plan;
    }
    let warnings = kinds::type_checking::warnings(snapshot, &value);
    let mut new =
        value.get("status").filter(|status| status.is_object()).cloned().unwrap_or_else(|| json!({}));
    new["observedGeneration"] = generation.into();
    new["typeChecking"] =
        if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) };
    let old = value.get("status").cloned().unwrap_or_default();
    write_status(&mut plan, policy, &old, new);
    plan
}
