//! Deletes finished Jobs when their time is over.
//!
//! <https://kubernetes.io/docs/concepts/workloads/controllers/ttlafterfinished/>

use kinds::JOBS;
use object::{Key, Snapshot, Time};
use plan::{Expect, Plan, Propagation, Write};
use serde::Deserialize;

use crate::ownership::own_key;
use crate::views::Condition;
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "ttl-after-finished-controller",
    user: "ttl-after-finished-controller",
    watches: &[Watch { resource: JOBS, keys: own_key }],
    reconcile,
    refused: None,
    resync_secs: None,
};

#[derive(Deserialize)]
struct View {
    spec: Spec,
    #[serde(default)]
    status: JobStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    ttl_seconds_after_finished: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JobStatus {
    conditions: Vec<Condition>,
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(job) = snapshot.get(key).filter(|job| !job.meta.is_deleting()) else { return plan };
    let Ok(View { spec, status }) = job.decode() else { return plan };
    let Some(ttl) = spec.ttl_seconds_after_finished else { return plan };
    let is_end =
        |held: &&Condition| matches!(held.kind.as_str(), "Complete" | "Failed") && held.status == "True";
    let Some(finished) = status.conditions.iter().find(is_end).and_then(|end| end.last_transition_time)
    else {
        return plan;
    };
    let over = finished.plus_secs(ttl);
    if over > now {
        plan.wake(over);
        return plan;
    }
    plan.write(Write::Delete {
        key: key.clone(),
        expect: Expect::unchanged(job),
        grace_seconds: None,
        propagation: Some(Propagation::Foreground),
    });
    plan
}
