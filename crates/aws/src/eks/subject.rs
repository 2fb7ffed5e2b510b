//! What IAM decides about: the ARNs of EKS' resources, and the condition keys of its calls.
//! <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelastickubernetesservice.html>

use serde_json::Value;

use super::access_entry::AccessEntry;
use super::addon::Addon;
use super::fargate_profile::FargateProfileRecord;
use super::identity_provider::IdentityProvider;
use super::node_group::NodeGroupRecord;
use super::tags;
use crate::service::Target;
use crate::{Context, Further, Subject, state};

/// Condition keys of calls on clusters, and where in the input their values stand. What is not said has no key.
const SETTINGS: &[(&str, &str)] = &[
    ("eks:authenticationMode", "/accessConfig/authenticationMode"),
    ("eks:blockStorageEnabled", "/storageConfig/blockStorage/enabled"),
    ("eks:bootstrapClusterCreatorAdminPermissions", "/accessConfig/bootstrapClusterCreatorAdminPermissions"),
    ("eks:bootstrapSelfManagedAddons", "/bootstrapSelfManagedAddons"),
    ("eks:clientId", "/oidc/clientId"),
    ("eks:computeConfigEnabled", "/computeConfig/enabled"),
    ("eks:controlPlaneScalingTier", "/controlPlaneScalingConfig/tier"),
    ("eks:deletionProtection", "/deletionProtection"),
    ("eks:elasticLoadBalancingEnabled", "/kubernetesNetworkConfig/elasticLoadBalancing/enabled"),
    ("eks:endpointPrivateAccess", "/resourcesVpcConfig/endpointPrivateAccess"),
    ("eks:endpointPublicAccess", "/resourcesVpcConfig/endpointPublicAccess"),
    ("eks:issuerUrl", "/oidc/issuerUrl"),
    ("eks:kubernetesVersion", "/version"),
    ("eks:supportType", "/upgradePolicy/supportType"),
    ("eks:zonalShiftEnabled", "/zonalShiftConfig/enabled"),
];

pub fn any(_: &Context, _: &Value) -> Subject {
    Subject::any()
}

/// Listing clusters is decided, and told, about all of them.
pub fn clusters(context: &Context, _: &Value) -> Subject {
    Subject::of(arn(context, "cluster/*"))
}

/// `arn:aws:eks:us-east-1:000000000000:cluster/shop`
pub fn arn(context: &Context, resource: &str) -> String {
    format!("arn:aws:eks:{}:{}:{resource}", context.region, context.account)
}

/// One resource, with its tags.
fn of(context: &Context, arn: String) -> Subject {
    let tags = tags::of_arn(context, &arn).into_iter();
    let keys = tags.map(|(key, value)| (format!("aws:ResourceTag/{key}"), vec![value])).collect();
    Subject { resources: vec![Target { arn, keys }], ..Subject::default() }
}

/// Operations on clusters call their input `name`, all others `clusterName`.
fn cluster_name(input: &Value) -> &str {
    input["clusterName"].as_str().or_else(|| input["name"].as_str()).unwrap_or_default()
}

pub fn cluster(context: &Context, input: &Value) -> Subject {
    let mut subject = of(context, arn(context, &format!("cluster/{}", cluster_name(input))));
    request_tags(&mut subject, input);
    subject
}

/// A call that says how a cluster shall be.
pub fn settings(context: &Context, input: &Value) -> Subject {
    let mut subject = cluster(context, input);
    for (key, place) in SETTINGS {
        give(&mut subject, key, input.pointer(place));
    }
    for logging in input["logging"]["clusterLogging"].as_array().into_iter().flatten() {
        for kind in strings(&logging["types"]) {
            give(&mut subject, &format!("eks:loggingType/{kind}"), logging.get("enabled"));
        }
    }
    let encryption = input["encryptionConfig"].as_array().into_iter().flatten();
    let keys: Vec<String> =
        encryption.filter_map(|one| one["provider"]["keyArn"].as_str().map(str::to_owned)).collect();
    if !keys.is_empty() {
        subject.keys.push(("eks:encryptionConfigProviderKeyArns".into(), keys));
    }
    subject
}

/// A condition key, if there is a value for it: a text, a yes or no, or texts.
fn give(subject: &mut Subject, key: &str, value: Option<&Value>) {
    let values = match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Bool(is)) => vec![is.to_string()],
        Some(list @ Value::Array(_)) => strings(list),
        _ => return,
    };
    subject.keys.push((key.to_owned(), values));
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
}

pub fn new_cluster(context: &Context, input: &Value) -> Subject {
    let mut subject = settings(context, input);
    passes(&mut subject, &input["roleArn"], "eks.amazonaws.com");
    subject
}

/// Creating what belongs to a cluster is decided on the cluster; the roles that it hands over are passed.
pub fn new_of_cluster(context: &Context, input: &Value) -> Subject {
    let mut subject = cluster(context, input);
    passes(&mut subject, &input["nodeRole"], "ec2.amazonaws.com");
    passes(&mut subject, &input["podExecutionRoleArn"], "eks-fargate-pods.amazonaws.com");
    // Of a pod identity association.
    passes(&mut subject, &input["roleArn"], "pods.eks.amazonaws.com");
    passes(&mut subject, &input["serviceAccountRoleArn"], "eks.amazonaws.com");
    subject
}

pub fn node_group(context: &Context, input: &Value) -> Subject {
    let (cluster, name) = (cluster_name(input), input["nodegroupName"].as_str().unwrap_or_default());
    let known = state::get::<NodeGroupRecord>(context.state, cluster, name)
        .map(|kept| kept.record.shown.nodegroup_arn);
    of(context, known.unwrap_or_else(|| arn(context, &format!("nodegroup/{cluster}/{name}/*"))))
}

