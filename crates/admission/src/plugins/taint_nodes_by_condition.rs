//! A new node takes no pods before it says that it is ready.

use object::{Snapshot, Status};
use serde_json::{Value, json};

use crate::{Operation, Plugin, Request};

pub const PLUGIN: Plugin = Plugin { name: "TaintNodesByCondition", mutate: Some(mutate), validate: None };

fn mutate(_: &Snapshot, request: &Request, object: &mut Value, _: &mut Vec<String>) -> Result<(), Status> {
    if !request.is(kinds::NODES, &[Operation::Create]) {
        return Ok(());
    }
    let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
    match object["spec"].get_mut("taints").and_then(Value::as_array_mut) {
        Some(taints) => {
            let same = |held: &Value| held["key"] == taint["key"] && held["effect"] == taint["effect"];
            if !taints.iter().any(same) {
                taints.push(taint);
            }
        }
        None => object["spec"]["taints"] = json!([taint]),
    }
    Ok(())
}
