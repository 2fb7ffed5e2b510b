//! `fargate-scheduler`: a machine for each pod of a Fargate profile, and the profiles' own coming and going.
//! <https://docs.aws.amazon.com/eks/latest/userguide/fargate.html>
//!
//! ```text
//! pod of a profile ─► a record of its machine (Starting) ─► the machine runs, its node is Ready ─► bound
//! pod is gone      ─► the record is Ending ─► the machine is removed, then its node, then the record
//! ```
//!
//! A pod that has ended is not gone: its machine stays, with its logs, and is paid for, until somebody deletes the pod.
//! <https://github.com/aws/containers-roadmap/issues/1284>
//!
//! The admission plugin `Fargate` has marked the pods. A pod that Fargate cannot run stays pending, and its condition says why.

mod capacity;
mod pod;
mod profile;

use std::collections::BTreeMap;

use kinds::{CONFIG_MAPS, NODES, PODS};
use object::{Key, Object, Snapshot, Time};
use plan::{Expect, Occurrence, Write};
use serde_json::{Value, json};

use super::ready::is_ready;
use super::{Clusters, InCluster, Plan};
use crate::ec2::launch::{Given, launch};
use crate::ec2::record::{FargateTask, Instance, State, Subnet, Wanted};
use crate::ec2::{place, quota};
use crate::eks::{
    AccessEntry, ClusterRecord, FargateNode, FargateProfile, FargateProfileRecord, FargateState, PodRef,
};
use crate::state::{self, Changes, Kept, Record};
use crate::{Context, Fault};
pub use capacity::Capacity;
use pod::Pod;
pub use pod::lacking;
pub use profile::profile_of;

/// Its name: what pods ask for, and what its events are from.
pub const SCHEDULER: &str = "fargate-scheduler";
/// The label of a pod, and its value on nodes besides.
const PROFILE_LABEL: &str = "eks.amazonaws.com/fargate-profile";
const SERVICE: &str = "eks-fargate-pods.amazonaws.com";
/// What its nodes are labelled and tainted with: a node is for its pod alone.
pub const COMPUTE_TYPE: (&str, &str) = ("eks.amazonaws.com/compute-type", "fargate");
/// How long a machine may take until its node is Ready; then another one is tried.
const PATIENCE_SECS: i64 = 5 * 60;
/// How soon a pod that cannot be started is looked at again: what it lacks may stand in the account.
const AGAIN_SECS: i64 = 15;

/// Decides what should happen to the pods on Fargate of one cluster.
pub fn reconcile(context: &mut Context, clusters: &Clusters, cluster: &str) -> Plan {
    let mut plan = Plan::default();
    let profiles = state::list::<FargateProfileRecord>(context.state, cluster);
    let nodes = state::list::<FargateNode>(context.state, cluster);
    let Some(record) = state::get::<ClusterRecord>(context.state, "", cluster) else { return plan };
    // What runs is known only while the cluster does.
    let Some(objects) = clusters(cluster) else { return plan };
    let look = Look { objects: &objects, cluster: &record, profiles: &profiles };
    for profile in &profiles {
        match profile.record.shown.status.as_str() {
            "CREATING" => profile::begin(&mut plan, &look, context, profile),
            "DELETING" => profile::end(&mut plan, &look, context, profile, &nodes),
            _ => {}
        }
    }
    for node in &nodes {
        follow(&mut plan, &look, context, node);
    }
    let mut room = None;
    for object in objects.list(PODS, "") {
        let is_placed = object.fields.first().is_some_and(|node| !node.is_empty());
        let is_served = || nodes.iter().any(|node| is_of(&node.record.pod, object));
        if is_placed || object.meta.is_deleting() || is_served() {
            continue;
        }
        let Some(pod) = Pod::read(object).filter(Pod::is_waiting) else { continue };
        let room = room.get_or_insert_with(|| Room::of(&look, context, &nodes));
        if provide(&mut plan, &look, context, object, &pod, room) {
            // Free addresses are looked up in the state: the next one is for the next run.
            plan.wake(context.now);
            break;
        }
    }
    plan
}

