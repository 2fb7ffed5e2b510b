//! Clusters: made, described, deleted. What changes them is in `cluster_config`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use object::{Resource, Snapshot, Time};
use plan::net::Cidr;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::access_entry;
use super::node_group::NodeGroupRecord;
use super::request::Request;
use super::subject::arn;
use super::surroundings;
use super::update::text;
use super::{fault, tags, update, version};
use crate::ec2::record::Vpc;
use crate::state::{self, Changes, Kept, Record};
use crate::{Answer, Context, Fault};

/// How long a control plane may take to start for the first time.
const CREATION_SECONDS: i64 = 120;
/// Who reaches an endpoint unless somebody says otherwise.
const EVERYBODY: &str = "0.0.0.0/0";
/// Whoever calls a public endpoint, since it is on this host alone.
const CALLER: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Clusters of an account in a region (AWS's quota is 100 until one asks for more), and security groups beside a cluster's own.
const MOST: usize = 250;
const MOST_SECURITY_GROUPS: usize = 4;
const MOST_PUBLIC_RANGES: usize = 40;

/// What a VPC's range must not overlap: the first that does not is taken for services.
const SERVICE_RANGES: &[&str] = &["10.100.0.0/16", "172.20.0.0/16"];

/// A cluster in the account store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRecord {
    pub shown: Cluster,
    /// The principal that made it, as IAM names it: its administrator wherever the mode of authentication lets that be.
    pub creator_arn: String,
    pub request: Request,
    /// 32 upper-case hex digits: its name in its endpoint and in its issuer.
    pub public_id: String,
}

impl Record for ClusterRecord {
    const RESOURCE: Resource = Resource::new("clusters.eks");
}

/// As `DescribeCluster` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub name: String,
    pub arn: String,
    pub created_at: Time,
    /// `1.36`
    pub version: String,
    /// `https://127.0.0.1:6443`, once it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    pub role_arn: String,
    pub resources_vpc_config: VpcConfig,
    pub kubernetes_network_config: Value,
    pub logging: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// `CREATING`, `ACTIVE`, `DELETING`, `FAILED`, `UPDATING`
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<CertificateAuthority>,
    pub platform_version: String,
    pub tags: BTreeMap<String, String>,
    pub health: Health,
    pub access_config: AccessConfig,
    pub upgrade_policy: Value,
    pub deletion_protection: bool,
    pub control_plane_scaling_config: Value,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VpcConfig {
    pub subnet_ids: Vec<String>,
    pub security_group_ids: Vec<String>,
    pub cluster_security_group_id: String,
    pub vpc_id: String,
    pub endpoint_public_access: bool,
    pub endpoint_private_access: bool,
    pub public_access_cidrs: Vec<String>,
}

