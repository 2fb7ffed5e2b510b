//! An update of a node group's version: more nodes first, then the old ones are emptied and go a few at a time, then those that were too
//! many. What cannot be done in time fails, and the group is again what it was.
//! <https://docs.aws.amazon.com/eks/latest/userguide/managed-node-update-behavior.html>

use object::Time;
use serde_json::json;

use super::Plan;
use super::node_group::{DRAIN_PATIENCE_SECS, JOIN_PATIENCE_SECS, Look, NOT_BALANCED, cordon, end, merge};
use crate::autoscaling::{Group, Lifecycle, Member};
use crate::eks::{NodeGroupRecord, Phase, Rollout, UpdateError, UpdateRecord, Waiting};
use crate::state::Kept;

/// How long those that are too many may take to go: each is emptied, and what is left must be Ready.
const SHRINK_PATIENCE_SECS: i64 = DRAIN_PATIENCE_SECS + JOIN_PATIENCE_SECS;

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
        Phase::Shrinking => shrinking(plan, record, &group.record, update, look, rollout),
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
    record.record.rollout = Some(Rollout { surge, phase: Phase::Replacing, waiting: None });
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
    let stuck = stuck(plan, look);
    if !stuck.is_empty() && !record.record.force {
        let error = error(
            "PodEvictionFailure",
            format!(
                "Reached max retries while trying to evict pods from nodes in node group {}",
                record.record.shown.nodegroup_name
            ),
            stuck.into_iter().map(|member| member.node_name.clone()).collect(),
        );
        return fail(plan, record, group, update, look, &[], error);
    }
    let unready: Vec<_> = new.iter().copied().filter(|member| !look.is_ready(&member.record)).collect();
    let ready = new.len() - unready.len();
    // What could not be launched is as little there as what does not join.
    let missing = (group.record.desired as usize).saturating_sub(new.len() + old.len());
    let surge = rollout.surge as usize;
    let late = if old.is_empty() {
        // What was to be there only meanwhile need not come any more.
        unready.len() + missing.saturating_sub(surge)
    } else {
        (unready.len() + missing).max(surge.saturating_sub(ready))
    };
    let before = record.record.rollout;
    let waiting = waiting(rollout.waiting, late, ready, look.now);
    record.record.rollout = Some(Rollout { waiting, ..rollout });
    if let Some(waiting) = waiting {
        let until = waiting.since.plus_secs(JOIN_PATIENCE_SECS);
        if look.now >= until {
            let error = not_joining(&record.record, &group.record, &unready);
            return fail(plan, record, group, update, look, &unready, error);
        }
        plan.wake(until);
    }
    if late > 0 && (old.is_empty() || ready < surge) {
        if record.record.rollout != before {
            plan.changes.update(&record);
        }
        return;
    }
    if old.is_empty() {
        if look.members.len() == new.len() {
            shrink(&mut group.record, rollout.surge);
            let waiting = Some(Waiting { since: look.now, ready });
            record.record.rollout = Some(Rollout { phase: Phase::Shrinking, waiting, ..rollout });
            plan.changes.update(&group);
        }
        if record.record.rollout != before {
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
    let free = at_once.saturating_sub(leaving.max(unready.len() + missing));
    for member in old.into_iter().take(free) {
        plan.changes.update(&moved(member, Lifecycle::TerminatingWait, look.now));
    }
    if record.record.rollout != before {
        plan.changes.update(&record);
    }
}

/// A wait for nodes as it goes on: none if none are waited for.
fn waiting(before: Option<Waiting>, late: usize, ready: usize, now: Time) -> Option<Waiting> {
    if late == 0 {
        return None;
    }
    before.filter(|before| ready <= before.ready).or(Some(Waiting { since: now, ready }))
}

/// Every old node is gone, and what is too many goes. There is nothing to go back to: one that takes too long ends the update as it is.
fn shrinking(
    plan: &mut Plan,
    mut record: Kept<NodeGroupRecord>,
    group: &Group,
    mut update: Kept<UpdateRecord>,
    look: &Look,
    rollout: Rollout,
) {
    let Some(waiting) = rollout.waiting else {
        // Of a version of Ekso that waited for ever.
        let waiting = Some(Waiting { since: look.now, ready: 0 });
        record.record.rollout = Some(Rollout { waiting, ..rollout });
        return plan.changes.update(&record);
    };
    let until = waiting.since.plus_secs(SHRINK_PATIENCE_SECS);
    if look.now < until {
        return plan.wake(until);
    }
    let late: Vec<_> = look.members.iter().filter(|member| !look.is_ready(&member.record)).collect();
    let error = not_joining(&record.record, group, &late);
    end(plan, &mut record, &mut update, Some(error));
}

/// Those that were to be empty by now, and of which nothing is decided yet.
fn stuck<'a>(plan: &Plan, look: &Look<'a>) -> Vec<&'a Member> {
    let waiting = look.members.iter().filter(|member| is_waiting(plan, member)).map(|member| &member.record);
    waiting.filter(|member| look.now >= member.since.plus_secs(DRAIN_PATIENCE_SECS)).collect()
}

/// Whether a member is being emptied and stays so: the same plan may let one go that is empty now.
fn is_waiting(plan: &Plan, member: &Kept<Member>) -> bool {
    member.record.lifecycle == Lifecycle::TerminatingWait && !plan.changes.has(&member.key)
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

fn not_joining(record: &NodeGroupRecord, group: &Group, late: &[&Kept<Member>]) -> UpdateError {
    let mut message = format!(
        "Couldn't proceed with upgrade process as new nodes are not joining node group {}",
        record.shown.nodegroup_name
    );
    if !group.problem.is_empty() {
        message = format!("{message}: {}", group.problem);
    }
    let mut ids: Vec<_> = late.iter().map(|member| member.record.instance_id.clone()).collect();
    if ids.is_empty() {
        // Of what could not be launched there is only the group.
        ids.push(group.name.clone());
    }
    error("NodeCreationFailure", message, ids)
}

fn error(code: &str, message: String, resource_ids: Vec<String>) -> UpdateError {
    UpdateError { error_code: code.into(), error_message: message, resource_ids }
}

/// The group is again of what it was, so that of the nodes that are too many now the new ones go; what was replaced by then stays so.
/// Those that are late go first: where nearly all are new, what was replaced would go instead of them.
fn fail(
    plan: &mut Plan,
    mut record: Kept<NodeGroupRecord>,
    mut group: Kept<Group>,
    mut update: Kept<UpdateRecord>,
    look: &Look,
    late: &[&Kept<Member>],
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
        (rollout.phase, rollout.waiting) = (Phase::Failing, None);
    }
    group.record.template = node_group.template.clone();
    update.record.shown.errors = vec![error];
    let waiting: Vec<_> = look.members.iter().filter(|member| is_waiting(plan, member)).collect();
    for member in waiting {
        plan.changes.update(&moved(member, Lifecycle::InService, look.now));
    }
    for member in late {
        let mut member = (*member).clone();
        member.record.is_unhealthy = true;
        plan.changes.update(&member);
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
