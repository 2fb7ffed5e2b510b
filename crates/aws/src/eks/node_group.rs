//! Managed node groups: made, described, deleted. What changes them is in `node_group_update`.

use std::collections::BTreeMap;

use object::{Resource, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cluster::{self, ClusterRecord, Health, read};
use super::node_repair::NodeRepair;
use super::request::Request;
use super::subject::arn;
use super::update::text;
use super::{access_entry, fault, node_template, surroundings, tags, version};
use crate::ec2::place::HOST_IS_ARM;
use crate::state::{self, Changes, Kept, Record};
use crate::{Answer, Context, Fault};

/// Of a cluster, and nodes of a group.
const MOST: usize = 30;
const MOST_NODES: u32 = 450;
const MOST_TAINTS: usize = 50;
const NAME_CHARS: usize = 63;

const DEFAULT_TYPE: &str = if HOST_IS_ARM { "t4g.medium" } else { "t3.medium" };
const DEFAULT_DISK_GIB: u32 = 20;
/// The images that nodes are said to have: this binary's own, which is none of AWS's.
const IMAGE_X86: &str = "AL2023_x86_64_STANDARD";
const IMAGE_ARM: &str = "AL2023_ARM_64_STANDARD";
/// That of this host's processors, and the other one.
const IMAGE: &str = if HOST_IS_ARM { IMAGE_ARM } else { IMAGE_X86 };
const FOREIGN_IMAGE: &str = if HOST_IS_ARM { IMAGE_X86 } else { IMAGE_ARM };
/// That of a launch template which names an image.
const CUSTOM: &str = "CUSTOM";
/// Prefixes of labels that only AWS and Kubernetes set.
const RESERVED_LABELS: &[&str] = &["kubernetes.io/", "k8s.io/", "eks.amazonaws.com/"];

/// A node group in the account store; it belongs to its cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeGroupRecord {
    pub shown: NodeGroup,
    /// The update that is being carried out.
    #[serde(default)]
    pub update_id: String,
    /// Whether that one terminates nodes whose pods may not be evicted.
    #[serde(default)]
    pub force: bool,
    /// How far an update of the version is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// What it was before that update, and is again if the update fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Before>>,
    /// The template that EKS itself made of the group's settings; its nodes are of its newest version, or of an older one.
    pub template: Template,
    #[serde(default)]
    pub request: Request,
}

impl Record for NodeGroupRecord {
    const RESOURCE: Resource = Resource::new("nodegroups.eks");
}

impl NodeGroupRecord {
    /// The name of its Auto Scaling group.
    pub fn group_name(&self) -> &str {
        self.shown.resources.auto_scaling_groups.first().map_or("", |group| &group.name)
    }
}

/// An update that replaces nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// How many nodes more there are meanwhile.
    pub surge: u32,
    pub phase: Phase,
    /// While nodes are waited for, how long already.
    #[serde(default)]
    pub waiting: Option<Waiting>,
}

/// A wait for nodes that begins anew with each that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    pub since: Time,
    /// The most new nodes that were Ready meanwhile: one that comes and goes is none that comes.
    pub ready: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// New nodes come, and old ones go.
    Replacing,
    /// All are new; those that are too many go.
    Shrinking,
    /// It was given up: the old nodes take pods again.
    Failing,
}

/// What an update of the version changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Before {
    pub version: String,
    pub release_version: String,
    pub launch_template: Option<Template>,
    pub template: Template,
}

/// A launch template and one of its versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Template {
    pub id: String,
    pub name: String,
    pub version: String,
}

