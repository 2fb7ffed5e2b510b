//! Priority and fairness: says of each FlowSchema whether its priority level is there, and brings back what every cluster has: the two mandatory schemas and
//! levels always, the suggested ones as long as nobody took them over.
//!
//! <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#maintenance-of-the-mandatory-and-suggested-configuration-objects>

use access::bootstrap;
use kinds::{FLOW_SCHEMAS, PRIORITY_LEVEL_CONFIGURATIONS};
use object::{Event, Key, Object, Snapshot, Time};
use plan::{Expect, Plan, Write};
use schema::path;
use serde_json::{Value, json};

use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "flow-control-controller",
    user: "flow-control-controller",
    watches: &[
        Watch { resource: FLOW_SCHEMAS, keys: itself },
        Watch { resource: PRIORITY_LEVEL_CONFIGURATIONS, keys: with_schemas },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

fn itself(_: &Snapshot, event: &Event) -> Vec<Key> {
    vec![event.key().clone()]
}

/// A level concerns the schemas that name it; which those are, each finds out itself.
fn with_schemas(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let schemas = snapshot.list(FLOW_SCHEMAS, "").map(|schema| schema.key.clone());
    std::iter::once(event.key().clone()).chain(schemas).collect()
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let mended = bootstrap::bring_back_flow_control(snapshot, key);
    if !mended.is_empty() {
        mended.into_iter().for_each(|write| plan.write(write));
        return plan;
    }
    if let Some(schema) = snapshot.get(key).filter(|_| key.resource == FLOW_SCHEMAS) {
        condition(&mut plan, snapshot, schema, now);
    }
    plan
}

fn condition(plan: &mut Plan, snapshot: &Snapshot, schema: &Object, now: Time) {
    let Ok(value) = schema.to_value() else { return };
    let level = path::text(&value, "spec.priorityLevelConfiguration.name");
    let is_there = snapshot.find(PRIORITY_LEVEL_CONFIGURATIONS, "", level).is_some();
    let about = format!("This FlowSchema references the PriorityLevelConfiguration object named \"{level}\"");
    let (status, reason, message) = if is_there {
        ("False", "Found", format!("{about} and it exists"))
    } else {
        ("True", "NotFound", format!("{about} but there is no such object"))
    };
    let held = path::list(&value, "status.conditions");
    let known = held.iter().find(|one| path::text(one, "type") == "Dangling");
    let same = |field, text: &str| known.is_some_and(|known| path::text(known, field) == text);
    if same("status", status) && same("reason", reason) && same("message", &message) {
        return;
    }
    let since = match known {
        Some(known) if path::text(known, "status") == status => known["lastTransitionTime"].clone(),
        _ => now.to_string().into(),
    };
    let new = json!({"type": "Dangling", "status": status, "reason": reason, "message": message, "lastTransitionTime": since});
    let others = held.iter().filter(|one| path::text(one, "type") != "Dangling").cloned();
    let conditions: Vec<Value> = others.chain([new]).collect();
    plan.write(Write::Merge {
        key: schema.key.clone(),
        expect: Expect::unchanged(schema),
        subresource: "status",
        patch: json!({"status": {"conditions": conditions}}),
    });
}
