//! The users and roles that an account has from its first moment: enough for the commands of a tutorial.

use serde_json::json;

use super::record::{Common, InstanceProfile, Permissions, Role, Tags, User, named};
use crate::Context;
use crate::credentials::{SEAL, SealingKey};
use crate::genesis::ADMIN;
use crate::state::{self, Changes};

/// The role that clusters are made with.
pub const CLUSTER_ROLE: &str = "AmazonEKSClusterRole";
/// The role of nodes, and its instance profile.
pub const NODE_ROLE: &str = "AmazonEKSNodeRole";
/// The role with which Fargate starts pods.
pub const FARGATE_ROLE: &str = "AmazonEKSFargatePodExecutionRole";

/// Role, what it is for, the service that may assume it, AWS's policies that it has.
const ROLES: &[(&str, &str, &str, &[&str])] = &[
    (CLUSTER_ROLE, "for clusters", "eks.amazonaws.com", &["AmazonEKSClusterPolicy"]),
    (
        FARGATE_ROLE,
        "for pods on Fargate",
        "eks-fargate-pods.amazonaws.com",
        &["AmazonEKSFargatePodExecutionRolePolicy"],
    ),
    (
        NODE_ROLE,
        "for nodes",
        "ec2.amazonaws.com",
        &[
            "AmazonEC2ContainerRegistryPullOnly",
            "AmazonEC2ContainerRegistryReadOnly",
            "AmazonEKSWorkerNodePolicy",
            "AmazonEKS_CNI_Policy",
            "AmazonSSMManagedInstanceCore",
        ],
    ),
];

/// The administrator, without whom the profile is worth nothing, at each start; the roles only at the very first, so that whoever deletes
/// one is rid of it.
pub fn principals(context: &mut Context) -> Changes {
    let mut changes = Changes::default();
    if named::<User>(context.state, ADMIN).is_none() {
        let permissions = permissions(&["AdministratorAccess"]);
        let common = common(context, "user", "AIDA", ADMIN);
        changes.create("", ADMIN, &User { common, permissions, groups: Vec::new() });
    }
    // The sealing key is made last.
    if state::get::<SealingKey>(context.state, "", SEAL).is_some() {
        return changes;
    }
    for (name, purpose, service, policies) in ROLES {
        if named::<Role>(context.state, name).is_none() {
            let mut role = role(context, name, service, policies);
            role.description = Some((*purpose).to_owned());
            changes.create("", &name.to_ascii_lowercase(), &role);
        }
    }
    if named::<InstanceProfile>(context.state, NODE_ROLE).is_none() {
        let common = common(context, "instance-profile", "AIPA", NODE_ROLE);
        let profile = InstanceProfile { common, role: Some(NODE_ROLE.to_owned()) };
        changes.create("", &NODE_ROLE.to_ascii_lowercase(), &profile);
    }
    changes
}

fn role(context: &mut Context, name: &str, service: &str, policies: &[&str]) -> Role {
    // With tags, since Auto Mode and pod identity assume roles with them.
    let trust = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"Service": service}, "Action": ["sts:AssumeRole", "sts:TagSession"]},
    ]});
    Role {
        common: common(context, "role", "AROA", name),
        permissions: permissions(policies),
        trust: trust.to_string(),
        description: None,
        max_session_seconds: 3_600,
    }
}

fn permissions(policies: &[&str]) -> Permissions {
    let attached = policies.iter().map(|name| format!("arn:aws:iam::aws:policy/{name}")).collect();
    Permissions { attached, ..Permissions::default() }
}

fn common(context: &mut Context, noun: &str, prefix: &str, name: &str) -> Common {
    Common {
        name: name.to_owned(),
        path: "/".to_owned(),
        id: context.ids.unique(prefix),
        arn: format!("arn:aws:iam::{}:{noun}/{name}", context.account),
        created: context.now,
        tags: Tags::new(),
    }
}