/// What is true of a cluster.
struct Look<'a> {
    objects: &'a Snapshot,
    cluster: &'a Kept<ClusterRecord>,
    profiles: &'a [Kept<FargateProfileRecord>],
}

/// What there is for one more machine. Looked up once a run, since any number of pods may be waiting.
struct Room<'a> {
    vcpus_milli: u64,
    /// Profiles whose role can start pods.
    launching: Vec<&'a str>,
    /// How many machines each subnet has.
    served: BTreeMap<&'a str, usize>,
}

impl<'a> Room<'a> {
    fn of(look: &Look<'a>, context: &Context, nodes: &'a [Kept<FargateNode>]) -> Self {
        let profiles = look.profiles.iter().map(|kept| &kept.record.shown);
        let launching =
            profiles.filter(|profile| profile::can_launch(look, context, &profile.pod_execution_role_arn));
        let mut served = BTreeMap::new();
        for node in nodes {
            *served.entry(node.record.subnet_id.as_str()).or_default() += 1;
        }
        Self {
            vcpus_milli: quota::fargate_milli_left(context),
            launching: launching.map(|profile| profile.fargate_profile_name.as_str()).collect(),
            served,
        }
    }
}

fn is_of(pod: &PodRef, object: &Object) -> bool {
    *object.meta.uid == *pod.uid
}

/// Follows the machine of a pod until the pod is on it, and lets it go with the pod.
fn follow(plan: &mut Plan, look: &Look, context: &Context, kept: &Kept<FargateNode>) {
    let mut kept = kept.clone();
    let instance = state::get::<Instance>(context.state, "", &kept.record.instance_id);
    let instance = instance.filter(|instance| {
        instance.record.state != State::Terminated || {
            plan.changes.delete(instance);
            false
        }
    });
    // One that has ended, whoever ended it, is of no more use to its pod: the pod goes with its node.
    let Some(instance) = instance else { return plan.changes.delete(&kept) };
    if kept.record.state == FargateState::Ending {
        return;
    }
    let object = look.objects.find(PODS, &kept.record.pod.namespace, &kept.record.pod.name);
    let object = object.filter(|object| is_of(&kept.record.pod, object));
    let Some((object, pod)) = object.and_then(|object| Some((object, Pod::read(object)?))) else {
        return let_go(plan, kept, instance);
    };
    if instance.record.wanted != Wanted::Running {
        return let_go(plan, kept, instance);
    }
    if kept.record.state == FargateState::Starting && instance.record.is_running() {
        kept.record.state = FargateState::Running;
        return plan.changes.update(&kept);
    }
    if !pod.spec.node_name.is_empty() {
        // Somebody else has bound it to another node: this one would wait for nothing.
        if pod.spec.node_name != kept.record.node_name {
            let_go(plan, kept, instance);
        }
        return;
    }
    // A pod that nobody has started is not waited for: whoever deletes it is rid of it at once.
    if object.meta.is_deleting() {
        return let_go(plan, kept, instance);
    }
    let is_there = look.objects.find(NODES, "", &kept.record.node_name).is_some_and(|held| {
        let value = held.to_value().unwrap_or_default();
        value["spec"]["providerID"] == *kept.record.provider_id && is_ready(held)
    });
    if is_there {
        return bind(plan, look.objects, object, &kept.record);
    }
    let until = kept.record.created.plus_secs(PATIENCE_SECS);
    if context.now >= until {
        let message = format!(
            "Pod provisioning timed out (will retry) for pod: {}/{}",
            object.key.namespace, object.key.name
        );
        carry_out(plan, Vec::new(), vec![occurrence(object, true, "FailedScheduling", message)]);
        return let_go(plan, kept, instance);
    }
    plan.wake(until);
}

