//! What IAM decides about: the ARNs of EKS' resources, and the condition keys of its calls.
//! <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelastickubernetesservice.html>

use serde_json::Value;

use super::access_entry::AccessEntry;
use super::addon::Addon;
use super::node_group::NodeGroupRecord;
use crate::{Context, Further, Subject, state};

pub fn any(_: &Context, _: &Value) -> Subject {
    Subject::any()
}

/// `arn:aws:eks:us-east-1:000000000000:cluster/shop`
pub fn arn(context: &Context, resource: &str) -> String {
    format!("arn:aws:eks:{}:{}:{resource}", context.region, context.account)
}

/// Operations on clusters call their input `name`, all others `clusterName`.
fn cluster_name(input: &Value) -> &str {
    input["clusterName"].as_str().or_else(|| input["name"].as_str()).unwrap_or_default()
}

pub fn cluster(context: &Context, input: &Value) -> Subject {
    let mut subject = Subject::of(arn(context, &format!("cluster/{}", cluster_name(input))));
    request_tags(&mut subject, input);
    subject
}

pub fn new_cluster(context: &Context, input: &Value) -> Subject {
    let mut subject = cluster(context, input);
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
    Subject::of(known.unwrap_or_else(|| arn(context, &format!("nodegroup/{cluster}/{name}/*"))))
}

pub fn access_entry(context: &Context, input: &Value) -> Subject {
    let (cluster, principal) = (cluster_name(input), input["principalArn"].as_str().unwrap_or_default());
    let known =
        state::get::<AccessEntry>(context.state, cluster, principal).map(|kept| kept.record.access_entry_arn);
    let mut subject =
        Subject::of(known.unwrap_or_else(|| arn(context, &format!("access-entry/{cluster}/*"))));
    for (member, key) in [("policyArn", "eks:policyArn"), ("principalArn", "eks:principalArn")] {
        if let Some(value) = input[member].as_str() {
            subject.keys.push((key.into(), vec![value.into()]));
        }
    }
    subject
}

pub fn addon(context: &Context, input: &Value) -> Subject {
    let (cluster, name) = (cluster_name(input), input["addonName"].as_str().unwrap_or_default());
    let known = state::get::<Addon>(context.state, cluster, name).map(|kept| kept.record.addon_arn);
    let mut subject =
        Subject::of(known.unwrap_or_else(|| arn(context, &format!("addon/{cluster}/{name}/*"))));
    passes(&mut subject, &input["serviceAccountRoleArn"], "eks.amazonaws.com");
    subject
}

pub fn pod_identity(context: &Context, input: &Value) -> Subject {
    let id = input["associationId"].as_str().unwrap_or_default();
    let mut subject =
        Subject::of(arn(context, &format!("podidentityassociation/{}/{id}", cluster_name(input))));
    passes(&mut subject, &input["roleArn"], "pods.eks.amazonaws.com");
    subject
}

pub fn tagged(_: &Context, input: &Value) -> Subject {
    let mut subject = Subject::of(input["resourceArn"].as_str().unwrap_or_default());
    request_tags(&mut subject, input);
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
