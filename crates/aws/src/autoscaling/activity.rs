use serde_json::{Value, json};

use super::group;
use super::record::{Activity, Group, Member};
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault};

/// How many activities of a group are remembered.
const REMEMBERED: usize = 100;

/// Writes down that a group has begun something with an instance.
pub fn begin(
    context: &mut Context,
    changes: &mut Changes,
    group: &Group,
    member: &Member,
    verb: &str,
    cause: String,
) -> Activity {
    let known = state::list::<Activity>(context.state, &group.name);
    if known.len() >= REMEMBERED {
        // Of several that begin at once, each takes another's place.
        let is_going = |kept: &&Kept<Activity>| changes.0.iter().any(|change| change.key == kept.key);
        let ended = known.iter().filter(|kept| kept.record.end.is_some() && !is_going(kept));
        if let Some(oldest) = ended.min_by_key(|kept| kept.record.start) {
            changes.delete(oldest);
        }
    }
    let activity = Activity {
        id: context.ids.uuid(),
        description: format!("{verb} EC2 instance: {}", member.instance_id),
        cause: format!("At {} {cause}", context.now),
        start: context.now,
        end: None,
        status: "InProgress".into(),
        instance_id: member.instance_id.clone(),
    };
    changes.create(&group.name, &activity.id, &activity);
    activity
}

/// What of an instance is in progress is done.
pub fn finish(context: &Context, changes: &mut Changes, group: &str, instance: &str) {
    for mut kept in state::list::<Activity>(context.state, group) {
        if kept.record.instance_id == instance && kept.record.end.is_none() {
            kept.record.end = Some(context.now);
            kept.record.status = "Successful".into();
            changes.update(&kept);
        }
    }
}

pub fn shown(group: &Group, activity: &Activity) -> Value {
    let mut shown = json!({
        "ActivityId": activity.id, "AutoScalingGroupName": group.name, "AutoScalingGroupARN": group.arn,
        "Description": activity.description, "Cause": activity.cause, "StartTime": activity.start,
        "StatusCode": activity.status, "Progress": if activity.end.is_some() { 100 } else { 50 }, "Details": "{}",
    });
    if let Some(end) = activity.end {
        shown["EndTime"] = json!(end);
    }
    shown
}

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let groups: Vec<Kept<Group>> = match input["AutoScalingGroupName"].as_str() {
        Some(_) => vec![group::find(context, input)?],
        None => state::list(context.state, ""),
    };
    let ids = input["ActivityIds"].as_array().filter(|ids| !ids.is_empty());
    let mut all: Vec<(Activity, Value)> = Vec::new();
    for group in &groups {
        for kept in state::list::<Activity>(context.state, &group.record.name) {
            if ids.is_none_or(|ids| ids.contains(&json!(kept.record.id))) {
                let told = shown(&group.record, &kept.record);
                all.push((kept.record, told));
            }
        }
    }
    // The newest first.
    all.sort_by(|(a, _), (b, _)| (b.start, &b.id).cmp(&(a.start, &a.id)));
    let all: Vec<Value> = all.into_iter().map(|(_, told)| told).collect();
    Ok(Answer::read(json!({"Activities": all})))
}