fn let_go(plan: &mut Plan, mut kept: Kept<FargateNode>, mut instance: Kept<Instance>) {
    kept.record.state = FargateState::Ending;
    plan.changes.update(&kept);
    if instance.record.wanted != Wanted::Terminated {
        (instance.record.wanted, instance.record.state) = (Wanted::Terminated, State::ShuttingDown);
        plan.changes.update(&instance);
    }
}

/// The pod is told what it got, and is put on its node.
fn bind(plan: &mut Plan, objects: &Snapshot, object: &Object, node: &FargateNode) {
    let (logging, warning) = logging(objects);
    let capacity = Capacity { cpu_milli: node.cpu_milli, memory_mib: node.memory_mib };
    let annotations = json!({"CapacityProvisioned": capacity.to_string(), "Logging": logging});
    let told = Write::Merge {
        key: object.key.clone(),
        expect: Expect::same(object),
        subresource: "",
        patch: json!({"metadata": {"annotations": annotations}}),
    };
    let uid = object.meta.uid.clone();
    let bound = Write::Bind { pod: object.key.clone(), uid, node: node.node_name.as_str().into() };
    let Key { namespace, name, .. } = &object.key;
    let message = format!("Successfully assigned {namespace}/{name} to {}", node.node_name);
    carry_out(
        plan,
        vec![told, bound],
        vec![
            occurrence(object, true, "LoggingDisabled", warning.to_owned()),
            occurrence(object, false, "Scheduled", message),
        ],
    );
}

fn carry_out(plan: &mut Plan, writes: Vec<Write>, events: Vec<Occurrence>) {
    plan.in_cluster.push(InCluster::Do(plan::Plan { writes, events, wake_at: None }));
}

/// Orders the machine of a pod, or tells it why there will be none. Whether it was ordered.
fn provide(
    plan: &mut Plan,
    look: &Look,
    context: &mut Context,
    object: &Object,
    pod: &Pod,
    room: &Room,
) -> bool {
    let label = object.meta.label(PROFILE_LABEL).map(|label| (*label).to_owned()).unwrap_or_default();
    let profile =
        look.profiles.iter().map(|kept| &kept.record.shown).find(|one| *one.fargate_profile_name == *label);
    let Some(profile) = profile else {
        let message = if label.is_empty() {
            "Pod matches no Fargate profile".to_owned()
        } else {
            format!("Fargate profile {label} not found")
        };
        return refuse(plan, context.now, object, pod, "FARGATE_PROFILE_NOT_FOUND", message);
    };
    if profile.status != "ACTIVE" {
        return false;
    }
    // Its labels, and its scheduler's name, may be somebody's own words: admission marks only what matches.
    let labels = |name: &str| object.meta.label(name).map(str::to_owned);
    if !profile.matches(&object.key.namespace, &labels) {
        let message = format!("Pod does not match the selectors of Fargate profile {label}");
        return refuse(plan, context.now, object, pod, "FARGATE_PROFILE_NOT_FOUND", message);
    }
    if let Some(lacks) = pod.unsupported(look.objects, object) {
        // A claim may be bound later.
        plan.wake(context.now.plus_secs(AGAIN_SECS));
        let message = format!("Pod not supported on Fargate: {lacks}");
        return refuse(plan, context.now, object, pod, "POD_UNSUPPORTED_ON_FARGATE", message);
    }
    let Some(capacity) = pod::capacity(object) else {
        let message = "Your pod's cpu/memory requirements exceed the max Fargate configuration".to_owned();
        return refuse(plan, context.now, object, pod, "POD_CPU_MEM_EXCEEDS_MAX_FARGATE_SIZE", message);
    };
    if !room.launching.contains(&label.as_str()) {
        plan.wake(context.now.plus_secs(AGAIN_SECS));
        let message = format!(
            "Misconfigured Fargate Profile: fargate profile {label} blocked for new launches due to: Pod execution role is not found in auth config or does not have all required permissions for launching fargate pods."
        );
        return refuse(plan, context.now, object, pod, "FARGATE_PROFILE_BLOCKED", message);
    }
    let subnets = match subnets_for(context, pod, profile, &room.served) {
        Ok(subnets) => subnets,
        Err(unmatched) => {
            let message =
                format!("Pod not supported on Fargate: no node of profile {label} has the label {unmatched}");
            return refuse(plan, context.now, object, pod, "POD_UNSUPPORTED_ON_FARGATE", message);
        }
    };
    if u64::from(capacity.cpu_milli) > room.vcpus_milli {
        // Another cluster's pods may make room.
        plan.wake(context.now.plus_secs(AGAIN_SECS));
        return refuse(
            plan,
            context.now,
            object,
            pod,
            "FARGATE_VCPU_LIMIT_EXCEEDED",
            quota::fargate_reached(),
        );
    }
    match order(plan, look, context, object, profile, capacity, &subnets) {
        Ok(()) => true,
        Err(fault) => {
            plan.wake(context.now.plus_secs(AGAIN_SECS));
            let message = format!("Fargate capacity is unavailable at this time: {}", fault.message);
            refuse(plan, context.now, object, pod, "FARGATE_CAPACITY_UNAVAILABLE", message)
        }
    }
}

