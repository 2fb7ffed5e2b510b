//! What changes a cluster: its configuration, one kind at a time, and its version.

use serde_json::Value;

use super::cluster::{self, AuthenticationMode, VpcRequest, read};
use super::node_group::NodeGroupRecord;
use super::update::{self, Of, text};
use super::{fault, insight, surroundings, version};
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault};

/// The kinds of change, by the member that asks for them and whether it has something behind it here.
const KINDS: &[(&str, &str)] = &[
    ("accessConfig", "AccessConfigUpdate"),
    ("deletionProtection", "DeletionProtectionUpdate"),
    ("logging", "LoggingUpdate"),
    ("resourcesVpcConfig", "VpcConfigUpdate"),
    ("upgradePolicy", "UpgradePolicyUpdate"),
];

const UNSUPPORTED: &[(&str, &str)] = &[
    ("computeConfig", "EKS Auto Mode (computeConfig)"),
    ("controlPlaneScalingConfig", "The provisioned control plane (controlPlaneScalingConfig)"),
    ("kubernetesNetworkConfig", "EKS Auto Mode (kubernetesNetworkConfig)"),
    ("remoteNetworkConfig", "Hybrid nodes (remoteNetworkConfig)"),
    ("storageConfig", "EKS Auto Mode (storageConfig)"),
    ("zonalShiftConfig", "Zonal shift (zonalShiftConfig)"),
];

