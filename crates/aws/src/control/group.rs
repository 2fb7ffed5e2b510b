//! Auto Scaling groups: as many instances as are wanted, spread over the zones, each of them healthy.

use std::collections::BTreeMap;

use crate::Context;
use crate::autoscaling::{Activity, Group, Lifecycle, Member, begin_activity, members};
use crate::state::{self, Changes, Kept};

use super::Plan;

/// Instances that one pass starts; the next pass goes on.
const MOST_AT_ONCE: usize = 32;

/// Decides what a group should do next.
pub fn reconcile(context: &mut Context, name: &str) -> Plan {
    let mut plan = Plan::default();
    let Some(group) = state::get::<Group>(context.state, "", name) else { return plan };
    let members = members(context.state, name);
    let changes = &mut plan.changes;
    if group.record.is_deleting && members.is_empty() {
        state::list::<Activity>(context.state, name).iter().for_each(|activity| changes.delete(activity));
        changes.delete(&group);
        return plan;
    }
    let (sick, mut alive): (Vec<_>, Vec<_>) = members
        .into_iter()
        .filter(|member| !member.record.lifecycle.is_terminating())
        .partition(|member| member.record.is_unhealthy && !group.record.is_suspended("ReplaceUnhealthy"));
    for member in sick {
        // There is nothing to be emptied on what is broken.
        let cause =
            "an instance was taken out of service in response to an EC2 instance status checks failure.";
        terminate(context, changes, &group.record, member, Lifecycle::TerminatingProceed, cause.to_owned());
    }
    let desired = group.record.desired as usize;
    if alive.len() < desired && !group.record.is_suspended("Launch") {
        let missing = (desired - alive.len()).min(MOST_AT_ONCE);
        let cause = format!(
            "an instance was started in response to a difference between desired and actual capacity, increasing the capacity from {} to {desired}.",
            alive.len()
        );
        for _ in 0..missing {
            let Some(member) = new_member(context, &group.record, &alive) else { break };
            changes.create(name, &member.instance_id, &member);
            begin_activity(context, changes, &group.record, &member, "Launching a new", cause.clone());
            let key =
                object::Key::new(<Member as state::Record>::RESOURCE, name, member.instance_id.as_str());
            alive.push(Kept { key, revision: 0, record: member });
        }
    } else if alive.len() > desired && !group.record.is_suspended("Terminate") {
        let cause = format!(
            "an instance was taken out of service in response to a difference between desired and actual capacity, shrinking the capacity from {} to {desired}.",
            alive.len()
        );
        for _ in desired..alive.len() {
            let Some(place) = victim(&group.record, &alive) else { break };
            let member = alive.remove(place);
            terminate(context, changes, &group.record, member, Lifecycle::TerminatingWait, cause.clone());
        }
    }
    plan
}

fn terminate(
    context: &mut Context,
    changes: &mut Changes,
    group: &Group,
    mut member: Kept<Member>,
    to: Lifecycle,
    cause: String,
) {
    begin_activity(context, changes, group, &member.record, "Terminating", cause);
    // One that never ran has nothing to be emptied either.
    let was_pending = member.record.lifecycle == Lifecycle::Pending;
    member.record.lifecycle = if was_pending { Lifecycle::TerminatingProceed } else { to };
    member.record.since = context.now;
    changes.update(&member);
}

/// In the zone that has the fewest.
fn new_member(context: &mut Context, group: &Group, alive: &[Kept<Member>]) -> Option<Member> {
    let in_zone = |zone: &str| alive.iter().filter(|member| member.record.zone == zone).count();
    let (subnet, zone) = group.subnets.iter().min_by_key(|(_, zone)| in_zone(zone))?;
    Some(Member {
        instance_id: context.ids.resource("i"),
        instance_type: group.instance_type.clone(),
        subnet_id: subnet.clone(),
        zone: zone.clone(),
        template: group.template.clone(),
        lifecycle: Lifecycle::Pending,
        since: context.now,
        is_unhealthy: false,
        is_protected: group.protects_new,
        launched: context.now,
        private_ip: None,
        node_name: String::new(),
        problem: String::new(),
    })
}

/// Of the zone that has the most: what is of an older template, then what is still starting, then what is oldest.
/// <https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-termination-policies.html>
fn victim(group: &Group, alive: &[Kept<Member>]) -> Option<usize> {
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    for member in alive {
        *zones.entry(&member.record.zone).or_default() += 1;
    }
    let rank = |member: &Member| {
        let is_current = member.template == group.template;
        let crowd = zones.get(member.zone.as_str()).copied().unwrap_or_default();
        let is_running = member.lifecycle != Lifecycle::Pending;
        (usize::MAX - crowd, is_current, is_running, member.launched, member.instance_id.clone())
    };
    let open = alive.iter().enumerate().filter(|(_, member)| !member.record.is_protected);
    open.min_by_key(|(_, member)| rank(&member.record)).map(|(place, _)| place)
}
