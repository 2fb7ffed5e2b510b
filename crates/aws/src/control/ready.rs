//! Whether a Node says that it is Ready, and since when it does not.

use object::{Object, Time};
use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(default)]
struct View {
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    r#type: String,
    status: String,
    last_transition_time: Option<Time>,
}

fn condition(node: &Object) -> Option<Condition> {
    let View { status } = node.decode().ok()?;
    status.conditions.into_iter().find(|one| one.r#type == "Ready")
}

pub fn is_ready(node: &Object) -> bool {
    condition(node).is_some_and(|ready| ready.status == "True")
}

/// `None` of a node that is Ready, or that never said.
pub fn not_ready_since(node: &Object) -> Option<Time> {
    condition(node).filter(|ready| ready.status != "True")?.last_transition_time
}
