//! The profiles' own coming and going, and which of them is a pod's.

use kinds::PODS;
use plan::{Expect, Write};

use super::{AGAIN_SECS, Look, PATIENCE_SECS, PROFILE_LABEL, Plan, SCHEDULER, SERVICE, is_of, pod::Pod};
use crate::Context;
use crate::control::InCluster;
use crate::control::role_mapping::{self, For};
use crate::eks::{AccessEntry, FargateNode, FargateProfile, FargateProfileRecord, Issue};
use crate::iam::record::role_of_arn;
use crate::iam::{self, Trust};
use crate::login::node::is_node;
use crate::state::{self, Kept};

/// The profile that a pod of a namespace runs under: the first by its name that matches, or the one that its label names if that matches.
/// <https://docs.aws.amazon.com/eks/latest/userguide/fargate-profile.html>
pub fn profile_of<'a>(
    profiles: impl IntoIterator<Item = &'a FargateProfile>,
    namespace: &str,
    labels: &dyn Fn(&str) -> Option<String>,
) -> Option<&'a FargateProfile> {
    let wanted = labels(PROFILE_LABEL);
    let may_be = |profile: &&FargateProfile| {
        wanted.as_ref().is_none_or(|wanted| *wanted == profile.fargate_profile_name)
            && profile.matches(namespace, labels)
    };
    profiles
        .into_iter()
        .filter(may_be)
        .min_by(|one, other| one.fargate_profile_name.cmp(&other.fargate_profile_name))
}

/// A profile holds once its role is written down and logs in as a node: not before, since a pod would find it blocked.
pub(super) fn begin(plan: &mut Plan, look: &Look, context: &Context, profile: &Kept<FargateProfileRecord>) {
    let (shown, cluster) = (&profile.record.shown, &look.cluster.record);
    let arn = &shown.pod_execution_role_arn;
    let until = shown.created_at.plus_secs(PATIENCE_SECS);
    let mapping = role_mapping::add(cluster, look.objects, arn, For::Fargate);
    if let Some(write) = mapping.filter(|_| context.now < until) {
        // The ConfigMap's change runs this key again; a write that was refused, the clock.
        plan.in_cluster.push(InCluster::Write(write));
        return plan.wake(context.now.plus_secs(AGAIN_SECS).min(until));
    }
    if can_launch(look, context, arn) {
        return set_status(plan, profile, "ACTIVE", None);
    }
    let (code, message) = why_not(look, context, arn);
    let issue = Issue { code: code.into(), message, resource_ids: vec![arn.clone()] };
    set_status(plan, profile, "CREATE_FAILED", Some(issue));
}

/// Why pods cannot be launched with a role: an issue's code and its message.
fn why_not(look: &Look, context: &Context, arn: &str) -> (&'static str, String) {
    let cluster = look.cluster.name();
    let mode = look.cluster.record.shown.access_config.authentication_mode;
    let entry = state::get::<AccessEntry>(context.state, cluster, arn).filter(|_| mode.reads_entries());
    if !is_trusted(context, arn) {
        return ("AccessDenied", format!("{SERVICE} cannot assume the pod execution role {arn}"));
    }
    if let Some(entry) = entry {
        let kind = entry.record.r#type;
        let message = format!(
            "{arn} has an access entry of type {kind} in cluster {cluster}: delete it, or choose another role"
        );
        return ("PodExecutionRoleAlreadyInUse", message);
    }
    if !mode.reads_config_map() {
        let message =
            format!("{arn} has no access entry in cluster {cluster}: create one of type FARGATE_LINUX");
        return ("AccessDenied", message);
    }
    let message = format!(
        "{arn} could not be written into the ConfigMap aws-auth of cluster {cluster}, or is mapped there to something else than a node"
    );
    ("AccessDenied", message)
}

fn set_status(plan: &mut Plan, profile: &Kept<FargateProfileRecord>, status: &str, issue: Option<Issue>) {
    let mut profile = profile.clone();
    profile.record.shown.status = status.into();
    profile.record.shown.health.issues.extend(issue);
    plan.changes.update(&profile);
}

/// Whether pods can be launched with a role: Fargate may assume it, and it logs in to the cluster as a node.
pub(super) fn can_launch(look: &Look, context: &Context, arn: &str) -> bool {
    let role = role_of_arn(context.state, arn).filter(|_| is_trusted(context, arn));
    role.is_some_and(|role| is_node(context.state, look.objects, &look.cluster.record, &role.record.common))
}

fn is_trusted(context: &Context, arn: &str) -> bool {
    iam::trust(context, arn, SERVICE) == Trust::Given
}

/// The pods of a profile go, then their machines, then the profile, and its role's access with the last one that has it.
pub(super) fn end(
    plan: &mut Plan,
    look: &Look,
    context: &Context,
    profile: &Kept<FargateProfileRecord>,
    nodes: &[Kept<FargateNode>],
) {
    let name = &profile.record.shown.fargate_profile_name;
    let nodes: Vec<&FargateNode> =
        nodes.iter().map(|kept| &kept.record).filter(|node| node.profile == *name).collect();
    let mut left = nodes.len();
    for object in look.objects.list(PODS, "") {
        // Who may edit a pod may edit its label: what has a machine is known by that.
        let is_labelled = || {
            object.meta.label(PROFILE_LABEL).is_some_and(|label| *label == **name)
                && Pod::read(object).is_some_and(|pod| pod.spec.scheduler_name == SCHEDULER)
        };
        if !nodes.iter().any(|node| is_of(&node.pod, object)) && !is_labelled() {
            continue;
        }
        left += 1;
        if !object.meta.is_deleting() {
            plan.in_cluster.push(InCluster::Write(Write::Delete {
                key: object.key.clone(),
                expect: Expect::same(object),
                grace_seconds: None,
                propagation: None,
            }));
        }
    }
    if left > 0 {
        return;
    }
    let role = &profile.record.shown.pod_execution_role_arn;
    let is_shared = look.profiles.iter().any(|other| {
        other.record.shown.pod_execution_role_arn == *role && other.record.shown.fargate_profile_name != *name
    });
    let entry = state::get::<AccessEntry>(context.state, look.cluster.name(), role);
    if let Some(entry) = entry.filter(|entry| !is_shared && entry.record.r#type == "FARGATE_LINUX") {
        plan.changes.delete(&entry);
    }
    let mapping = role_mapping::remove(&look.cluster.record, look.objects, role, For::Fargate);
    plan.in_cluster.extend(mapping.filter(|_| !is_shared).map(InCluster::Write));
    plan.changes.delete(profile);
}