pub fn fargate_profile(context: &Context, input: &Value) -> Subject {
    let (cluster, name) = (cluster_name(input), input["fargateProfileName"].as_str().unwrap_or_default());
    let known = state::get::<FargateProfileRecord>(context.state, cluster, name)
        .map(|kept| kept.record.shown.fargate_profile_arn);
    of(context, known.unwrap_or_else(|| arn(context, &format!("fargateprofile/{cluster}/{name}/*"))))
}

pub fn identity_provider(context: &Context, input: &Value) -> Subject {
    let cluster = cluster_name(input);
    let name = input["identityProviderConfig"]["name"].as_str().unwrap_or_default();
    let known = state::get::<IdentityProvider>(context.state, cluster, name)
        .map(|kept| kept.record.identity_provider_config_arn);
    let unknown = || arn(context, &format!("identityproviderconfig/{cluster}/oidc/{name}/*"));
    of(context, known.unwrap_or_else(unknown))
}

/// One who gets an entry: whoever may call it may be told for whom, of which kind, and in which groups.
pub fn new_access_entry(context: &Context, input: &Value) -> Subject {
    let mut subject = cluster(context, input);
    let kind = input["type"].as_str().unwrap_or("STANDARD");
    subject.keys.push(("eks:accessEntryType".into(), vec![kind.into()]));
    of_entry(&mut subject, input);
    subject
}

/// What calls on access entries say of the entry.
fn of_entry(subject: &mut Subject, input: &Value) {
    for (key, member) in [
        ("eks:clusterName", "clusterName"),
        ("eks:kubernetesGroups", "kubernetesGroups"),
        ("eks:policyArn", "policyArn"),
        ("eks:principalArn", "principalArn"),
        ("eks:username", "username"),
    ] {
        give(subject, key, input.get(member));
    }
}

/// The entry as it is; what a call says of it goes before.
pub fn access_entry(context: &Context, input: &Value) -> Subject {
    let (cluster, principal) = (cluster_name(input), input["principalArn"].as_str().unwrap_or_default());
    let known = state::get::<AccessEntry>(context.state, cluster, principal).map(|kept| kept.record);
    let Some(known) = known else {
        let mut subject = of(context, arn(context, &format!("access-entry/{cluster}/*")));
        of_entry(&mut subject, input);
        return subject;
    };
    let mut subject = of(context, known.access_entry_arn);
    subject.keys.push(("eks:accessEntryType".into(), vec![known.r#type]));
    of_entry(&mut subject, input);
    let has = |subject: &Subject, wanted: &str| subject.keys.iter().any(|(key, _)| key == wanted);
    if !has(&subject, "eks:kubernetesGroups") && !known.kubernetes_groups.is_empty() {
        subject.keys.push(("eks:kubernetesGroups".into(), known.kubernetes_groups));
    }
    if !has(&subject, "eks:username") {
        subject.keys.push(("eks:username".into(), vec![known.username]));
    }
    // Whoever takes a policy away says which, and not from where.
    let policy = known.policies.into_iter().find(|one| input["policyArn"] == one.policy_arn.as_str());
    let held = policy.map(|policy| serde_json::json!(policy.access_scope));
    let scope = input.get("accessScope").or(held.as_ref()).unwrap_or(&Value::Null);
    give(&mut subject, "eks:accessScope", scope.get("type"));
    give(&mut subject, "eks:namespaces", scope.get("namespaces").filter(|list| !strings(list).is_empty()));
    subject
}

pub fn addon(context: &Context, input: &Value) -> Subject {
    let (cluster, name) = (cluster_name(input), input["addonName"].as_str().unwrap_or_default());
    let known = state::get::<Addon>(context.state, cluster, name).map(|kept| kept.record.addon_arn);
    let mut subject =
        of(context, known.unwrap_or_else(|| arn(context, &format!("addon/{cluster}/{name}/*"))));
    passes(&mut subject, &input["serviceAccountRoleArn"], "eks.amazonaws.com");
    subject
}

pub fn pod_identity(context: &Context, input: &Value) -> Subject {
    let id = input["associationId"].as_str().unwrap_or_default();
    let mut subject =
        of(context, arn(context, &format!("podidentityassociation/{}/{id}", cluster_name(input))));
    passes(&mut subject, &input["roleArn"], "pods.eks.amazonaws.com");
    subject
}

pub fn tagged(context: &Context, input: &Value) -> Subject {
    let mut subject = of(context, input["resourceArn"].as_str().unwrap_or_default().to_owned());
    request_tags(&mut subject, input);
    // Of tags that are taken away only the keys are told.
    if let Some(keys) = input.get("tagKeys").map(strings).filter(|keys| !keys.is_empty()) {
        subject.keys.push(("aws:TagKeys".into(), keys));
    }
    subject
}

fn request_tags(subject: &mut Subject, input: &Value) {
    let Some(tags) = input["tags"].as_object().filter(|tags| !tags.is_empty()) else { return };
    subject.keys.push(("aws:TagKeys".into(), tags.keys().cloned().collect()));
    for (key, value) in tags {
        let value = value.as_str().unwrap_or_default().to_owned();
        subject.keys.push((format!("aws:RequestTag/{key}"), vec![value]));
    }
}

fn passes(subject: &mut Subject, role: &Value, service: &str) {
    if let Some(role) = role.as_str() {
        let keys = vec![("iam:PassedToService".into(), vec![service.into()])];
        subject.also.push(Further { action: "iam:PassRole", resource: role.into(), keys });
    }
}