impl VpcConfig {
    /// The groups of the control plane's interfaces.
    pub fn groups(&self) -> Vec<String> {
        let own = std::iter::once(&self.cluster_security_group_id);
        own.chain(&self.security_group_ids).cloned().collect()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    pub oidc: Oidc,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Oidc {
    pub issuer: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertificateAuthority {
    /// Base64 of PEM.
    pub data: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    pub issues: Vec<Issue>,
}

/// Something that is wrong with a cluster, a node group or an add-on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issue {
    /// `NodeCreationFailure`, `AccessDenied`, …
    pub code: String,
    pub message: String,
    pub resource_ids: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessConfig {
    pub bootstrap_cluster_creator_admin_permissions: bool,
    pub authentication_mode: AuthenticationMode,
}

/// Where a cluster looks for who a principal is. It moves to the right only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuthenticationMode {
    ConfigMap,
    ApiAndConfigMap,
    Api,
}

impl AuthenticationMode {
    pub fn reads_entries(self) -> bool {
        self != Self::ConfigMap
    }

    pub fn reads_config_map(self) -> bool {
        self != Self::Api
    }
}

impl Kept<ClusterRecord> {
    pub fn name(&self) -> &str {
        &self.record.shown.name
    }
}

/// What `CreateCluster` reads of its input.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    name: String,
    version: Option<String>,
    role_arn: String,
    resources_vpc_config: VpcRequest,
    #[serde(default)]
    kubernetes_network_config: NetworkRequest,
    #[serde(default)]
    access_config: AccessRequest,
    #[serde(default)]
    upgrade_policy: Value,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    deletion_protection: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VpcRequest {
    pub subnet_ids: Option<Vec<String>>,
    pub security_group_ids: Option<Vec<String>>,
    pub endpoint_public_access: Option<bool>,
    pub endpoint_private_access: Option<bool>,
    pub public_access_cidrs: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NetworkRequest {
    service_ipv4_cidr: Option<String>,
    ip_family: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AccessRequest {
    bootstrap_cluster_creator_admin_permissions: Option<bool>,
    authentication_mode: Option<AuthenticationMode>,
}

/// An input as a struct. It has passed the model, so that what fails here is a member that the model leaves open.
pub fn read<T: serde::de::DeserializeOwned>(input: &Value) -> Result<T, Fault> {
    T::deserialize(input).map_err(|error| fault::invalid(error.to_string()))
}

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let asked: Create = read(input)?;
    let about = |fault: Fault| fault.with("clusterName", asked.name.as_str());
    if let Some(known) = state::get::<ClusterRecord>(context.state, "", &asked.name) {
        if known.record.request.is_repeated_by(input) {
            return Ok(Answer::read(json!({"cluster": known.record.shown})));
        }
        return Err(about(fault::in_use(format!("Cluster already exists with name: {}", asked.name))));
    }
    refuse_unsupported(input).map_err(about)?;
    if state::list::<ClusterRecord>(context.state, "").len() >= MOST {
        return Err(about(fault::limit(format!("Limit exceeded: at most {MOST} clusters"))));
    }
    tags::check(&asked.tags).map_err(about)?;
    let version = version::wanted(asked.version.as_deref()).map_err(about)?;
    surroundings::check_role(context, &asked.role_arn, "eks.amazonaws.com").map_err(about)?;
    let vpc = vpc_config(context, &asked.resources_vpc_config).map_err(about)?;
    let network = surroundings::network(context.state, &vpc.vpc_id);
    let service_range = service_range(&asked.kubernetes_network_config, network.as_ref()).map_err(about)?;
    let mode = asked.access_config.authentication_mode.unwrap_or(AuthenticationMode::ConfigMap);
    let is_admin = asked.access_config.bootstrap_cluster_creator_admin_permissions.unwrap_or(true);
    if mode == AuthenticationMode::ConfigMap && !is_admin {
        let why = "bootstrapClusterCreatorAdminPermissions must be true if cluster authentication mode is set to CONFIG_MAP";
        return Err(about(fault::invalid(why)));
    }

    let mut changes = Changes::default();
    let mut vpc = vpc;
    vpc.cluster_security_group_id =
        surroundings::create_cluster_security_group(context, &mut changes, &asked.name, &vpc.vpc_id);
    surroundings::create_control_plane_interfaces(context, &mut changes, &asked.name, &vpc).map_err(about)?;
    let record = ClusterRecord {
        shown: Cluster {
            arn: arn(context, &format!("cluster/{}", asked.name)),
            created_at: context.now,
            version: version.name.into(),
            endpoint: None,
            role_arn: asked.role_arn,
            resources_vpc_config: vpc,
            kubernetes_network_config: json!({
                "serviceIpv4Cidr": service_range, "ipFamily": "ipv4", "elasticLoadBalancing": {"enabled": false},
            }),
            logging: json!({"clusterLogging": [{"types": LOG_TYPES, "enabled": false}]}),
            identity: None,
            status: "CREATING".into(),
            certificate_authority: None,
            platform_version: version.platform.into(),
            tags: asked.tags,
            health: Health::default(),
            access_config: AccessConfig {
                bootstrap_cluster_creator_admin_permissions: is_admin,
                authentication_mode: mode,
            },
            upgrade_policy: json!({"supportType": asked.upgrade_policy["supportType"].as_str().unwrap_or("EXTENDED")}),
            deletion_protection: asked.deletion_protection,
            control_plane_scaling_config: json!({"tier": "standard"}),
            name: asked.name,
        },
        creator_arn: access_entry::principal_of(context.caller),
        request: Request::of(input),
        public_id: context.ids.hex(32).to_uppercase(),
    };
    changes.create("", &record.shown.name, &record);
    if mode.reads_entries() && is_admin {
        access_entry::create_for_creator(context, &mut changes, &record);
    }
    Ok(Answer::write(json!({"cluster": record.shown}), changes))
}

const LOG_TYPES: &[&str] = &["api", "audit", "authenticator", "controllerManager", "scheduler"];

/// Members that have nothing behind them here, where what they ask for is not already so.
fn refuse_unsupported(input: &Value) -> Result<(), Fault> {
    refuse_logging(&input["logging"])?;
    let asks = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    for (member, name) in [
        ("encryptionConfig", "Envelope encryption with KMS (encryptionConfig)"),
        ("outpostConfig", "A cluster on an Outpost (outpostConfig)"),
        ("remoteNetworkConfig", "Hybrid nodes (remoteNetworkConfig)"),
    ] {
        if asks(&input[member]) {
            return Err(fault::unsupported(name));
        }
    }
    for (value, name) in [
        (&input["computeConfig"]["enabled"], "EKS Auto Mode (computeConfig)"),
        (&input["storageConfig"]["blockStorage"]["enabled"], "EKS Auto Mode (storageConfig)"),
        (
            &input["kubernetesNetworkConfig"]["elasticLoadBalancing"]["enabled"],
            "EKS Auto Mode (elasticLoadBalancing)",
        ),
        (&input["zonalShiftConfig"]["enabled"], "Zonal shift (zonalShiftConfig)"),
    ] {
        if *value == true {
            return Err(fault::unsupported(name));
        }
    }
    if asks(&input["computeConfig"]["nodePools"]) || asks(&input["computeConfig"]["nodeRoleArn"]) {
        return Err(fault::unsupported("EKS Auto Mode (computeConfig)"));
    }
    match input["controlPlaneScalingConfig"]["tier"].as_str() {
        None | Some("standard") => Ok(()),
        Some(tier) => Err(fault::unsupported(&format!("The provisioned control plane's {tier}"))),
    }
}

/// Logs of the control plane would go to CloudWatch, which is not here: they may be off only.
pub fn refuse_logging(logging: &Value) -> Result<(), Fault> {
    let setups = logging["clusterLogging"].as_array().into_iter().flatten();
    let mut on = setups.filter(|setup| {
        setup["enabled"] == true && setup["types"].as_array().is_some_and(|types| !types.is_empty())
    });
    match on.next() {
        Some(_) => Err(fault::unsupported("Control plane logging to CloudWatch (clusterLogging)")),
        None => Ok(()),
    }
}

fn vpc_config(context: &Context, asked: &VpcRequest) -> Result<VpcConfig, Fault> {
    let mut config = VpcConfig {
        endpoint_public_access: true,
        public_access_cidrs: vec![EVERYBODY.into()],
        ..VpcConfig::default()
    };
    if asked.subnet_ids.as_ref().is_none_or(Vec::is_empty) {
        return Err(fault::invalid("Subnet IDs must be specified in resourcesVpcConfig"));
    }
    apply_vpc(context, &mut config, asked)?;
    Ok(config)
}

/// Puts what is asked for in place of what is there.
pub fn apply_vpc(context: &Context, config: &mut VpcConfig, asked: &VpcRequest) -> Result<(), Fault> {
    if let Some(ids) = &asked.subnet_ids {
        config.vpc_id = check_subnets(context, ids, &config.vpc_id)?;
        config.subnet_ids.clone_from(ids);
    }
    if let Some(ids) = &asked.security_group_ids {
        if ids.len() > MOST_SECURITY_GROUPS {
            return Err(fault::invalid(format!(
                "At most {MOST_SECURITY_GROUPS} security groups can be specified"
            )));
        }
        for id in ids {
            surroundings::check_security_group(context.state, id, &config.vpc_id)?;
        }
        config.security_group_ids.clone_from(ids);
    }
    config.endpoint_public_access = asked.endpoint_public_access.unwrap_or(config.endpoint_public_access);
    config.endpoint_private_access = asked.endpoint_private_access.unwrap_or(config.endpoint_private_access);
    if !config.endpoint_public_access && !config.endpoint_private_access {
        return Err(fault::invalid("Private and public endpoint access cannot be false"));
    }
    if let Some(ranges) = &asked.public_access_cidrs {
        if ranges.len() > MOST_PUBLIC_RANGES {
            return Err(fault::invalid(format!(
                "At most {MOST_PUBLIC_RANGES} public access CIDRs can be specified"
            )));
        }
        if let Some(wrong) = ranges.iter().find(|range| range.parse::<Cidr>().is_err()) {
            return Err(fault::invalid(format!(
                "The following CIDRs are invalid in publicAccessCidrs: [{wrong}]"
            )));
        }
        let lets_in = |range: &String| range.parse::<Cidr>().is_ok_and(|range| range.contains(CALLER));
        if !ranges.iter().any(lets_in) {
            return Err(fault::invalid(format!(
                "publicAccessCidrs [{}] would let nobody in: the public endpoint of Ekso is on this host, and whoever calls it is {CALLER}: add {CALLER}/32, or leave publicAccessCidrs out",
                ranges.join(", ")
            )));
        }
        config.public_access_cidrs.clone_from(ranges);
    }
    Ok(())
}

/// The VPC of the subnets, which must all be in it, and in two zones at least.
fn check_subnets(context: &Context, ids: &[String], vpc: &str) -> Result<String, Fault> {
    let mut zones = Vec::new();
    let mut vpcs: Vec<String> = if vpc.is_empty() { Vec::new() } else { vec![vpc.into()] };
    for id in ids {
        let subnet = surroundings::subnet(context.state, id)?.record;
        if !zones.contains(&subnet.availability_zone) {
            zones.push(subnet.availability_zone);
        }
        if !vpcs.contains(&subnet.vpc_id) {
            vpcs.push(subnet.vpc_id);
        }
    }
    if zones.len() < 2 {
        return Err(fault::invalid("Subnets specified must be in at least two different AZs"));
    }
    match &vpcs[..] {
        [one] => Ok(one.clone()),
        _ => Err(fault::invalid("Subnets specified must all belong to the same VPC")),
    }
}

/// The addresses of services: those asked for, if they are private, of a size from /24 to /12, and not the VPC's.
fn service_range(asked: &NetworkRequest, network: Option<&Vpc>) -> Result<String, Fault> {
    if asked.ip_family.as_deref().is_some_and(|family| family != "ipv4") {
        return Err(fault::unsupported("IPv6 (ipFamily)"));
    }
    let overlaps =
        |range: &Cidr| network.is_some_and(|network| network.ranges().any(|held| held.overlaps(*range)));
    let Some(text) = &asked.service_ipv4_cidr else {
        let free = SERVICE_RANGES.iter().find(|text| text.parse().is_ok_and(|range| !overlaps(&range)));
        return Ok((*free.unwrap_or(&SERVICE_RANGES[0])).to_owned());
    };
    let wrong = |why: &str| fault::invalid(format!("The specified service CIDR block {text} {why}"));
    let range: Cidr = text.parse().map_err(|_| wrong("is not valid"))?;
    let private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
    let is_private = private
        .iter()
        .filter_map(|text| text.parse::<Cidr>().ok())
        .any(|wide| wide.prefix() <= range.prefix() && wide.contains(range.address()));
    if !is_private {
        return Err(wrong("must be within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"));
    }
    if !(12..=24).contains(&range.prefix()) {
        return Err(wrong("must be between /24 and /12"));
    }
    if overlaps(&range) {
        return Err(wrong("overlaps with the CIDR block of the VPC"));
    }
    Ok(text.clone())
}

/// The cluster of a name, or AWS's words for there being none.
pub fn find(context: &Context, name: &str) -> Result<Kept<ClusterRecord>, Fault> {
    state::get(context.state, "", name).ok_or_else(|| {
        fault::not_found(format!("No cluster found for name: {name}.")).with("clusterName", name)
    })
}

/// The cluster that `clusterName` names, which must be there to be worked on.
pub fn find_active(context: &Context, name: &str) -> Result<Kept<ClusterRecord>, Fault> {
    let found = find(context, name)?;
    match found.record.shown.status.as_str() {
        "ACTIVE" | "UPDATING" => Ok(found),
        _ => Err(fault::invalid_request(format!("Cluster '{name}' is not in ACTIVE status"))
            .with("clusterName", name)),
    }
}

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let found = find(context, text(input, "name"))?;
    Ok(Answer::read(json!({"cluster": found.record.shown})))
}

pub fn list(context: &mut Context, _: &Value) -> Result<Answer, Fault> {
    let all = state::list::<ClusterRecord>(context.state, "");
    let names: Vec<&str> = all.iter().map(Kept::name).collect();
    Ok(Answer::read(json!({"clusters": names})))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(input, "name");
    let mut found = find(context, name)?;
    let about = |fault: Fault| fault.with("clusterName", name);
    match found.record.shown.status.as_str() {
        "DELETING" => return Ok(Answer::read(json!({"cluster": found.record.shown}))),
        // One whose creation fails may go: it would be in progress for ever.
        "CREATING" if found.record.shown.health.issues.is_empty() => {
            let why = format!("Cannot delete because cluster {name} currently has creation in progress");
            return Err(about(fault::in_use(why)));
        }
        _ => {}
    }
    update::refuse_second(context, name, "delete")?;
    if found.record.shown.deletion_protection {
        let why = "Cannot delete cluster because deletion protection is enabled. Disable deletion protection with UpdateClusterConfig first";
        return Err(about(fault::invalid_request(why)));
    }
    if !state::list::<NodeGroupRecord>(context.state, name).is_empty() {
        return Err(about(fault::in_use("Cluster has nodegroups attached")));
    }
    if !state::list::<super::FargateProfileRecord>(context.state, name).is_empty() {
        return Err(about(fault::in_use("Cluster has Fargate profiles attached")));
    }
    found.record.shown.status = "DELETING".into();
    let mut changes = Changes::default();
    changes.update(&found);
    Ok(Answer::write(json!({"cluster": found.record.shown}), changes))
}

/// Writes down that a control plane that is being created could not be started, and why. What is tried again and again without success has
/// failed in the end; a later success makes it ACTIVE all the same.
pub fn failed(state: &Snapshot, now: Time, name: &str, why: &str) -> Changes {
    let mut changes = Changes::default();
    let Some(mut found) = state::get::<ClusterRecord>(state, "", name) else { return changes };
    let shown = &mut found.record.shown;
    if shown.status != "CREATING" {
        return changes;
    }
    let before = (shown.status.clone(), shown.health.clone());
    if shown.health.issues.is_empty() {
        let resource_ids = vec![name.to_owned()];
        shown.health.issues.push(Issue { code: "InternalFailure".into(), message: why.into(), resource_ids });
    }
    if now.secs_since(shown.created_at) > CREATION_SECONDS {
        shown.status = "FAILED".into();
    }
    if before != (shown.status.clone(), shown.health.clone()) {
        changes.update(&found);
    }
    changes
}
