//! Processes of a group that may be suspended. <https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-suspend-resume-processes.html>

use serde_json::Value;

use super::group::{find, wrong};
use crate::state::Changes;
use crate::{Answer, Context, Fault};

const ALL: &[&str] = &[
    "AZRebalance",
    "AddToLoadBalancer",
    "AlarmNotification",
    "HealthCheck",
    "InstanceRefresh",
    "Launch",
    "ReplaceUnhealthy",
    "ScheduledActions",
    "Terminate",
];

/// The processes that are named, all if none is.
fn named(input: &Value) -> Result<Vec<&'static str>, Fault> {
    let names: Vec<&str> =
        input["ScalingProcesses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if names.is_empty() {
        return Ok(ALL.to_vec());
    }
    let known = |name: &&str| {
        ALL.iter()
            .copied()
            .find(|known| known == name)
            .ok_or_else(|| wrong(format!("Invalid process name {name}")))
    };
    names.iter().map(known).collect()
}

pub fn suspend(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = find(context, input)?;
    for name in named(input)? {
        if !found.record.is_suspended(name) {
            found.record.suspended.push(name.into());
        }
    }
    let mut changes = Changes::default();
    changes.update(&found);
    Ok(Answer::done(changes))
}

pub fn resume(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = find(context, input)?;
    let names = named(input)?;
    found.record.suspended.retain(|one| !names.contains(&one.as_str()));
    let mut changes = Changes::default();
    changes.update(&found);
    Ok(Answer::done(changes))
}
