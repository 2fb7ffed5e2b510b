//! Auto Scaling groups: as many instances as are wanted, spread over the zones, each of them healthy.

use std::collections::BTreeMap;

use serde_json::json;

use crate::autoscaling::{
    Activity, GROUP_TAG, Group, Lifecycle, Member, begin_activity, finish_activity, members,
};
use crate::ec2::launch::{Given, launch};
use crate::ec2::record::{Instance, State, Wanted};
use crate::state::{self, Changes, Kept};
use crate::{Context, Fault};

use super::Plan;

/// Instances that one pass starts; the next pass goes on.
const MOST_AT_ONCE: usize = 32;
/// How long to wait before instances that could not be launched are tried again.
const LAUNCH_AGAIN_SECS: i64 = 10;

/// Decides what a group should do next.
pub fn reconcile(context: &mut Context, name: &str) -> Plan {
    let mut plan = Plan::default();
    let Some(mut group) = state::get::<Group>(context.state, "", name) else { return plan };
    let before = members(context.state, name);
    if group.record.is_deleting && before.is_empty() {
        let changes = &mut plan.changes;
        state::list::<Activity>(context.state, name).iter().for_each(|activity| changes.delete(activity));
        changes.delete(&group);
        return plan;
    }
    let mut now = before.clone();
    now.retain_mut(|member| follow(context, &mut plan.changes, member));
    for member in now.iter_mut().filter(|member| !member.record.lifecycle.is_terminating()) {
        if member.record.is_unhealthy && !group.record.is_suspended("ReplaceUnhealthy") {
            // There is nothing to be emptied on what is broken.
            let cause = "an instance was taken out of service in response to an EC2 health check indicating it has been terminated or stopped.";
            terminate(
                context,
                &mut plan.changes,
                &group.record,
                member,
                Lifecycle::TerminatingProceed,
                cause,
            );
        }
    }
    let desired = group.record.desired as usize;
    let alive = now.iter().filter(|member| !member.record.lifecycle.is_terminating()).count();
    if alive > desired && !group.record.is_suspended("Terminate") {
        let cause = format!(
            "an instance was taken out of service in response to a difference between desired and actual capacity, shrinking the capacity from {alive} to {desired}."
        );
        for _ in desired..alive {
            let Some(member) = victim(&group.record, &mut now) else { break };
            terminate(context, &mut plan.changes, &group.record, member, Lifecycle::TerminatingWait, &cause);
        }
    }
    let written = now.iter().filter(|member| !before.contains(member));
    written.for_each(|member| plan.changes.update(member));
    let missing = desired.saturating_sub(alive).min(MOST_AT_ONCE);
    if missing > 0 && !group.record.is_suspended("Launch") {
        let problem = match start(context, &group.record, &now, missing) {
            Ok(started) => {
                plan.changes.0.extend(started.0);
                String::new()
            }
            Err(fault) => {
                plan.wake(context.now.plus_secs(LAUNCH_AGAIN_SECS));
                fault.message
            }
        };
        if group.record.problem != problem {
            group.record.problem = problem;
            plan.changes.update(&group);
        } else if problem.is_empty() {
            plan.changes.require(&group);
        }
    } else if missing == 0 && !group.record.problem.is_empty() {
        // What could not be launched is not wanted any more.
        group.record.problem.clear();
        plan.changes.update(&group);
    }
    plan
}

/// Brings a member to where its instance is, and its instance to where the member goes. False if both are gone.
fn follow(context: &Context, changes: &mut Changes, member: &mut Kept<Member>) -> bool {
    let (group, id) = (member.key.namespace.clone(), member.record.instance_id.clone());
    let instance = state::get::<Instance>(context.state, "", &id);
    let is_alive = instance.as_ref().is_some_and(|kept| kept.record.is_alive());
    let record = &mut member.record;
    match (record.lifecycle, instance) {
        (Lifecycle::TerminatingProceed, instance) => match instance {
            Some(kept) if kept.record.state == State::Terminated => {}
            Some(mut kept) => {
                if kept.record.wanted != Wanted::Terminated {
                    kept.record.wanted = Wanted::Terminated;
                    kept.record.state = State::ShuttingDown;
                    changes.update(&kept);
                }
                return true;
            }
            None => {}
        },
        // There is nothing left to be emptied.
        (Lifecycle::TerminatingWait, _) => {
            if !is_alive {
                record.lifecycle = Lifecycle::TerminatingProceed;
            }
            return true;
        }
        (Lifecycle::Pending, Some(kept)) if is_alive && kept.record.state == State::Running => {
            record.lifecycle = Lifecycle::InService;
            record.since = context.now;
            record.problem.clear();
            finish_activity(context, changes, &group, &id);
            return true;
        }
        (_, instance) => {
            record.is_unhealthy |= !is_alive;
            record.problem =
                instance.and_then(|kept| kept.record.reason).map(|(_, why)| why).unwrap_or_default();
            return true;
        }
    }
    finish_activity(context, changes, &group, &id);
    changes.delete(member);
    false
}

