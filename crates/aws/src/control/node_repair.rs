//! Node auto repair: a node that has not been Ready for long is replaced.

use kinds::NODES;
use object::{Snapshot, Time};

use super::{Plan, ready};
use crate::autoscaling::{Lifecycle, Member};
use crate::eks::NodeGroupRecord;
use crate::state::Kept;

/// How long AWS waits for a node to become Ready again.
const PATIENCE_SECS: i64 = 30 * 60;
/// How often the nodes are looked at: their groups are not woken by them.
const LOOK_SECS: i64 = 60;

/// Marks the members whose nodes are broken, so that their group replaces them.
pub fn repair(
    plan: &mut Plan,
    now: Time,
    nodes: &Snapshot,
    record: &NodeGroupRecord,
    members: &[Kept<Member>],
) {
    let config = &record.shown.node_repair_config;
    if !config.enabled || !matches!(record.shown.status.as_str(), "ACTIVE" | "DEGRADED") {
        return;
    }
    plan.wake(now.plus_secs(LOOK_SECS));
    let in_service = members.iter().filter(|member| member.record.lifecycle == Lifecycle::InService);
    let mut broken: Vec<(Time, &Kept<Member>)> = in_service
        .filter(|member| !member.record.is_unhealthy)
        .filter_map(|member| {
            let node = nodes.find(NODES, "", &member.record.node_name)?;
            Some((ready::not_ready_since(node)?, member))
        })
        .collect();
    if config.is_halted(broken.len(), members.len()) {
        return;
    }
    broken.sort_by_key(|(since, _)| *since);
    let is_moving = |member: &&Kept<Member>| {
        member.record.is_unhealthy || member.record.lifecycle != Lifecycle::InService
    };
    let moving = members.iter().filter(is_moving).count();
    let free = config.at_once(members.len()).saturating_sub(moving);
    for (since, member) in broken.into_iter().take(free) {
        let until = since.plus_secs(PATIENCE_SECS);
        if now < until {
            plan.wake(until);
            continue;
        }
        let mut member = member.clone();
        member.record.is_unhealthy = true;
        plan.changes.update(&member);
    }
}