/// The parameters of an update, as `DescribeUpdate` tells them.
type Params = Vec<(&'static str, String)>;

pub fn update(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(input, "name");
    let about = |fault: Fault| fault.with("clusterName", name);
    let mut found = cluster::find_active(context, name)?;
    if let Some((_, what)) = UNSUPPORTED.iter().find(|(member, _)| !input[*member].is_null()) {
        return Err(about(fault::unsupported(what)));
    }
    let mut asked = KINDS.iter().filter(|(member, _)| !input[*member].is_null());
    let (member, kind) = match (asked.next(), asked.next()) {
        (Some(one), None) => *one,
        (Some(_), Some(_)) => return Err(about(fault::invalid("Only one type of update can be allowed."))),
        _ => return Err(about(fault::invalid("The type for cluster update was not provided."))),
    };
    let kind = kind_of(kind, input);
    update::refuse_second(context, name, kind)?;
    let mut changes = Changes::default();
    let params = match member {
        "accessConfig" => access(&mut found, &input[member]),
        "deletionProtection" => deletion_protection(&mut found, &input[member]),
        "logging" => cluster::refuse_logging(&input[member])
            .and(Err(fault::invalid("No changes needed for the logging config provided"))),
        "resourcesVpcConfig" => vpc(context, &mut changes, &mut found, &input[member]),
        _ => upgrade_policy(&mut found, &input[member]),
    }
    .map_err(about)?;
    // Each of them is a fact that is looked at when it matters (a login, a deletion, a connection): it holds with its record.
    let record = update::done(context, &mut changes, name, Of::Cluster, kind, params);
    changes.update(&found);
    Ok(update::answer(&record, changes))
}

/// A change of who reaches the endpoint is a kind of its own.
fn kind_of(kind: &'static str, input: &Value) -> &'static str {
    let vpc = &input["resourcesVpcConfig"];
    let is_placement = !vpc["subnetIds"].is_null() || !vpc["securityGroupIds"].is_null();
    if kind == "VpcConfigUpdate" && !is_placement { "EndpointAccessUpdate" } else { kind }
}

fn access(found: &mut Kept<cluster::ClusterRecord>, asked: &Value) -> Result<Params, Fault> {
    let wanted: AuthenticationMode = read(&asked["authenticationMode"])?;
    let config = &mut found.record.shown.access_config;
    let shown = asked["authenticationMode"].as_str().unwrap_or_default();
    if wanted == config.authentication_mode {
        return Err(fault::invalid(format!(
            "Cluster is already at the desired authentication mode: {shown}"
        )));
    }
    if wanted < config.authentication_mode {
        let current = serde_json::to_value(config.authentication_mode).unwrap_or_default();
        let current = current.as_str().unwrap_or_default();
        return Err(fault::invalid_request(format!(
            "Unsupported authentication mode update from {current} to {shown}"
        )));
    }
    config.authentication_mode = wanted;
    Ok(vec![("AuthenticationMode", shown.to_owned())])
}

fn deletion_protection(found: &mut Kept<cluster::ClusterRecord>, asked: &Value) -> Result<Params, Fault> {
    let wanted = asked.as_bool().unwrap_or_default();
    if wanted == found.record.shown.deletion_protection {
        return Err(fault::invalid(format!(
            "Cluster is already at the desired configuration with deletionProtection: {wanted}"
        )));
    }
    found.record.shown.deletion_protection = wanted;
    Ok(vec![("DeletionProtection", wanted.to_string())])
}

fn upgrade_policy(found: &mut Kept<cluster::ClusterRecord>, asked: &Value) -> Result<Params, Fault> {
    let wanted = text(asked, "supportType");
    if found.record.shown.upgrade_policy["supportType"] == wanted {
        return Err(fault::invalid(format!(
            "Cluster is already at the desired configuration with supportType: {wanted}"
        )));
    }
    found.record.shown.upgrade_policy["supportType"] = wanted.into();
    Ok(vec![("UpgradePolicy", format!("{{\"supportType\":\"{wanted}\"}}"))])
}

fn vpc(
    context: &Context,
    changes: &mut Changes,
    found: &mut Kept<cluster::ClusterRecord>,
    asked: &Value,
) -> Result<Params, Fault> {
    let asked: VpcRequest = read(asked)?;
    let interfaces = surroundings::control_plane_interfaces(context.state, found.name());
    let config = &mut found.record.shown.resources_vpc_config;
    let before = config.clone();
    cluster::apply_vpc(context, config, &asked)?;
    if *config == before {
        let ranges = config.public_access_cidrs.join(", ");
        return Err(fault::invalid(format!(
            "Cluster is already at the desired configuration with endpointPrivateAccess: {} , endpointPublicAccess: {}, and Public Endpoint Restrictions: [{ranges}]",
            config.endpoint_private_access, config.endpoint_public_access,
        )));
    }
    for mut interface in interfaces {
        // Nodes hold on to the addresses at which they found the control plane.
        let subnet = &interface.record.subnet_id;
        if !config.subnet_ids.contains(subnet) {
            return Err(fault::invalid(format!(
                "Subnet {subnet} has an interface of the control plane, which Ekso does not move: leave it in subnetIds"
            )));
        }
        if interface.record.groups != config.groups() {
            interface.record.groups = config.groups();
            changes.update(&interface);
        }
    }
    let list = |values: &[String]| serde_json::json!(values).to_string();
    let mut params: Params = Vec::new();
    if asked.subnet_ids.is_some() {
        params.push(("Subnets", list(&config.subnet_ids)));
    }
    if asked.security_group_ids.is_some() {
        params.push(("SecurityGroups", list(&config.security_group_ids)));
    }
    if params.is_empty() {
        params.push(("EndpointPublicAccess", config.endpoint_public_access.to_string()));
        params.push(("EndpointPrivateAccess", config.endpoint_private_access.to_string()));
        params.push(("PublicAccessCidrs", list(&config.public_access_cidrs)));
    }
    Ok(params)
}

/// The next minor version. The control plane is restarted with it, and the update is done when it answers.
pub fn update_version(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let (name, wanted) = (text(input, "name"), text(input, "version"));
    let about = |fault: Fault| fault.with("clusterName", name);
    let mut found = cluster::find_active(context, name)?;
    let current = found.record.shown.version.clone();
    if wanted == current {
        return Err(about(fault::invalid(format!("Cluster is already at the desired version: {wanted}"))));
    }
    let unsupported =
        || fault::invalid(format!("Unsupported Kubernetes minor version update from {current} to {wanted}"));
    let (from, to) =
        version::find(&current).zip(version::find(wanted)).ok_or_else(|| about(unsupported()))?;
    if to.minor != from.minor + 1 {
        return Err(about(unsupported()));
    }
    let groups = state::list::<NodeGroupRecord>(context.state, name);
    let behind: Vec<&str> = groups
        .iter()
        .map(|kept| &kept.record.shown)
        .filter(|group| group.version != current)
        .map(|group| group.nodegroup_name.as_str())
        .collect();
    if !behind.is_empty() && input["force"] != true {
        let why = format!(
            "Nodegroups {} must be updated to match cluster version {current} before updating cluster version",
            behind.join(", ")
        );
        return Err(about(fault::invalid(why)));
    }
    update::refuse_second(context, name, "VersionUpdate")?;
    if input["force"] != true && !insight::is_ready(context, &found) {
        return Err(about(fault::not_ready()));
    }
    let params = vec![("Version", wanted.to_owned()), ("PlatformVersion", to.platform.to_owned())];
    let mut changes = Changes::default();
    let record = update::begin(context, &mut changes, name, Of::Cluster, "VersionUpdate", params);
    found.record.shown.status = "UPDATING".into();
    changes.update(&found);
    Ok(update::answer(&record, changes))
}