fn terminate(
    context: &mut Context,
    changes: &mut Changes,
    group: &Group,
    member: &mut Kept<Member>,
    to: Lifecycle,
    cause: &str,
) {
    begin_activity(context, changes, group, &member.record, "Terminating", cause.to_owned());
    // One that never ran has nothing to be emptied either.
    let was_pending = member.record.lifecycle == Lifecycle::Pending;
    member.record.lifecycle = if was_pending { Lifecycle::TerminatingProceed } else { to };
    member.record.since = context.now;
}

/// Launches what is missing in the zones that have the fewest: of one subnet only, as one transaction must; the next pass goes on with
/// the others. Where there is no room, the next zone is taken.
fn start(
    context: &mut Context,
    group: &Group,
    members: &[Kept<Member>],
    missing: usize,
) -> Result<Changes, Fault> {
    let alive: Vec<_> = members.iter().filter(|member| !member.record.lifecycle.is_terminating()).collect();
    let mut crowds: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, zone) in &group.subnets {
        crowds.insert(zone, alive.iter().filter(|member| member.record.zone == *zone).count());
    }
    let crowd = |crowds: &BTreeMap<&str, usize>, zone: &str| crowds.get(zone).copied().unwrap_or_default();
    let mut places: Vec<&(String, String)> = group.subnets.iter().collect();
    places.sort_by_key(|(_, zone)| crowd(&crowds, zone));
    // How many of the missing the first of them gets, if each goes to the emptiest zone.
    let mut count = 0;
    for _ in 0..missing {
        let next = group.subnets.iter().min_by_key(|(_, zone)| crowd(&crowds, zone));
        let Some((subnet, zone)) = next else { break };
        count += u64::from(places.first().is_some_and(|(first, _)| first == subnet));
        *crowds.entry(zone).or_default() += 1;
    }
    let mut failure = Fault::new("ValidationError", "the group has no subnets");
    for (subnet, zone) in places {
        match start_in(context, group, (subnet, zone), count.max(1), alive.len()) {
            Ok(changes) => return Ok(changes),
            Err(fault) => failure = fault,
        }
    }
    Err(failure)
}

fn start_in(
    context: &mut Context,
    group: &Group,
    (subnet, zone): (&str, &str),
    count: u64,
    alive: usize,
) -> Result<Changes, Fault> {
    let mut input = json!({
        "LaunchTemplate": {"LaunchTemplateId": group.template.id, "Version": group.template.version},
    });
    if let Some(kind) = &group.instance_type {
        input["InstanceType"] = json!(kind);
    }
    let mut tags = BTreeMap::from([(GROUP_TAG.to_owned(), group.name.clone())]);
    let given = group.tags.iter().filter(|tag| tag.propagate_at_launch);
    tags.extend(given.map(|tag| (tag.key.clone(), tag.value.clone())));
    let mut changes = Changes::default();
    let given = Given { tags, ..Given::default() };
    let cause = format!(
        "an instance was started in response to a difference between desired and actual capacity, increasing the capacity from {alive} to {}.",
        group.desired
    );
    for instance in launch(context, &mut changes, &input, subnet, count, given)? {
        let member = Member {
            instance_id: instance.instance_id,
            instance_type: instance.instance_type,
            subnet_id: subnet.to_owned(),
            zone: zone.to_owned(),
            template: group.template.clone(),
            lifecycle: Lifecycle::Pending,
            since: context.now,
            is_unhealthy: false,
            is_protected: group.protects_new,
            launched: context.now,
            node_name: instance.private_dns_name,
            problem: String::new(),
        };
        changes.create(&group.name, &member.instance_id, &member);
        begin_activity(context, &mut changes, group, &member, "Launching a new", cause.clone());
    }
    Ok(changes)
}

/// Of the zone that has the most: what is of an older template, then what is still starting, then what is oldest.
/// <https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-termination-policies.html>
fn victim<'a>(group: &Group, members: &'a mut [Kept<Member>]) -> Option<&'a mut Kept<Member>> {
    let is_alive = |member: &Kept<Member>| !member.record.lifecycle.is_terminating();
    let mut zones: BTreeMap<String, usize> = BTreeMap::new();
    for member in members.iter().filter(|member| is_alive(member)) {
        *zones.entry(member.record.zone.clone()).or_default() += 1;
    }
    let rank = |member: &Member| {
        let is_current = member.template == group.template;
        let crowd = zones.get(&member.zone).copied().unwrap_or_default();
        let is_running = member.lifecycle != Lifecycle::Pending;
        (usize::MAX - crowd, is_current, is_running, member.launched, member.instance_id.clone())
    };
    let open = members.iter_mut().filter(|member| is_alive(member) && !member.record.is_protected);
    open.min_by_key(|member| rank(&member.record))
}
