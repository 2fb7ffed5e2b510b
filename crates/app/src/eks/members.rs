//! Instances of Auto Scaling groups as machines of this site.

use std::sync::PoisonError;

use aws::autoscaling::{self, Group, Lifecycle, Member};
use aws::eks::NodeGroupRecord;
use aws::state::{self, Changes, Kept};
use aws::{Context, ec2};
use object::{Key, Time};
use tracing::{info, warn};

use super::keeper::{Failure, Keeper};
use crate::cluster::now;
use crate::daemon::{Daemon, DaemonError};
use crate::network::Placed;
use crate::nodes::{self, Node};

/// How often a machine that should run is looked at.
const LOOK_MILLIS: i64 = 1_000;

/// Brings the machine of one instance to where its record wants it.
pub async fn keep(keeper: &Keeper, daemon: &Daemon, key: &Key) -> Result<Option<Time>, Failure> {
    let state = keeper.account.snapshot();
    let Some(member) = state::get::<Member>(&state, &key.namespace, &key.name) else { return Ok(None) };
    let Some(group) = state::get::<Group>(&state, "", &key.namespace) else { return Ok(None) };
    match member.record.lifecycle {
        Lifecycle::TerminatingWait => Ok(None),
        Lifecycle::TerminatingProceed => {
            remove(keeper, daemon, &group, &member).await?;
            Ok(None)
        }
        Lifecycle::Pending | Lifecycle::InService if member.record.is_unhealthy => Ok(None),
        Lifecycle::Pending | Lifecycle::InService => run(keeper, daemon, &state, &group, &member).await,
    }
}

async fn run(
    keeper: &Keeper,
    daemon: &Daemon,
    state: &object::Snapshot,
    group: &Kept<Group>,
    member: &Kept<Member>,
) -> Result<Option<Time>, Failure> {
    let (id, owner) = (&member.record.instance_id, &group.record.owner);
    let again = Some(now().plus_millis(LOOK_MILLIS));
    let clusters = daemon.clusters.lock().await;
    // A cluster that was stopped has no machines, and wants none.
    let Some(cluster) = clusters.get(&owner.cluster) else { return Ok(again) };
    let Some(spec) = daemon.site.cluster(&owner.cluster)?.filter(|spec| spec.up) else { return Ok(again) };
    let machine = daemon.machines.machine(id).map_err(DaemonError::from)?;
    let is_in_service = member.record.lifecycle == Lifecycle::InService;
    if is_in_service && keeper.seen.lock().unwrap_or_else(PoisonError::into_inner).contains(id) {
        if machine.running().is_none() {
            info!(instance = id, "the machine of an instance has ended");
            change(keeper, member, |member, _| member.is_unhealthy = true).await?;
        }
        return Ok(again);
    }
    // One that ran in an earlier life of the daemon, or of the host, is brought back as it was.
    let node_group = state::get::<NodeGroupRecord>(state, &owner.cluster, &owner.node_group);
    let server = daemon.place(&owner.cluster).await?;
    let wanted = nodes::Wanted { site: &daemon.site, machines: &daemon.machines, spec: &spec, server };
    let region = keeper.account.identity.region.clone();
    let mut placed = None;
    let zone = member.record.zone.chars().last();
    let started = nodes::start_instance(&wanted, cluster, id, zone, |place| {
        let node = node(&region, &member.record, node_group.as_ref().map(|kept| &kept.record), place);
        placed = Some((place.link.address, node.name.clone()));
        node
    });
    if let Err(failure) = started.await {
        warn!(instance = id, %failure, "an instance could not be launched");
        let problem = failure.to_string();
        change(keeper, member, |member, _| member.problem.clone_from(&problem)).await?;
        return Err(failure.into());
    }
    drop(clusters);
    keeper.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
    change(keeper, member, |member, now| {
        if let Some((address, name)) = &placed {
            member.private_ip = Some(*address);
            member.node_name.clone_from(name);
        }
        member.problem = String::new();
        if member.lifecycle == Lifecycle::Pending {
            member.lifecycle = Lifecycle::InService;
            member.since = now;
        }
    })
    .await?;
    Ok(again)
}

