//! Managed node groups: an Auto Scaling group that is as the node group says, and nodes that are emptied before they go.

use kinds::{CONFIG_MAPS, NODES, PODS};
use object::{Change, Event, Object, Snapshot, Time};
use plan::{Expect, Write};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::role_mapping::{self, For};
use super::{Clusters, InCluster, Plan, node_repair, ready, rollout};
use crate::Context;
use crate::autoscaling::{self, Group, Lifecycle, Member, Owner, Tag, members};
use crate::ec2::record::Subnet;
use crate::eks::{
    AccessEntry, ClusterRecord, Issue, NodeGroup, NodeGroupRecord, Phase, UpdateError, UpdateRecord,
};
use crate::state::{self, Kept, Record};

/// How long nodes may take to join, and pods to leave one.
pub(super) const JOIN_PATIENCE_SECS: i64 = 15 * 60;
pub(super) const DRAIN_PATIENCE_SECS: i64 = 15 * 60;
/// The same for pods of a group that is deleted.
const DELETION_PATIENCE_SECS: i64 = 5 * 60;
/// How long a node stays that is to go and empty: what was begun through its machine, by the API server say, comes to its end.
const LINGER_SECS: i64 = 3;
/// How often an eviction that a budget refuses is tried again.
const DRAIN_AGAIN_MILLIS: i64 = 500;

/// Nodes that are about to be replaced get no traffic of load balancers.
pub(super) const NOT_BALANCED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Decides what a node group should do next.
pub fn reconcile(context: &mut Context, clusters: &Clusters, cluster: &str, name: &str) -> Plan {
    let mut plan = Plan::default();
    let Some(record) = state::get::<NodeGroupRecord>(context.state, cluster, name) else { return plan };
    let group_name = record.record.group_name().to_owned();
    let group = state::get::<Group>(context.state, "", &group_name);
    let nodes = clusters(cluster);
    drain(context, &mut plan, nodes.as_ref(), &record.record, &group_name);
    if record.record.shown.status == "DELETING" {
        return delete(context, plan, nodes.as_ref(), record, group);
    }
    let Some(group) = group else {
        let group = made(context, &record.record);
        plan.changes.create("", &group_name, &group);
        return plan;
    };
    let Some(nodes) = nodes else { return plan };
    let all = members(context.state, &group_name);
    let look = Look { now: context.now, nodes: &nodes, members: &all };
    if record.record.update_id.is_empty() {
        node_repair::repair(&mut plan, context.now, &nodes, &record.record, &all);
        let mapping = unmapped(context, &nodes, &record.record);
        let is_mapped = mapping.is_none();
        plan.in_cluster.extend(mapping.map(InCluster::Write));
        watch(&mut plan, record, &group, &look, is_mapped);
    } else if let Some(update) = state::get::<UpdateRecord>(context.state, cluster, &record.record.update_id)
    {
        if update.record.shown.r#type == "VersionUpdate" {
            rollout::roll(&mut plan, record, group, update, &look);
        } else {
            configure(&mut plan, record, group, update, &look);
        }
    }
    plan
}

/// Whether a change in a cluster concerns its node groups while their nodes come and go: nodes, pods that are gone from them, and who is
/// taken for a node.
pub fn is_concerned(event: &Event) -> bool {
    match event.key().resource {
        NODES | CONFIG_MAPS => true,
        PODS => event.change == Change::Deleted,
        _ => false,
    }
}

/// What is true of a group's nodes.
pub(super) struct Look<'a> {
    pub now: Time,
    pub nodes: &'a Snapshot,
    pub members: &'a [Kept<Member>],
}