/// The subnets where a pod's node selector is met, those first that have the fewest machines; else what of it is met nowhere. Its node
/// would refuse it, and whoever made the pod would make the next one at once, each with a machine.
fn subnets_for<'a>(
    context: &Context,
    pod: &Pod,
    profile: &'a FargateProfile,
    served: &BTreeMap<&str, usize>,
) -> Result<Vec<&'a String>, String> {
    let mut unmatched = None;
    let mut subnets: Vec<&String> = Vec::new();
    for id in &profile.subnets {
        // One that is gone says so when it is asked for room.
        let subnet = state::get::<Subnet>(context.state, "", id);
        match subnet.and_then(|subnet| pod.unmatched(context.region, &subnet.record.availability_zone)) {
            Some(label) => unmatched = Some(label),
            None => subnets.push(id),
        }
    }
    subnets.sort_by_key(|subnet| served.get(subnet.as_str()));
    match unmatched {
        Some(unmatched) if subnets.is_empty() => Err(unmatched),
        _ => Ok(subnets),
    }
}

/// A machine in the first of these subnets that has room.
fn order(
    plan: &mut Plan,
    look: &Look,
    context: &mut Context,
    object: &Object,
    profile: &FargateProfile,
    capacity: Capacity,
    subnets: &[&String],
) -> Result<(), Fault> {
    let cluster = &look.cluster.record.shown;
    let input = json!({
        "ImageId": place::image_of_version(&cluster.version).map(|image| image.id), "InstanceType": "fargate",
        "SecurityGroupIds": [cluster.resources_vpc_config.cluster_security_group_id],
        "MetadataOptions": {"HttpEndpoint": "disabled"},
    });
    let mut failure = Fault::new("InvalidSubnetID.NotFound", "the profile has no subnets");
    for &subnet in subnets {
        let task = FargateTask {
            cluster: cluster.name.clone(),
            task: format!("{}-{}", context.ids.hex(10), context.ids.hex(32)),
            pod_uid: object.meta.uid.to_string(),
            cpu_milli: capacity.cpu_milli,
            memory_mib: capacity.memory_mib,
        };
        let mut changes = Changes::default();
        let given = Given { fargate: Some(task), ..Given::default() };
        let instance = match launch(context, &mut changes, &input, subnet, 1, given) {
            Ok(launched) => launched.into_iter().next(),
            Err(fault) => {
                failure = fault;
                continue;
            }
        };
        let Some(instance) = instance else { continue };
        let record = FargateNode {
            profile: profile.fargate_profile_name.clone(),
            pod: PodRef {
                namespace: object.key.namespace.to_string(),
                name: object.key.name.to_string(),
                uid: object.meta.uid.to_string(),
            },
            subnet_id: subnet.clone(),
            cpu_milli: capacity.cpu_milli,
            memory_mib: capacity.memory_mib,
            created: context.now,
            state: FargateState::Starting,
            node_name: instance.node_name().to_owned(),
            provider_id: instance.provider_id(),
            instance_id: instance.instance_id,
        };
        plan.changes.0.extend(changes.0);
        plan.changes.create(&cluster.name, &record.instance_id, &record);
        plan.changes.require(look.cluster);
        return Ok(());
    }
    Err(failure)
}