/// What the node of an instance is called and told, as EKS does it.
fn node(region: &str, member: &Member, group: Option<&NodeGroupRecord>, place: &Placed) -> Node {
    let dashed = place.link.address.to_string().replace('.', "-");
    let domain =
        if region == "us-east-1" { "ec2.internal".into() } else { format!("{region}.compute.internal") };
    let mut options =
        vec!["--provider-id".to_owned(), format!("aws:///{}/{}", member.zone, member.instance_id)];
    let mut label = |key: &str, value: &str| options.extend(["--label".to_owned(), format!("{key}={value}")]);
    label("topology.kubernetes.io/region", region);
    label("topology.kubernetes.io/zone", &member.zone);
    label("failure-domain.beta.kubernetes.io/region", region);
    label("failure-domain.beta.kubernetes.io/zone", &member.zone);
    label("node.kubernetes.io/instance-type", &member.instance_type);
    label("beta.kubernetes.io/instance-type", &member.instance_type);
    if let Some(group) = group {
        let shown = &group.shown;
        label("eks.amazonaws.com/nodegroup", &shown.nodegroup_name);
        label("eks.amazonaws.com/capacityType", &shown.capacity_type);
        label("eks.amazonaws.com/nodegroup-image", &shown.release_version);
        label("eks.amazonaws.com/sourceLaunchTemplateId", &member.template.id);
        label("eks.amazonaws.com/sourceLaunchTemplateVersion", &member.template.version);
        for (key, value) in &shown.labels {
            label(key, value);
        }
        for taint in &shown.taints {
            let value = if taint.value.is_empty() { String::new() } else { format!("={}", taint.value) };
            options.extend([
                "--taint".to_owned(),
                format!("{}{value}:{}", taint.key, taint.kubernetes_effect()),
            ]);
        }
        if let Some((_, minor)) = shown.version.split_once('.') {
            options.extend(["--minor".to_owned(), minor.to_owned()]);
        }
    }
    if let Ok(kind) = ec2::instance_type::asked(&member.instance_type) {
        options.extend(["--cpu-milli".to_owned(), (u64::from(kind.cpus) * 1_000).to_string()]);
        options.extend(["--memory-bytes".to_owned(), (u64::from(kind.memory_mib) << 20).to_string()]);
        options.extend(["--max-pods".to_owned(), kind.max_pods().min(110).to_string()]);
    }
    Node { name: format!("ip-{dashed}.{domain}"), options }
}

async fn remove(
    keeper: &Keeper,
    daemon: &Daemon,
    group: &Kept<Group>,
    member: &Kept<Member>,
) -> Result<(), Failure> {
    let (cluster, id) = (&group.record.owner.cluster, &member.record.instance_id);
    nodes::remove_instance(&daemon.site, &daemon.machines, cluster, id).await?;
    if let Some(cluster) =
        daemon.clusters.lock().await.get(cluster).filter(|_| !member.record.node_name.is_empty())
    {
        cluster.remove_node_of(&member.record.node_name, id).await?;
    }
    keeper.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    let gone = |context: &mut Context| {
        let mut changes = Changes::default();
        if let Some(member) = state::get::<Member>(context.state, &member.key.namespace, id) {
            autoscaling::finish_activity(context, &mut changes, &group.record.name, id);
            changes.delete(&member);
        }
        changes
    };
    keeper.account.change(gone).await?;
    Ok(())
}

/// Changes a member that is still there.
async fn change(
    keeper: &Keeper,
    member: &Kept<Member>,
    apply: impl Fn(&mut Member, Time),
) -> Result<(), Failure> {
    let changed = |context: &mut Context| {
        let mut changes = Changes::default();
        let (group, id) = (&member.key.namespace, &member.key.name);
        if let Some(mut kept) = state::get::<Member>(context.state, group, id) {
            let before = kept.record.clone();
            apply(&mut kept.record, context.now);
            if kept.record != before {
                if kept.record.lifecycle != before.lifecycle {
                    autoscaling::finish_activity(context, &mut changes, group, id);
                }
                changes.update(&kept);
            }
        }
        changes
    };
    keeper.account.change(changed).await?;
    Ok(())
}