impl Look<'_> {
    pub fn alive(&self) -> impl Iterator<Item = &Kept<Member>> {
        self.members.iter().filter(|member| !member.record.lifecycle.is_terminating())
    }

    pub fn is_ready(&self, member: &Member) -> bool {
        member.lifecycle == Lifecycle::InService
            && !member.is_unhealthy
            && self.node(member).is_some_and(ready::is_ready)
    }

    pub fn node(&self, member: &Member) -> Option<&Object> {
        self.nodes.find(NODES, "", &member.node_name).map(|node| &**node)
    }

    /// Whether there are as many nodes as are wanted, all Ready, and none on its way out.
    pub fn is_settled(&self, desired: u32) -> bool {
        self.members.len() == desired as usize
            && self.members.iter().all(|member| self.is_ready(&member.record))
    }

    fn issues(&self, group: &Group) -> Vec<Issue> {
        let launch = Some(&group.problem).filter(|problem| !problem.is_empty()).map(|problem| Issue {
            code: "AsgInstanceLaunchFailures".into(),
            message: problem.clone(),
            resource_ids: vec![group.name.clone()],
        });
        let failed = self.alive().filter(|member| !member.record.problem.is_empty());
        let failed = failed.map(|member| Issue {
            code: "NodeCreationFailure".into(),
            message: member.record.problem.clone(),
            resource_ids: vec![member.record.instance_id.clone()],
        });
        launch.into_iter().chain(failed).collect()
    }
}

/// What maps the role of a group that is being made to nodes, where the cluster reads that and does not have it yet. Whoever takes it away
/// later means it.
fn unmapped(context: &Context, nodes: &Snapshot, record: &NodeGroupRecord) -> Option<Write> {
    let shown = Some(&record.shown).filter(|shown| shown.status == "CREATING")?;
    let cluster = state::get::<ClusterRecord>(context.state, "", &shown.cluster_name)?;
    role_mapping::add(&cluster.record, nodes, &shown.node_role, For::Nodes)
}

/// The group that EKS makes for a node group.
fn made(context: &mut Context, record: &NodeGroupRecord) -> Group {
    let shown = &record.shown;
    let uuid = context.ids.uuid();
    let tag =
        |key: String, value: &str, propagate_at_launch| Tag { key, value: value.into(), propagate_at_launch };
    let cluster = &shown.cluster_name;
    let zone = |id: &String| {
        state::get::<Subnet>(context.state, "", id).map(|subnet| subnet.record.availability_zone)
    };
    Group {
        name: record.group_name().into(),
        arn: autoscaling::arn(context.region, context.account, &uuid, record.group_name()),
        created: context.now,
        min: shown.scaling_config.min_size,
        max: shown.scaling_config.max_size,
        desired: shown.scaling_config.desired_size,
        template: record.template.clone(),
        instance_type: shown.instance_types.iter().flatten().next().cloned(),
        subnets: shown.subnets.iter().filter_map(|id| Some((id.clone(), zone(id)?))).collect(),
        suspended: Vec::new(),
        tags: vec![
            tag("eks:cluster-name".into(), cluster, true),
            tag("eks:nodegroup-name".into(), &shown.nodegroup_name, true),
            tag("aws:eks:cluster-name".into(), cluster, true),
            tag(format!("kubernetes.io/cluster/{cluster}"), "owned", true),
            tag("k8s.io/cluster-autoscaler/enabled".into(), "true", true),
            tag(format!("k8s.io/cluster-autoscaler/{cluster}"), "owned", true),
        ],
        protects_new: false,
        is_deleting: false,
        owner: Owner { cluster: cluster.clone(), node_group: shown.nodegroup_name.clone() },
        problem: String::new(),
    }
}

