//! The launch template that EKS makes of a node group's settings, and of a template of the user's own if one is named.
//! <https://docs.aws.amazon.com/eks/latest/userguide/launch-templates.html>

use serde_json::{Value, json};

use super::cluster::ClusterRecord;
use super::node_group::{NodeGroup, NodeGroupRecord, Template, TemplateRequest};
use super::{addon_settings, fault, surroundings};
use crate::ec2::record::{LaunchTemplate, Tags};
use crate::ec2::{instance_type, launch_template, place, pods, user_data};
use crate::iam::record::{Common, InstanceProfile, Role, named};
use crate::state::{self, Changes};
use crate::{Context, Fault};

/// A template that a user named by its id or its name, with the number of the version that is meant.
pub fn of_user(context: &Context, asked: &TemplateRequest) -> Result<Template, Fault> {
    let input = json!({"LaunchTemplateId": asked.id, "LaunchTemplateName": asked.name});
    let found = launch_template::named(context, &input).map_err(invalid)?.record;
    let version = asked.version.as_deref().unwrap_or_default();
    let version = launch_template::version_of(context, &found, version).map_err(invalid)?.record;
    check(&version.data)?;
    Ok(Template {
        id: found.launch_template_id,
        name: found.launch_template_name,
        version: version.version.to_string(),
    })
}

fn invalid(fault: Fault) -> Fault {
    fault::invalid(fault.message)
}

/// What a template for a node group may not say, since EKS says it.
fn check(data: &Value) -> Result<(), Fault> {
    for (member, what) in [
        ("IamInstanceProfile", "an IAM instance profile: nodeRole says which role nodes have"),
        ("InstanceMarketOptions", "market options: capacityType says what instances are bought"),
        ("HibernationOptions", "hibernation options"),
        ("InstanceInitiatedShutdownBehavior", "a shutdown behavior"),
        ("SubnetId", "a subnet: subnets says where nodes are"),
    ] {
        if !data[member].is_null() {
            return Err(fault::invalid(format!("The launch template can't include {what}")));
        }
    }
    if !data["NetworkInterfaces"][0]["SubnetId"].is_null() {
        return Err(fault::invalid(
            "The launch template can't include a subnet: subnets says where nodes are",
        ));
    }
    Ok(())
}

/// What the version of a user's template holds; nothing if no template was named.
pub fn data_of(context: &Context, named: Option<&Template>) -> Result<Value, Fault> {
    let Some(named) = named else { return Ok(json!({})) };
    let template = state::get::<LaunchTemplate>(context.state, "", &named.id);
    let template = template
        .ok_or_else(|| fault::invalid(format!("The launch template {} does not exist", named.id)))?
        .record;
    let version = launch_template::version_of(context, &template, &named.version).map_err(invalid)?;
    Ok(version.record.data)
}

/// Makes the template of a new node group, and the instance profile that it names. `unique` is part of both names.
pub fn create(
    context: &mut Context,
    changes: &mut Changes,
    cluster: &ClusterRecord,
    shown: &NodeGroup,
    unique: &str,
) -> Result<Template, Fault> {
    let name = format!("eks-{unique}");
    let common = Common {
        name: name.clone(),
        path: "/".to_owned(),
        id: context.ids.unique("AIPA"),
        arn: format!("arn:aws:iam::{}:instance-profile/{name}", context.account),
        created: context.now,
        tags: iam_tags(shown),
    };
    let role = named::<Role>(context.state, surroundings::role_name(&shown.node_role));
    let role = role.ok_or_else(|| fault::invalid(format!("{} does not exist", shown.node_role)))?;
    let profile = InstanceProfile { common, role: Some(role.record.common.name.clone()) };
    changes.create("", &name.to_ascii_lowercase(), &profile);
    // The role is written too, so that one that goes at the same moment is not put in.
    changes.update(&role);
    let template = Template { id: context.ids.resource("lt"), name: name.clone(), version: "1".to_owned() };
    let data = data(context, cluster, shown, &template)?;
    let id = template.id.clone();
    launch_template::make(context, changes, id, &name, &data, None, tags(shown)).map_err(invalid)?;
    Ok(template)
}

/// Gives the template of a node group a version of its newest settings.
pub fn renew(
    context: &Context,
    changes: &mut Changes,
    cluster: &ClusterRecord,
    group: &NodeGroupRecord,
) -> Result<Template, Fault> {
    let held = state::get::<LaunchTemplate>(context.state, "", &group.template.id);
    let mut held = held.ok_or_else(|| {
        let id = &group.template.id;
        fault::invalid_request(format!("The launch template {id} of the node group does not exist any more"))
    })?;
    let next = Template { version: (held.record.latest_version + 1).to_string(), ..group.template.clone() };
    let data = data(context, cluster, &group.shown, &next)?;
    launch_template::add_version(context, changes, &mut held, data, None).map_err(invalid)?;
    Ok(next)
}

/// Removes what was made with a node group in other services.
pub fn remove(context: &Context, changes: &mut Changes, group: &NodeGroupRecord) {
    if let Some(template) = state::get::<LaunchTemplate>(context.state, "", &group.template.id) {
        launch_template::remove(context, changes, &template);
    }
    if let Some(profile) = named::<InstanceProfile>(context.state, &group.template.name) {
        changes.delete(&profile);
    }
}

fn tags(shown: &NodeGroup) -> Tags {
    let tags = [("eks:cluster-name", &shown.cluster_name), ("eks:nodegroup-name", &shown.nodegroup_name)];
    tags.map(|(key, value)| (key.to_owned(), value.clone())).into()
}

