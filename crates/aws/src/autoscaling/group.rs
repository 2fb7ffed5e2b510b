use serde_json::{Value, json};

use super::capacity;
use super::record::{Group, members};
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault};

/// How large a group may be: no host of ours runs more.
const MOST_INSTANCES: u32 = 1_000;

pub fn wrong(message: impl Into<String>) -> Fault {
    Fault::new("ValidationError", message)
}

pub fn find(context: &Context, input: &Value) -> Result<Kept<Group>, Fault> {
    let name = input["AutoScalingGroupName"].as_str().unwrap_or_default();
    state::get(context.state, "", name).ok_or_else(|| {
        wrong(format!("AutoScalingGroup name not found - AutoScalingGroup '{name}' not found"))
    })
}

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    if find(context, input).is_ok() {
        let why = "AutoScalingGroup by this name already exists - A group with this name already exists";
        return Err(Fault::new("AlreadyExists", why));
    }
    Err(wrong(
        "An Auto Scaling group of your own is not supported by Ekso: create a managed node group, which has one",
    ))
}

pub fn no_launch_configurations(_: &mut Context, _: &Value) -> Result<Answer, Fault> {
    Ok(Answer::read(json!({"LaunchConfigurations": []})))
}

/// EKS is asked before an instance of a node group goes, so that it can empty the node.
pub fn hooks(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let group = find(context, input)?;
    Ok(Answer::read(json!({"LifecycleHooks": [{
        "LifecycleHookName": "Terminate-LC-Hook", "AutoScalingGroupName": group.record.name,
        "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING", "HeartbeatTimeout": 1800,
        "GlobalTimeout": 172_800, "DefaultResult": "CONTINUE",
    }]})))
}

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let named = input["AutoScalingGroupNames"].as_array().filter(|names| !names.is_empty());
    let filters = input["Filters"].as_array().cloned().unwrap_or_default();
    let all = state::list::<Group>(context.state, "").into_iter().map(|kept| kept.record);
    let all = all.filter(|group| named.is_none_or(|names| names.contains(&json!(group.name))));
    let all = all.filter(|group| filters.iter().all(|filter| matches(group, filter)));
    let shown: Vec<Value> = all.map(|group| shown(context, &group)).collect();
    Ok(Answer::read(json!({"AutoScalingGroups": shown})))
}

/// `tag-key`, `tag-value`, `tag:<key>`
fn matches(group: &Group, filter: &Value) -> bool {
    let name = filter["Name"].as_str().unwrap_or_default();
    let wanted = |text: &str| filter["Values"].as_array().is_some_and(|values| values.contains(&json!(text)));
    match name.strip_prefix("tag:") {
        Some(key) => group.tags.iter().any(|tag| tag.key == key && wanted(&tag.value)),
        None if name == "tag-key" => group.tags.iter().any(|tag| wanted(&tag.key)),
        None if name == "tag-value" => group.tags.iter().any(|tag| wanted(&tag.value)),
        None => false,
    }
}

fn shown(context: &Context, group: &Group) -> Value {
    let instances: Vec<Value> =
        members(context.state, &group.name).iter().map(|kept| capacity::shown(&kept.record)).collect();
    let subnets: Vec<&str> = group.subnets.iter().map(|(id, _)| id.as_str()).collect();
    let mut zones: Vec<&str> = group.subnets.iter().map(|(_, zone)| zone.as_str()).collect();
    zones.sort_unstable();
    zones.dedup();
    let suspended: Vec<Value> = group
        .suspended
        .iter()
        .map(|name| json!({"ProcessName": name, "SuspensionReason": format!("User suspended at {}", group.created)}))
        .collect();
    let tags: Vec<Value> = group.tags.iter().map(|tag| super::tags::shown(&group.name, tag)).collect();
    let mut shown = json!({
        "AutoScalingGroupName": group.name, "AutoScalingGroupARN": group.arn, "CreatedTime": group.created,
        "MinSize": group.min, "MaxSize": group.max, "DesiredCapacity": group.desired, "DefaultCooldown": 300,
        "AvailabilityZones": zones, "VPCZoneIdentifier": subnets.join(","),
        "HealthCheckType": "EC2", "HealthCheckGracePeriod": 15, "TerminationPolicies": ["AllocationStrategy", "OldestLaunchTemplate", "OldestInstance"],
        "NewInstancesProtectedFromScaleIn": group.protects_new, "CapacityRebalance": true,
        "ServiceLinkedRoleARN": format!("arn:aws:iam::{}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling", context.account),
        "MixedInstancesPolicy": {"LaunchTemplate": {
            "LaunchTemplateSpecification": capacity::template(&group.template),
            "Overrides": group.instance_type.iter().map(|kind| json!({"InstanceType": kind})).collect::<Vec<_>>(),
        }},
        "LoadBalancerNames": [], "TargetGroupARNs": [], "EnabledMetrics": [], "TrafficSources": [],
        "Instances": instances, "SuspendedProcesses": suspended, "Tags": tags,
    });
    if group.is_deleting {
        shown["Status"] = "Delete in progress".into();
    }
    shown
}

pub fn update(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = find(context, input)?;
    for member in [
        "LaunchTemplate",
        "LaunchConfigurationName",
        "MixedInstancesPolicy",
        "VPCZoneIdentifier",
        "AvailabilityZones",
    ] {
        if !input[member].is_null() {
            return Err(wrong(format!(
                "{member} of a node group's Auto Scaling group is changed with UpdateNodegroupVersion"
            )));
        }
    }
    let group = &mut found.record;
    let size = |member: &str, known: u32| {
        input[member].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(known)
    };
    let (min, max) = (size("MinSize", group.min), size("MaxSize", group.max));
    if min > max {
        return Err(wrong(format!("Max bound, {max}, must be greater than or equal to min bound, {min}")));
    }
    if max > MOST_INSTANCES {
        return Err(wrong(format!("Max bound, {max}, must be less than or equal to {MOST_INSTANCES}")));
    }
    // Bounds move what is wanted; only what is asked for outright may be out of them.
    let desired = size("DesiredCapacity", group.desired.clamp(min, max));
    capacity::check(desired, min, max)?;
    (group.min, group.max, group.desired) = (min, max, desired);
    if let Some(protects) = input["NewInstancesProtectedFromScaleIn"].as_bool() {
        group.protects_new = protects;
    }
    let mut changes = Changes::default();
    changes.update(&found);
    Ok(Answer::done(changes))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = find(context, input)?;
    if input["ForceDelete"] != true && !members(context.state, &found.record.name).is_empty() {
        let why = "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) still in the group.";
        return Err(Fault::new("ResourceInUse", why));
    }
    (found.record.min, found.record.desired, found.record.is_deleting) = (0, 0, true);
    let mut changes = Changes::default();
    changes.update(&found);
    Ok(Answer::done(changes))
}