/// Empties the nodes that are to go; the machines of those that are empty may go. What is on them is known only while the cluster runs.
fn drain(
    context: &Context,
    plan: &mut Plan,
    nodes: Option<&Snapshot>,
    record: &NodeGroupRecord,
    group: &str,
) {
    // An update that is not forced gives up instead of what is left on an old node: `rollout` ends it.
    let is_replacing = record.rollout.is_some_and(|rollout| rollout.phase == Phase::Replacing);
    let is_patient = is_replacing && !record.force;
    let leaving = members(context.state, group).into_iter();
    let leaving: Vec<_> = leaving.filter(|one| one.record.lifecycle == Lifecycle::TerminatingWait).collect();
    // All of them first: what is evicted from one must not go to another.
    for member in &leaving {
        if let Some(node) = nodes.and_then(|nodes| nodes.find(NODES, "", &member.record.node_name)) {
            cordon(plan, node, record.rollout.is_some());
        }
    }
    for mut member in leaving {
        if nodes.is_none()
            && context.state.find(ClusterRecord::RESOURCE, "", &record.shown.cluster_name).is_some()
        {
            plan.wake(context.now.plus_millis(DRAIN_AGAIN_MILLIS));
            continue;
        }
        let node = nodes.and_then(|nodes| Some((nodes, nodes.find(NODES, "", &member.record.node_name)?)));
        let patience =
            if record.shown.status == "DELETING" { DELETION_PATIENCE_SECS } else { DRAIN_PATIENCE_SECS };
        let is_over = !is_patient && context.now >= member.record.since.plus_secs(patience);
        let left = match node {
            Some((nodes, node)) if !is_over => empty(plan, nodes, node),
            _ => 0,
        };
        let is_lingering = node.is_some()
            && record.shown.status != "DELETING"
            && context.now < member.record.since.plus_secs(LINGER_SECS);
        if left == 0 && !is_lingering {
            member.record.lifecycle = Lifecycle::TerminatingProceed;
            member.record.since = context.now;
            plan.changes.update(&member);
        } else {
            plan.wake(context.now.plus_millis(DRAIN_AGAIN_MILLIS));
        }
    }
}

/// Evicts what is on a node. How much keeps it from going: its pods, and that more may come as long as it is not seen cordoned.
fn empty(plan: &mut Plan, nodes: &Snapshot, node: &Object) -> usize {
    let mut left = usize::from(!is_cordoned(node));
    for pod in nodes.list_by_field(PODS, &node.key.name) {
        if !must_leave(pod) {
            continue;
        }
        left += 1;
        if !pod.meta.is_deleting() {
            plan.in_cluster.push(InCluster::Evict(pod.key.clone()));
        }
    }
    left
}

fn is_cordoned(node: &Object) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct View {
        spec: Spec,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Spec {
        unschedulable: bool,
    }
    let View { spec } = node.decode().unwrap_or_default();
    spec.unschedulable
}

pub(super) fn cordon(plan: &mut Plan, node: &Object, is_replaced: bool) {
    let mut patch = Map::new();
    if !is_cordoned(node) {
        patch.insert("spec".into(), json!({"unschedulable": true}));
    }
    if is_replaced && node.meta.label(NOT_BALANCED).is_none() {
        patch.insert("metadata".into(), json!({"labels": {NOT_BALANCED: "true"}}));
    }
    if !patch.is_empty() {
        plan.in_cluster.push(merge(node, Value::Object(patch)));
    }
}

pub(super) fn merge(node: &Object, patch: Value) -> InCluster {
    let expect = Expect::same(node);
    InCluster::Write(Write::Merge { key: node.key.clone(), expect, subresource: "", patch })
}

/// Pods of DaemonSets go with their node, as do those that have ended and those that the node itself brought.
fn must_leave(pod: &Object) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct View {
        metadata: Metadata,
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Metadata {
        owner_references: Vec<Owner>,
        annotations: std::collections::BTreeMap<String, String>,
    }
    #[derive(Deserialize)]
    struct Owner {
        kind: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        phase: String,
    }
    let View { metadata, status } = pod.decode().unwrap_or_default();
    let is_of_daemon_set = metadata.owner_references.iter().any(|owner| owner.kind == "DaemonSet");
    let is_mirror = metadata.annotations.contains_key("kubernetes.io/config.mirror");
    !is_of_daemon_set && !is_mirror && !matches!(status.phase.as_str(), "Succeeded" | "Failed")
}