fn iam_tags(shown: &NodeGroup) -> crate::iam::record::Tags {
    tags(shown).into_iter().collect()
}

/// The data of one version: what the user's template says, and what it leaves open.
fn data(
    context: &Context,
    cluster: &ClusterRecord,
    shown: &NodeGroup,
    template: &Template,
) -> Result<Value, Fault> {
    let mut data = data_of(context, shown.launch_template.as_ref())?;
    data["IamInstanceProfile"] = json!({"Name": template.name});
    let names_groups = !data["SecurityGroupIds"].is_null()
        || !data["SecurityGroups"].is_null()
        || !data["NetworkInterfaces"][0]["Groups"].is_null();
    if !names_groups {
        let group = json!([cluster.shown.resources_vpc_config.cluster_security_group_id]);
        match data["NetworkInterfaces"].get_mut(0) {
            Some(first) => first["Groups"] = group,
            None => data["SecurityGroupIds"] = group,
        }
    }
    if data["MetadataOptions"].is_null() {
        data["MetadataOptions"] = json!({"HttpTokens": "required", "HttpPutResponseHopLimit": 1});
    }
    if let Some(size) = shown.disk_size {
        let ebs = json!({"DeleteOnTermination": true, "VolumeSize": size, "VolumeType": "gp3"});
        data["BlockDeviceMappings"] = json!([{"DeviceName": place::ROOT_DEVICE, "Ebs": ebs}]);
    }
    // Who brings an image says in the user data how it joins.
    if data["ImageId"].is_null() {
        let image = place::image_of_version(&shown.version);
        let image = image.ok_or_else(|| fault::invalid("unsupported Kubernetes version"))?.id;
        let pods = pods_of_prefixes(context, shown, &data);
        let config = node_config(cluster, shown, template, &image, pods);
        let composed = user_data::compose(&config, data["UserData"].as_str());
        let composed = composed.ok_or_else(|| {
            fault::invalid(
                "Ec2LaunchTemplateInvalidConfiguration: User data was not in the MIME multipart format",
            )
        })?;
        data["ImageId"] = json!(image);
        data["UserData"] = json!(composed);
    }
    Ok(data)
}

/// How many pods nodes take where vpc-cni delegates prefixes: of the types of a group the least. None: by the addresses of their type.
/// <https://docs.aws.amazon.com/eks/latest/userguide/cni-increase-ip-addresses.html>
fn pods_of_prefixes(context: &Context, shown: &NodeGroup, data: &Value) -> Option<u32> {
    if !addon_settings::delegates_prefixes(context, &shown.cluster_name) {
        return None;
    }
    let types =
        shown.instance_types.iter().flatten().map(String::as_str).chain(data["InstanceType"].as_str());
    types.filter_map(instance_type::find).map(|kind| pods::most_of_prefixes(&kind)).min()
}

/// As nodeadm reads it. <https://awslabs.github.io/amazon-eks-ami/nodeadm/doc/api/>
fn node_config(
    cluster: &ClusterRecord,
    shown: &NodeGroup,
    template: &Template,
    image: &str,
    pods: Option<u32>,
) -> String {
    let of = &cluster.shown;
    let services = of.kubernetes_network_config["serviceIpv4Cidr"].as_str().unwrap_or_default();
    let authority = of.certificate_authority.as_ref().map_or("", |authority| &authority.data);
    let own = [
        ("eks.amazonaws.com/sourceLaunchTemplateVersion", template.version.as_str()),
        ("eks.amazonaws.com/nodegroup-image", image),
        ("eks.amazonaws.com/capacityType", &shown.capacity_type),
        ("eks.amazonaws.com/nodegroup", &shown.nodegroup_name),
        ("eks.amazonaws.com/sourceLaunchTemplateId", &template.id),
    ];
    let given = shown.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let labels: Vec<String> =
        own.into_iter().chain(given).map(|(key, value)| format!("{key}={value}")).collect();
    let mut flags = vec![format!("--node-labels={}", labels.join(","))];
    let taints = shown.taints.iter();
    let taints: Vec<String> =
        taints.map(|one| format!("{}={}:{}", one.key, one.value, one.kubernetes_effect())).collect();
    if !taints.is_empty() {
        flags.push(format!("--register-with-taints={}", taints.join(",")));
    }
    flags.extend(pods.map(|pods| format!("--max-pods={pods}")));
    // A text in JSON is one in YAML, too.
    let flags: String = flags.iter().map(|flag| format!("    - {}\n", json!(flag))).collect();
    format!(
        "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  cluster:\n    name: {}\n    apiServerEndpoint: {}\n    certificateAuthority: {authority}\n    cidr: {services}\n  kubelet:\n    flags:\n{flags}",
        of.name,
        of.endpoint.as_deref().unwrap_or_default(),
    )
}

/// Whether a node group may say both what it says and what its template says.
pub fn check_with(data: &Value, has_types: bool, has_image_type: bool) -> Result<(), Fault> {
    for (is_both, what) in [
        (has_types && !data["InstanceType"].is_null(), "Instance types"),
        (has_image_type && !data["ImageId"].is_null(), "An amiType other than CUSTOM"),
    ] {
        if is_both {
            return Err(fault::invalid(format!(
                "{what} cannot be specified both in the request and in the launch template"
            )));
        }
    }
    if let Some(kind) = data["InstanceType"].as_str() {
        surroundings::check_instance_type(kind)?;
    }
    if let Some(image) = data["ImageId"].as_str() {
        place::image(image).map_err(invalid)?;
    }
    Ok(())
}
