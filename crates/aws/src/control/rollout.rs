//! An update of a node group's version: more nodes first, then the old ones are emptied and go a few at a time, then those that were too
//! many. What cannot be done in time fails, and the group is again what it was.
//! <https://docs.aws.amazon.com/eks/latest/userguide/managed-node-update-behavior.html>

use object::Time;
use serde_json::json;

use super::Plan;
use super::node_group::{DRAIN_PATIENCE_SECS, JOIN_PATIENCE_SECS, Look, NOT_BALANCED, cordon, end, merge};
use crate::autoscaling::{Group, Lifecycle, Member};
use crate::eks::{NodeGroupRecord, Phase, Rollout, UpdateError, UpdateRecord};
use crate::state::Kept;

/// Takes the next step.
pub fn roll(
    plan: &mut Plan,
    mut record: Kept<NodeGroupRecord>,
    group: Kept<Group>,
    mut update: Kept<UpdateRecord>,
    look: &Look,
) {
    let Some(rollout) = record.record.rollout else { return begin(plan, record, group) };
    match rollout.phase {
        Phase::Replacing => replace(plan, record, group, update, look, rollout),
        Phase::Shrinking if look.is_settled(group.record.desired) => {
            end(plan, &mut record, &mut update, None)
        }
        Phase::Shrinking => {}
        Phase::Failing => {
            if !uncordon(plan, &record.record, look) {
                let error = update.record.shown.errors.pop();
                end(plan, &mut record, &mut update, error);
            }
        }
    }
}

fn begin(plan: &mut Plan, mut record: Kept<NodeGroupRecord>, mut group: Kept<Group>) {
    let config = &record.record.shown.update_config;
    let mut zones: Vec<&String> = group.record.subnets.iter().map(|(_, zone)| zone).collect();
    zones.sort_unstable();
    zones.dedup();
    let is_minimal = config.update_strategy.as_deref() == Some("MINIMAL");
    let at_once = config.nodes_at_once(group.record.desired);
    let surge = if is_minimal { 0 } else { at_once.max(u32::try_from(zones.len()).unwrap_or(1)) };
    record.record.rollout = Some(Rollout { surge, phase: Phase::Replacing });
    group.record.max += surge;
    group.record.desired += surge;
    group.record.template = record.record.template.clone();
    plan.changes.update(&group);
    plan.changes.update(&record);
}

fn replace(
    plan: &mut Plan,
    mut record: Kept<NodeGroupRecord>,
    mut group: Kept<Group>,
    update: Kept<UpdateRecord>,
    look: &Look,
    rollout: Rollout,
) {
    let (new, old): (Vec<_>, Vec<_>) =
        look.alive().partition(|member| member.record.template == record.record.template);
    let stuck = stuck(look);
    if !stuck.is_empty() && !record.record.force {
        let error = error(
            "PodEvictionFailure",
            format!(
                "Reached max retries while trying to evict pods from nodes in node group {}",
                record.record.shown.nodegroup_name
            ),
            stuck.into_iter().map(|member| member.node_name.clone()).collect(),
        );
        return fail(plan, record, group, update, look, error);
    }
    let ready = new.iter().filter(|member| look.is_ready(&member.record)).count();
    let wanted = if old.is_empty() { new.len() } else { rollout.surge as usize };
    if ready < wanted {
        let begun = new.iter().map(|member| member.record.launched).max();
        let until = begun.unwrap_or(update.record.shown.created_at).plus_secs(JOIN_PATIENCE_SECS);
        if look.now < until {
            return plan.wake(until);
        }
        let late = new.iter().filter(|member| !look.is_ready(&member.record));
        let error = error(
            "NodeCreationFailure",
            format!(
                "Couldn't proceed with upgrade process as new nodes are not joining node group {}",
                record.record.shown.nodegroup_name
            ),
            late.map(|member| member.record.instance_id.clone()).collect(),
        );
        return fail(plan, record, group, update, look, error);
    }
    if old.is_empty() {
        if look.members.len() == new.len() {
            shrink(&mut group.record, rollout.surge);
            record.record.rollout = Some(Rollout { phase: Phase::Shrinking, ..rollout });
            plan.changes.update(&group);
            plan.changes.update(&record);
        }
        return;
    }
    for member in &old {
        if let Some(node) = look.node(&member.record) {
            cordon(plan, node, true);
        }
    }
    // A node that is leaving and one that is not yet Ready in its place are both unavailable.
    let at_once = record.record.shown.update_config.nodes_at_once(group.record.desired) as usize;
    let leaving = look.members.iter().filter(|member| member.record.lifecycle.is_terminating()).count();
    let free = at_once.saturating_sub(leaving.max(new.len() - ready));
    for member in old.into_iter().take(free) {
        plan.changes.update(&moved(member, Lifecycle::TerminatingWait, look.now));
    }
}

/// Those that were to be empty by now.
fn stuck<'a>(look: &Look<'a>) -> Vec<&'a Member> {
    let members = look.members.iter().map(|member| &member.record);
    members
        .filter(|member| member.lifecycle == Lifecycle::TerminatingWait)
        .filter(|member| look.now >= member.since.plus_secs(DRAIN_PATIENCE_SECS))
        .collect()
}

fn moved(member: &Kept<Member>, to: Lifecycle, now: Time) -> Kept<Member> {
    let mut member = member.clone();
    (member.record.lifecycle, member.record.since) = (to, now);
    member
}

/// Takes back what an update added; somebody may have changed the sizes meanwhile.
fn shrink(group: &mut Group, surge: u32) {
    group.max = group.max.saturating_sub(surge).max(group.min);
    group.desired = group.desired.saturating_sub(surge).clamp(group.min, group.max);
}

fn error(code: &str, message: String, resource_ids: Vec<String>) -> UpdateError {
    UpdateError { error_code: code.into(), error_message: message, resource_ids }
}

/// The group is again of what it was, so that of the nodes that are too many now the new ones go; what was replaced by then stays so.
fn fail(
    plan: &mut Plan,
    mut record: Kept<NodeGroupRecord>,
    mut group: Kept<Group>,
    mut update: Kept<UpdateRecord>,
    look: &Look,
    error: UpdateError,
) {
    let node_group = &mut record.record;
    if let Some(before) = node_group.before.take() {
        node_group.shown.version = before.version;
        node_group.shown.release_version = before.release_version;
        node_group.shown.launch_template = before.launch_template;
        node_group.template = before.template;
    }
    if let Some(rollout) = &mut node_group.rollout {
        shrink(&mut group.record, rollout.surge);
        rollout.phase = Phase::Failing;
    }
    group.record.template = node_group.template.clone();
    update.record.shown.errors = vec![error];
    for member in look.members.iter().filter(|member| member.record.lifecycle == Lifecycle::TerminatingWait) {
        plan.changes.update(&moved(member, Lifecycle::InService, look.now));
    }
    plan.changes.update(&group);
    plan.changes.update(&update);
    plan.changes.update(&record);
}

/// Whether nodes of the template that is in force again are still closed to pods.
fn uncordon(plan: &mut Plan, record: &NodeGroupRecord, look: &Look) -> bool {
    let current = look.alive().filter(|member| member.record.template == record.template);
    let closed = current.filter_map(|member| look.node(&member.record));
    let closed: Vec<_> = closed.filter(|node| node.meta.label(NOT_BALANCED).is_some()).collect();
    for node in &closed {
        let patch = json!({"metadata": {"labels": {NOT_BALANCED: null}}, "spec": {"unschedulable": null}});
        plan.in_cluster.push(merge(node, patch));
    }
    !closed.is_empty()
}