fn delete(
    context: &Context,
    mut plan: Plan,
    nodes: Option<&Snapshot>,
    record: Kept<NodeGroupRecord>,
    group: Option<Kept<Group>>,
) -> Plan {
    match group {
        Some(mut group) if !group.record.is_deleting => {
            (group.record.min, group.record.desired, group.record.is_deleting) = (0, 0, true);
            plan.changes.update(&group);
        }
        Some(_) => {}
        None => {
            let until = record.record.shown.modified_at.plus_secs(DRAIN_PATIENCE_SECS);
            let mapping = nodes.and_then(|nodes| mapping_to_forget(context, nodes, &record.record));
            if let Some(write) = mapping.filter(|_| context.now < until) {
                // The group is there until it is done: somebody else may be writing.
                plan.in_cluster.push(InCluster::Write(write));
                plan.wake(context.now.plus_millis(DRAIN_AGAIN_MILLIS));
                return plan;
            }
            forget_entry(context, &mut plan, &record.record);
            crate::eks::remove_template(context, &mut plan.changes, &record.record);
            plan.changes.delete(&record);
        }
    }
    plan
}

/// Whether another group of the cluster has the same role.
fn is_role_shared(context: &Context, record: &NodeGroupRecord) -> bool {
    let shown = &record.shown;
    state::list::<NodeGroupRecord>(context.state, &shown.cluster_name).iter().any(|other| {
        other.record.shown.node_role == shown.node_role
            && other.record.shown.nodegroup_name != shown.nodegroup_name
    })
}

/// The mapping of its role goes with the last group that has it, and with it whatever nodes else have it.
fn mapping_to_forget(context: &Context, nodes: &Snapshot, record: &NodeGroupRecord) -> Option<Write> {
    let cluster = state::get::<ClusterRecord>(context.state, "", &record.shown.cluster_name)?;
    let mapping = role_mapping::remove(&cluster.record, nodes, &record.shown.node_role, For::Nodes)?;
    (!is_role_shared(context, record)).then_some(mapping)
}

