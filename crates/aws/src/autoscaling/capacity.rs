//! How many instances there should be, and which of them go.

use serde_json::{Value, json};

use super::activity;
use super::group::{find, wrong};
use super::record::{Group, Lifecycle, Member, member, members};
use crate::eks::Template;
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault};

pub fn check(desired: u32, min: u32, max: u32) -> Result<(), Fault> {
    if desired > max {
        return Err(wrong(format!(
            "New SetDesiredCapacity value {desired} is above max value {max} for the AutoScalingGroup."
        )));
    }
    if desired < min {
        return Err(wrong(format!(
            "New SetDesiredCapacity value {desired} is below min value {min} for the AutoScalingGroup."
        )));
    }
    Ok(())
}

pub fn set_desired(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = find(context, input)?;
    let desired = input["DesiredCapacity"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(u32::MAX);
    check(desired, found.record.min, found.record.max)?;
    found.record.desired = desired;
    let mut changes = Changes::default();
    changes.update(&found);
    Ok(Answer::done(changes))
}

fn named(context: &Context, instance: &str) -> Result<(Kept<Group>, Kept<Member>), Fault> {
    let none =
        || wrong(format!("Instance Id not found - No managed instance found for instance ID: {instance}"));
    let member = member(context.state, instance).ok_or_else(none)?;
    let group = state::get(context.state, "", &member.key.namespace).ok_or_else(none)?;
    Ok((group, member))
}

pub fn terminate(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let id = input["InstanceId"].as_str().unwrap_or_default();
    let (mut group, mut member) = named(context, id)?;
    let mut changes = Changes::default();
    // Said again, it is not done again.
    if input["ShouldDecrementDesiredCapacity"] == true && !member.record.lifecycle.is_terminating() {
        if group.record.desired <= group.record.min {
            let why = format!(
                "Currently, desiredSize equals minSize ({}). Terminating instance without replacement will violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower group's min size.",
                group.record.min
            );
            return Err(wrong(why));
        }
        group.record.desired -= 1;
        changes.update(&group);
    }
    let cause = "instance was taken out of service in response to a user request.".to_owned();
    let begun = activity::begin(context, &mut changes, &group.record, &member.record, "Terminating", cause);
    if !member.record.lifecycle.is_terminating() {
        member.record.lifecycle = Lifecycle::TerminatingWait;
        member.record.since = context.now;
        changes.update(&member);
    }
    Ok(Answer::write(json!({"Activity": activity::shown(&group.record, &begun)}), changes))
}

pub fn set_health(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let (_, mut member) = named(context, input["InstanceId"].as_str().unwrap_or_default())?;
    member.record.is_unhealthy = match input["HealthStatus"].as_str() {
        Some("Healthy") => false,
        Some("Unhealthy") => true,
        _ => return Err(wrong("Valid instance health states are: [Healthy, Unhealthy].")),
    };
    let mut changes = Changes::default();
    changes.update(&member);
    Ok(Answer::done(changes))
}

pub fn set_protection(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let group = find(context, input)?;
    let mut changes = Changes::default();
    for id in input["InstanceIds"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let (of, mut member) = named(context, id)?;
        if of.record.name != group.record.name {
            return Err(wrong(format!(
                "The instance {id} is not part of Auto Scaling group {}.",
                group.record.name
            )));
        }
        member.record.is_protected = input["ProtectedFromScaleIn"] == true;
        changes.update(&member);
    }
    Ok(Answer::done(changes))
}

pub fn template(template: &Template) -> Value {
    json!({"LaunchTemplateId": template.id, "LaunchTemplateName": template.name, "Version": template.version})
}

pub fn shown(member: &Member) -> Value {
    json!({
        "InstanceId": member.instance_id, "InstanceType": member.instance_type, "AvailabilityZone": member.zone,
        "LifecycleState": member.lifecycle.told(),
        "HealthStatus": if member.is_unhealthy { "Unhealthy" } else { "Healthy" },
        "LaunchTemplate": template(&member.template), "ProtectedFromScaleIn": member.is_protected,
    })
}

pub fn describe_instances(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let ids = input["InstanceIds"].as_array().filter(|ids| !ids.is_empty());
    let mut all = Vec::new();
    for group in state::list::<Group>(context.state, "") {
        for kept in members(context.state, &group.record.name) {
            if ids.is_none_or(|ids| ids.contains(&json!(kept.record.instance_id))) {
                let mut one = shown(&kept.record);
                one["AutoScalingGroupName"] = group.record.name.as_str().into();
                // This list says it in capitals.
                one["HealthStatus"] = one["HealthStatus"].as_str().unwrap_or_default().to_uppercase().into();
                all.push(one);
            }
        }
    }
    Ok(Answer::read(json!({"AutoScalingInstances": all})))
}