/// Whether a pod's logs go elsewhere: never here, since there is no log router and no CloudWatch.
fn logging(objects: &Snapshot) -> (&'static str, &'static str) {
    match objects.find(CONFIG_MAPS, "aws-observability", "aws-logging") {
        None => (
            "LoggingDisabled: LOGGING_CONFIGMAP_NOT_FOUND",
            "Disabled logging because aws-logging configmap was not found. configmap \"aws-logging\" not found",
        ),
        Some(_) => (
            "LoggingDisabled: LOGGING_NOT_SUPPORTED",
            "Disabled logging because Ekso has no log router for pods on Fargate",
        ),
    }
}

/// Writes down why a pod is not scheduled, and tells it once. No machine is ordered.
fn refuse(
    plan: &mut Plan,
    now: Time,
    object: &Object,
    pod: &Pod,
    reason: &'static str,
    message: String,
) -> bool {
    if pod.is_told(reason, &message) {
        return false;
    }
    let held = pod.status.conditions.iter().find(|one| one["type"] == "PodScheduled");
    let since = held.filter(|held| held["status"] == "False").map(|held| held["lastTransitionTime"].clone());
    let others = pod.status.conditions.iter().filter(|one| one["type"] != "PodScheduled").cloned();
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message, "lastProbeTime": null,
        "lastTransitionTime": since.unwrap_or_else(|| now.to_string().into()),
        "observedGeneration": object.meta.generation,
    });
    let conditions: Vec<Value> = others.chain([condition]).collect();
    let write = Write::Merge {
        key: object.key.clone(),
        expect: Expect::unchanged(object),
        subresource: "status",
        patch: json!({"status": {"conditions": conditions}}),
    };
    carry_out(plan, vec![write], vec![occurrence(object, true, "FailedScheduling", message)]);
    false
}

fn occurrence(pod: &Object, warning: bool, reason: &'static str, message: String) -> Occurrence {
    Occurrence {
        about: pod.key.clone(),
        api_version: "v1".into(),
        kind: "Pod".into(),
        uid: pod.meta.uid.clone(),
        field_path: "".into(),
        warning,
        reason,
        message,
    }
}

/// What Fargate would make of a pod that runs elsewhere.
pub enum WouldBe {
    Sized(Capacity),
    /// It could not run it.
    Refused,
    /// The pod does not run, or runs there already.
    Nothing,
}

/// What Fargate would make of a pod, be it meant for it or not.
pub fn would_be(objects: &Snapshot, object: &Object) -> WouldBe {
    let Some(pod) = Pod::read(object) else { return WouldBe::Nothing };
    let is_over = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
    if is_over || pod.spec.node_name.is_empty() || pod.spec.scheduler_name == SCHEDULER {
        return WouldBe::Nothing;
    }
    match pod::capacity(object) {
        Some(capacity) if pod.unsupported(objects, object).is_none() => WouldBe::Sized(capacity),
        _ => WouldBe::Refused,
    }
}

/// Whether a change in a cluster concerns its pods on Fargate.
pub fn is_concerned(changed: &Key) -> bool {
    [CONFIG_MAPS, NODES, PODS].contains(&changed.resource)
}

/// Whether a change in the account does.
pub fn is_concerned_by_account(changed: &Key, cluster: &str) -> bool {
    let own = [FargateNode::RESOURCE, FargateProfileRecord::RESOURCE, AccessEntry::RESOURCE];
    (own.contains(&changed.resource) && *changed.namespace == *cluster)
        || (changed.resource == ClusterRecord::RESOURCE && *changed.name == *cluster)
}

#[cfg(test)]
mod tests;