/// As `DescribeNodegroup` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeGroup {
    pub nodegroup_name: String,
    pub nodegroup_arn: String,
    pub cluster_name: String,
    /// `1.36`
    pub version: String,
    /// `1.36.0-20260422`
    pub release_version: String,
    pub created_at: Time,
    pub modified_at: Time,
    /// `CREATING`, `ACTIVE`, `UPDATING`, `DELETING`, `CREATE_FAILED`, `DELETE_FAILED`, `DEGRADED`
    pub status: String,
    /// `ON_DEMAND`, `SPOT`
    pub capacity_type: String,
    pub scaling_config: Scaling,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_types: Option<Vec<String>>,
    pub subnets: Vec<String>,
    pub ami_type: String,
    pub node_role: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub resources: Resources,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_size: Option<u32>,
    pub health: Health,
    pub update_config: UpdateConfig,
    #[serde(default)]
    pub node_repair_config: NodeRepair,
    /// The one that the user named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_template: Option<Template>,
    pub tags: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scaling {
    pub min_size: u32,
    pub max_size: u32,
    pub desired_size: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taint {
    pub key: String,
    #[serde(default)]
    pub value: String,
    /// `NO_SCHEDULE`, `NO_EXECUTE`, `PREFER_NO_SCHEDULE`
    pub effect: String,
}

impl Taint {
    /// As a node's taint calls it: `NoSchedule`.
    pub fn kubernetes_effect(&self) -> &'static str {
        match self.effect.as_str() {
            "NO_EXECUTE" => "NoExecute",
            "PREFER_NO_SCHEDULE" => "PreferNoSchedule",
            _ => "NoSchedule",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    pub auto_scaling_groups: Vec<Named>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
}

/// How many nodes an update may take away at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable_percentage: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<String>,
}

impl UpdateConfig {
    /// Of a group of so many nodes: one at least.
    pub fn nodes_at_once(&self, nodes: u32) -> u32 {
        let share = self.max_unavailable_percentage.map(|percent| {
            let share = u64::from(nodes) * u64::from(percent) / 100;
            u32::try_from(share).unwrap_or(nodes)
        });
        share.or(self.max_unavailable).unwrap_or(1).max(1)
    }
}

/// What `CreateNodegroup` reads of its input.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    cluster_name: String,
    nodegroup_name: String,
    #[serde(default)]
    scaling_config: ScalingRequest,
    disk_size: Option<u32>,
    subnets: Vec<String>,
    #[serde(default)]
    instance_types: Vec<String>,
    ami_type: Option<String>,
    node_role: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    taints: Vec<Taint>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    launch_template: Option<TemplateRequest>,
    #[serde(default)]
    update_config: UpdateConfig,
    #[serde(default)]
    node_repair_config: Value,
    capacity_type: Option<String>,
    version: Option<String>,
    release_version: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScalingRequest {
    pub min_size: Option<u32>,
    pub max_size: Option<u32>,
    pub desired_size: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct TemplateRequest {
    pub id: Option<String>,
    pub name: Option<String>,
    pub version: Option<String>,
}

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let asked: Create = read(input)?;
    let about = |fault: Fault| {
        fault
            .with("clusterName", asked.cluster_name.as_str())
            .with("nodegroupName", asked.nodegroup_name.as_str())
    };
    if let Some(known) =
        state::get::<NodeGroupRecord>(context.state, &asked.cluster_name, &asked.nodegroup_name)
    {
        if known.record.request.is_repeated_by(input) {
            return Ok(Answer::read(json!({"nodegroup": known.record.shown})));
        }
        let (name, cluster) = (&asked.nodegroup_name, &asked.cluster_name);
        let why = format!("NodeGroup already exists with name {name} and cluster name {cluster}");
        return Err(about(fault::in_use(why)));
    }
    let cluster = cluster::find_active(context, &asked.cluster_name)?;
    if state::list::<NodeGroupRecord>(context.state, &asked.cluster_name).len() >= MOST {
        return Err(about(fault::limit(format!(
            "Limit exceeded: at most {MOST} managed node groups per cluster"
        ))));
    }
    check(context, &cluster, &asked, input).map_err(about)?;
    let mut changes = Changes::default();
    let record = made(context, &mut changes, &cluster, &asked, input).map_err(about)?;
    access_entry::create_for_nodes(context, &mut changes, &cluster.record, &record.shown.node_role);
    changes.create(&asked.cluster_name, &asked.nodegroup_name, &record);
    changes.require(&cluster);
    Ok(Answer::write(json!({"nodegroup": record.shown}), changes))
}

fn check(
    context: &Context,
    cluster: &Kept<ClusterRecord>,
    asked: &Create,
    input: &Value,
) -> Result<(), Fault> {
    let name = asked.nodegroup_name.as_bytes();
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.len() > NAME_CHARS
        || !name.iter().all(fits)
        || !name.first().is_some_and(u8::is_ascii_alphanumeric)
    {
        return Err(fault::invalid(format!(
            "The nodegroup name {} must be letters, digits, '-' and '_', start with a letter or digit, and have at most {NAME_CHARS} characters",
            asked.nodegroup_name
        )));
    }
    for (is_asked, what) in [
        (!input["remoteAccess"].is_null(), "SSH access to nodes (remoteAccess)"),
        (asks_for_warm_pool(input), "A warm pool (warmPoolConfig)"),
        (asked.capacity_type.as_deref() == Some("CAPACITY_BLOCK"), "The capacity type CAPACITY_BLOCK"),
        (asked.capacity_type.as_deref() == Some("SPOT"), "The capacity type SPOT"),
    ] {
        if is_asked {
            return Err(fault::unsupported(what));
        }
    }
    match asked.ami_type.as_deref() {
        None | Some(IMAGE | CUSTOM) => {}
        Some(FOREIGN_IMAGE) => {
            let what = format!("The amiType {FOREIGN_IMAGE}, whose processors are not this host's,");
            return Err(fault::unsupported(&what));
        }
        Some(other) => return Err(fault::unsupported(&format!("The amiType {other}"))),
    }
    if asked.subnets.is_empty() {
        return Err(fault::invalid("The following supplied subnets are invalid: none was given"));
    }
    for id in &asked.subnets {
        if surroundings::subnet(context.state, id)?.record.vpc_id
            != cluster.record.shown.resources_vpc_config.vpc_id
        {
            return Err(fault::invalid(format!("Subnet {id} does not belong to the VPC of the cluster")));
        }
    }
    surroundings::check_node_role(context, &asked.node_role)?;
    for kind in &asked.instance_types {
        surroundings::check_instance_type(kind)?;
    }
    check_labels(asked.labels.iter())?;
    check_taints(&asked.taints)?;
    check_update_config(&asked.update_config)?;
    tags::check(&asked.tags)?;
    if asked.launch_template.is_some() && asked.disk_size.is_some() {
        return Err(fault::invalid("Disk size must be specified within the launch template."));
    }
    match &asked.version {
        Some(wanted) => check_version(cluster, wanted),
        None => Ok(()),
    }
}

/// Whether an input says anything of a warm pool but that there shall be none.
pub fn asks_for_warm_pool(input: &Value) -> bool {
    let said = input["warmPoolConfig"].as_object().into_iter().flatten();
    said.into_iter().any(|(member, value)| (member.as_str(), value) != ("enabled", &Value::Bool(false)))
}

/// Nodes are of the control plane's version, or of one before it.
fn check_version(cluster: &Kept<ClusterRecord>, wanted: &str) -> Result<(), Fault> {
    let current = &cluster.record.shown.version;
    match (version::find(current), version::find(wanted)) {
        (Some(plane), Some(nodes)) if nodes.minor <= plane.minor => Ok(()),
        _ => Err(fault::invalid(format!(
            "Requested Nodegroup Kubernetes version {wanted} is not valid for cluster version {current}"
        ))),
    }
}

/// A node group has so many nodes at most.
pub fn check_size(max_size: u32) -> Result<(), Fault> {
    if max_size > MOST_NODES {
        return Err(fault::invalid(format!("maxSize can't be greater than {MOST_NODES}")));
    }
    Ok(())
}

pub fn check_labels<'a>(labels: impl Iterator<Item = (&'a String, &'a String)>) -> Result<(), Fault> {
    for (key, value) in labels {
        if RESERVED_LABELS.iter().any(|prefix| key.starts_with(prefix)) {
            let prefixes = RESERVED_LABELS.join(", ");
            return Err(fault::invalid(format!("Label cannot contain reserved prefixes [{prefixes}]")));
        }
        let name = key.split_once('/').map_or(key.as_str(), |(_, name)| name);
        let fits = |text: &str| {
            text.len() <= 63
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if name.is_empty() || !fits(name) || !fits(value) {
            return Err(fault::invalid(format!("Label {key}={value} is not a valid Kubernetes label")));
        }
    }
    Ok(())
}

pub fn check_taints(taints: &[Taint]) -> Result<(), Fault> {
    if taints.len() > MOST_TAINTS {
        return Err(fault::invalid(format!("At most {MOST_TAINTS} taints can be specified")));
    }
    Ok(())
}

pub fn check_update_config(config: &UpdateConfig) -> Result<(), Fault> {
    if config.max_unavailable.is_some() && config.max_unavailable_percentage.is_some() {
        return Err(fault::invalid(
            "Only one of maxUnavailable and maxUnavailablePercentage can be specified",
        ));
    }
    if config.max_unavailable.is_some_and(|most| most > 100) {
        return Err(fault::invalid("maxUnavailable must be at most 100"));
    }
    Ok(())
}

/// The sizes that are asked for in place of those there are.
pub fn scaled(asked: &ScalingRequest, known: Scaling) -> Scaling {
    Scaling {
        min_size: asked.min_size.unwrap_or(known.min_size),
        max_size: asked.max_size.unwrap_or(known.max_size),
        desired_size: asked.desired_size.unwrap_or(known.desired_size),
    }
}

fn made(
    context: &mut Context,
    changes: &mut Changes,
    cluster: &Kept<ClusterRecord>,
    asked: &Create,
    input: &Value,
) -> Result<NodeGroupRecord, Fault> {
    let scaling = scaled(&asked.scaling_config, Scaling { min_size: 1, max_size: 2, desired_size: 2 });
    if scaling.min_size > scaling.desired_size {
        return Err(fault::invalid("minSize can't be greater than desiredSize"));
    }
    if scaling.desired_size > scaling.max_size {
        return Err(fault::invalid("desiredSize can't be greater than maxSize"));
    }
    check_size(scaling.max_size)?;
    let user_template = asked.launch_template.as_ref();
    let user_template = user_template.map(|wanted| node_template::of_user(context, wanted)).transpose()?;
    let given = node_template::data_of(context, user_template.as_ref())?;
    let has_image_type = asked.ami_type.as_deref().is_some_and(|kind| kind != CUSTOM);
    node_template::check_with(&given, !asked.instance_types.is_empty(), has_image_type)?;
    let (cluster_name, name) = (&asked.cluster_name, &asked.nodegroup_name);
    let uuid = context.ids.uuid();
    let version = asked.version.clone().unwrap_or_else(|| cluster.record.shown.version.clone());
    let release = release_of(&version, asked.release_version.as_deref())?;
    let types = if asked.instance_types.is_empty() && given["InstanceType"].is_null() {
        vec![DEFAULT_TYPE.to_owned()]
    } else {
        asked.instance_types.clone()
    };
    let mut shown = NodeGroup {
        nodegroup_name: name.clone(),
        nodegroup_arn: arn(context, &format!("nodegroup/{cluster_name}/{name}/{uuid}")),
        cluster_name: cluster_name.clone(),
        version,
        release_version: release,
        created_at: context.now,
        modified_at: context.now,
        status: "CREATING".into(),
        capacity_type: asked.capacity_type.clone().unwrap_or_else(|| "ON_DEMAND".into()),
        scaling_config: scaling,
        instance_types: Some(types).filter(|types| !types.is_empty()),
        subnets: asked.subnets.clone(),
        ami_type: if given["ImageId"].is_null() {
            asked.ami_type.clone().unwrap_or_else(|| IMAGE.into())
        } else {
            CUSTOM.to_owned()
        },
        node_role: asked.node_role.clone(),
        labels: asked.labels.clone(),
        taints: asked.taints.clone(),
        resources: Resources::default(),
        disk_size: match asked.launch_template {
            Some(_) => None,
            None => Some(asked.disk_size.unwrap_or(DEFAULT_DISK_GIB)),
        },
        health: Health::default(),
        update_config: with_default(asked.update_config.clone()),
        node_repair_config: NodeRepair::asked(&asked.node_repair_config)?,
        launch_template: user_template,
        tags: asked.tags.clone(),
    };
    let group = format!("eks-{name}-{uuid}");
    shown.resources.auto_scaling_groups.push(Named { name: group });
    let template = node_template::create(context, changes, &cluster.record, &shown, &uuid)?;
    Ok(NodeGroupRecord {
        shown,
        update_id: String::new(),
        force: false,
        rollout: None,
        before: None,
        template,
        request: Request::of(input),
    })
}

pub fn with_default(mut config: UpdateConfig) -> UpdateConfig {
    if config.max_unavailable.is_none() && config.max_unavailable_percentage.is_none() {
        config.max_unavailable = Some(1);
    }
    config
}

/// The release of a version (`1.36`) that nodes get; none of one that there is not.
pub fn newest_release(version: &str) -> Option<String> {
    release_of(version, None).ok()
}

/// The release of a version: there is one of each.
pub fn release_of(wanted: &str, asked: Option<&str>) -> Result<String, Fault> {
    let row = version::find(wanted).ok_or_else(|| fault::invalid("unsupported Kubernetes version"))?;
    let day: String = row.released.chars().take(10).filter(|c| *c != '-').collect();
    let release = format!("{}-{day}", row.patch);
    match asked {
        Some(other) if other != release => Err(fault::invalid(format!(
            "Requested Nodegroup release version {other} is invalid. Allowed release version is {release}"
        ))),
        _ => Ok(release),
    }
}

/// The node group that an input names; its cluster is looked for first.
pub fn find(context: &Context, input: &Value) -> Result<Kept<NodeGroupRecord>, Fault> {
    let (cluster, name) = (text(input, "clusterName"), text(input, "nodegroupName"));
    cluster::find(context, cluster)?;
    state::get(context.state, cluster, name).ok_or_else(|| {
        fault::not_found(format!("No node group found for name: {name}."))
            .with("clusterName", cluster)
            .with("nodegroupName", name)
    })
}

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    Ok(Answer::read(json!({"nodegroup": find(context, input)?.record.shown})))
}

pub fn list(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let cluster = text(input, "clusterName");
    cluster::find(context, cluster)?;
    let all =
        state::list::<NodeGroupRecord>(context.state, cluster).into_iter().map(|kept| kept.record.shown);
    let names: Vec<String> = all.map(|group| group.nodegroup_name).collect();
    Ok(Answer::read(json!({"nodegroups": names})))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = find(context, input)?;
    if found.record.shown.status == "DELETING" {
        return Ok(Answer::read(json!({"nodegroup": found.record.shown})));
    }
    if !found.record.update_id.is_empty() {
        let (cluster, name) = (text(input, "clusterName"), text(input, "nodegroupName"));
        let why = format!(
            "Nodegroup cannot be deleted as it is currently being updated: update {} is in progress",
            found.record.update_id
        );
        return Err(fault::in_use(why).with("clusterName", cluster).with("nodegroupName", name));
    }
    found.record.shown.status = "DELETING".into();
    found.record.shown.modified_at = context.now;
    let mut changes = Changes::default();
    changes.update(&found);
    Ok(Answer::write(json!({"nodegroup": found.record.shown}), changes))
}
