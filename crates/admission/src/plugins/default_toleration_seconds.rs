//! A pod stays five minutes on a node that stopped answering.

use object::{Snapshot, Status};
use serde_json::{Value, json};

use crate::{Operation, Plugin, Request};

pub const PLUGIN: Plugin = Plugin { name: "DefaultTolerationSeconds", mutate: Some(mutate), validate: None };

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

fn mutate(_: &Snapshot, request: &Request, object: &mut Value, _: &mut Vec<String>) -> Result<(), Status> {
    if !request.is(kinds::PODS, &[Operation::Create, Operation::Update]) {
        return Ok(());
    }
    let mut tolerations = object["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    let before = tolerations.len();
    let given = tolerations.clone();
    for taint in TAINTS {
        let is_tolerated = given.iter().any(|held| {
            let (key, effect) = (held["key"].as_str().unwrap_or(""), held["effect"].as_str().unwrap_or(""));
            (key.is_empty() || key == taint) && (effect.is_empty() || effect == "NoExecute")
        });
        if !is_tolerated {
            tolerations.push(json!({
                "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
            }));
        }
    }
    if tolerations.len() > before {
        object["spec"]["tolerations"] = tolerations.into();
    }
    Ok(())
}