/// The access entry that was made for the group's nodes goes with the last group of its role.
fn forget_entry(context: &Context, plan: &mut Plan, record: &NodeGroupRecord) {
    let entry = state::get::<AccessEntry>(context.state, &record.shown.cluster_name, &record.shown.node_role);
    let entry = entry.filter(|entry| entry.record.r#type == "EC2_LINUX");
    if let Some(entry) = entry.filter(|_| !is_role_shared(context, record)) {
        plan.changes.delete(&entry);
    }
}

/// Without an update: what the group does by itself is told, and whether all is well.
fn watch(
    plan: &mut Plan,
    mut record: Kept<NodeGroupRecord>,
    group: &Kept<Group>,
    look: &Look,
    is_mapped: bool,
) {
    let before = record.record.clone();
    let shown = &mut record.record.shown;
    let group = &group.record;
    (shown.scaling_config.min_size, shown.scaling_config.max_size, shown.scaling_config.desired_size) =
        (group.min, group.max, group.desired);
    let mut issues = look.issues(group);
    if shown.status == "CREATING" {
        let until = shown.created_at.plus_secs(JOIN_PATIENCE_SECS);
        let is_settled = look.is_settled(group.desired);
        if is_settled && is_mapped {
            shown.status = "ACTIVE".into();
        } else if look.now >= until {
            shown.status = "CREATE_FAILED".into();
            issues.push(if is_settled { not_mapped(shown) } else { not_joined(look) });
        } else {
            plan.wake(until);
        }
    } else if shown.status != "CREATE_FAILED" {
        shown.status = if issues.is_empty() { "ACTIVE".into() } else { "DEGRADED".into() };
    }
    if shown.status != "CREATE_FAILED" || !issues.is_empty() {
        shown.health.issues = issues;
    }
    if record.record != before {
        plan.changes.update(&record);
    }
}

fn not_joined(look: &Look) -> Issue {
    Issue {
        code: "NodeCreationFailure".into(),
        message: "Instances failed to join the kubernetes cluster".into(),
        resource_ids: look.alive().map(|member| member.record.instance_id.clone()).collect(),
    }
}

fn not_mapped(shown: &NodeGroup) -> Issue {
    Issue {
        code: "AccessDenied".into(),
        message:
            "The node role could not be written into the ConfigMap aws-auth: see what refuses writes to it"
                .into(),
        resource_ids: vec![shown.node_role.clone()],
    }
}

/// An update of the configuration: the group gets its sizes, the nodes there are their labels and taints.
fn configure(
    plan: &mut Plan,
    mut record: Kept<NodeGroupRecord>,
    mut group: Kept<Group>,
    mut update: Kept<UpdateRecord>,
    look: &Look,
) {
    let sizes = record.record.shown.scaling_config;
    let wanted = (sizes.min_size, sizes.max_size, sizes.desired_size);
    let template = &record.record.template;
    let has = &mut group.record;
    if (has.min, has.max, has.desired) != wanted || has.template != *template {
        (has.min, has.max, has.desired) = wanted;
        has.template.clone_from(template);
        plan.changes.update(&group);
        return;
    }
    let mut is_done = look.is_settled(sizes.desired_size);
    for member in look.alive() {
        let Some(node) = look.nodes.find(NODES, "", &member.record.node_name) else { continue };
        if let Some(patch) = labels_and_taints(node, &record.record, &update.record) {
            plan.in_cluster.push(merge(node, patch));
            is_done = false;
        }
    }
    if is_done {
        end(plan, &mut record, &mut update, None);
    }
}

/// What is missing on a node of the group's labels and taints, and what the update takes away.
fn labels_and_taints(node: &Object, record: &NodeGroupRecord, update: &UpdateRecord) -> Option<Value> {
    let removed = |kind: &str| -> Value {
        let param = update.shown.params.iter().find(|param| param.r#type == kind);
        param.and_then(|param| serde_json::from_str(&param.value).ok()).unwrap_or_default()
    };
    let value = node.to_value().ok()?;
    let mut labels = Map::new();
    for (key, wanted) in &record.shown.labels {
        if value["metadata"]["labels"][key] != json!(wanted) {
            labels.insert(key.clone(), json!(wanted));
        }
    }
    for key in removed("LabelsToRemove").as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !record.shown.labels.contains_key(key) && !value["metadata"]["labels"][key].is_null() {
            labels.insert(key.to_owned(), Value::Null);
        }
    }
    let held = value["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let mut taints = held.clone();
    let same = |taint: &Value, key: &str, effect: &str| taint["key"] == key && taint["effect"] == effect;
    for gone in removed("TaintsToRemove").as_array().into_iter().flatten() {
        let parsed: Result<crate::eks::Taint, _> = serde_json::from_value(gone.clone());
        if let Ok(gone) = parsed {
            taints.retain(|taint| !same(taint, &gone.key, gone.kubernetes_effect()));
        }
    }
    for wanted in &record.shown.taints {
        let effect = wanted.kubernetes_effect();
        let mut new = json!({"key": wanted.key, "effect": effect});
        if !wanted.value.is_empty() {
            new["value"] = wanted.value.as_str().into();
        }
        match taints.iter_mut().find(|taint| same(taint, &wanted.key, effect)) {
            Some(held) if held["value"] == new["value"] => {}
            Some(held) => *held = new,
            None => taints.push(new),
        }
    }
    let mut patch = Map::new();
    if !labels.is_empty() {
        patch.insert("metadata".into(), json!({"labels": labels}));
    }
    if taints != held {
        patch.insert("spec".into(), json!({"taints": taints}));
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

pub(super) fn end(
    plan: &mut Plan,
    record: &mut Kept<NodeGroupRecord>,
    update: &mut Kept<UpdateRecord>,
    error: Option<UpdateError>,
) {
    update.record.shown.status = if error.is_some() { "Failed".into() } else { "Successful".into() };
    update.record.shown.errors = error.into_iter().collect();
    record.record.update_id = String::new();
    (record.record.before, record.record.rollout) = (None, None);
    record.record.force = false;
    record.record.shown.status = "ACTIVE".into();
    plan.changes.update(update);
    plan.changes.update(record);
}
