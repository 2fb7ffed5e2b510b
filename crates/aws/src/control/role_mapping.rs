//! What EKS itself writes into the ConfigMap aws-auth of a cluster that reads it: the roles of its node groups and of its Fargate profiles,
//! which it takes out again with the last that has them.
//! <https://docs.aws.amazon.com/eks/latest/userguide/delete-managed-node-group.html>

use kinds::CONFIG_MAPS;
use object::{Object, Snapshot};
use plan::{Expect, Write};
use serde_json::json;

use crate::eks::ClusterRecord;
use crate::login::aws_auth::{self, AwsAuth};
use crate::login::canonical;

/// What a role is for.
#[derive(Clone, Copy)]
pub(super) enum For {
    Nodes,
    Fargate,
}

impl For {
    fn username(self) -> &'static str {
        match self {
            Self::Nodes => "system:node:{{EC2PrivateDNSName}}",
            Self::Fargate => "system:node:{{SessionName}}",
        }
    }

    fn groups(self) -> &'static [&'static str] {
        match self {
            Self::Nodes => &["system:bootstrappers", "system:nodes"],
            Self::Fargate => &["system:bootstrappers", "system:nodes", "system:node-proxier"],
        }
    }
}

fn config_map(objects: &Snapshot) -> Option<&Object> {
    objects.find(CONFIG_MAPS, "kube-system", "aws-auth").map(AsRef::as_ref)
}

fn roles(object: &Object) -> String {
    let value = object.to_value().unwrap_or_default();
    value["data"]["mapRoles"].as_str().unwrap_or_default().to_owned()
}

/// The write that maps a role; none if the ConfigMap is not read, names it already, or says something that cannot be added to.
pub(super) fn add(cluster: &ClusterRecord, objects: &Snapshot, role: &str, what: For) -> Option<Write> {
    let arn = canonical(role);
    let is_read = cluster.shown.access_config.authentication_mode.reads_config_map();
    if !is_read || AwsAuth::of(objects).maps_role(&arn) {
        return None;
    }
    let held = config_map(objects);
    let known = held.map(roles).unwrap_or_default();
    let all = aws_auth::with_role(&known, &arn, what.username(), what.groups())?;
    let Some(object) = held else {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "aws-auth", "namespace": "kube-system"}, "data": {"mapRoles": all},
        });
        return Some(Write::Create { resource: CONFIG_MAPS, object });
    };
    Some(write(object, &all))
}

/// The write that takes a role's mapping out; none if there is none like the one that [`add`] writes.
pub(super) fn remove(cluster: &ClusterRecord, objects: &Snapshot, role: &str, what: For) -> Option<Write> {
    if !cluster.shown.access_config.authentication_mode.reads_config_map() {
        return None;
    }
    let object = config_map(objects)?;
    let rest = aws_auth::without_role(&roles(object), &canonical(role), what.username())?;
    Some(write(object, &rest))
}

fn write(object: &Object, roles: &str) -> Write {
    let patch = json!({"data": {"mapRoles": roles}});
    Write::Merge { key: object.key.clone(), expect: Expect::unchanged(object), subresource: "", patch }
}
