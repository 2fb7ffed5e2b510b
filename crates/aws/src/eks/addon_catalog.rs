//! The add-ons there are: parts of EKS that users may manage by name, each of which is a part of Ekso itself.

use serde_json::{Value, json};

use super::addon_settings::{self, Setting};
use super::update::text;
use super::version::VERSIONS;
use super::{fault, version};
use crate::{Answer, Context, Fault};

pub struct Row {
    pub name: &'static str,
    /// `networking`, `security`, …
    pub kind: &'static str,
    /// One version for each of [`VERSIONS`], in their order.
    pub versions: [&'static str; 3],
    pub settings: &'static [Setting],
}

/// In alphabetical order.
pub const ROWS: &[Row] = &[
    // Here: each node's DNS server.
    Row {
        name: "coredns",
        kind: "networking",
        versions: ["v1.12.3-eksbuild.1", "v1.12.4-eksbuild.1", "v1.13.1-eksbuild.1"],
        settings: &[],
    },
    // Here: what listens at 169.254.170.23 in each VPC's router.
    Row {
        name: "eks-pod-identity-agent",
        kind: "security",
        versions: ["v1.3.8-eksbuild.2", "v1.3.9-eksbuild.3", "v1.3.10-eksbuild.1"],
        settings: &[],
    },
    // Here: each node's service rules.
    Row {
        name: "kube-proxy",
        kind: "networking",
        versions: ["v1.34.0-eksbuild.2", "v1.35.0-eksbuild.2", "v1.36.0-eksbuild.2"],
        settings: addon_settings::KUBE_PROXY,
    },
    // Here: each node's links and routes of pods.
    Row {
        name: "vpc-cni",
        kind: "networking",
        versions: ["v1.20.4-eksbuild.1", "v1.21.1-eksbuild.1", "v1.21.1-eksbuild.3"],
        settings: addon_settings::VPC_CNI,
    },
];

pub fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

impl Row {
    /// The version for a cluster's version.
    pub fn version_for(&self, cluster_version: &str) -> Option<&'static str> {
        let place = VERSIONS.iter().position(|version| version.name == cluster_version)?;
        Some(self.versions[place])
    }
}

pub fn describe_versions(_: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let wanted = input["kubernetesVersion"].as_str();
    if let Some(unknown) = wanted.filter(|name| version::find(name).is_none()) {
        return Err(fault::invalid(format!("Kubernetes version {unknown} is not supported")));
    }
    let named = input["addonName"].as_str();
    if let Some(unknown) = named.filter(|name| find(name).is_none()) {
        return Err(no_such(unknown, wanted));
    }
    let among = |member: &str, value: &str| {
        input[member]
            .as_array()
            .is_none_or(|wanted| wanted.is_empty() || wanted.iter().any(|one| one == value))
    };
    let rows = ROWS.iter().filter(|row| {
        named.is_none_or(|name| name == row.name)
            && among("types", row.kind)
            && among("publishers", "eks")
            && among("owners", "aws")
    });
    let shown: Vec<Value> = rows.map(|row| shown(row, wanted)).collect();
    Ok(Answer::read(json!({"addons": shown})))
}

fn no_such(name: &str, version: Option<&str>) -> Fault {
    let version = version.unwrap_or(version::DEFAULT);
    fault::invalid(format!("Addon {name} specified is not supported in {version} kubernetes version"))
        .with("addonName", name)
}

fn shown(row: &Row, wanted: Option<&str>) -> Value {
    let versions = VERSIONS
        .iter()
        .zip(row.versions)
        .rev()
        .filter(|(version, _)| wanted.is_none_or(|name| name == version.name));
    let versions: Vec<Value> = versions
        .map(|(version, addon)| {
            json!({
                "addonVersion": addon,
                "architecture": ["amd64", "arm64"],
                "computeTypes": ["ec2"],
                "compatibilities": [{
                    "clusterVersion": version.name, "platformVersions": ["*"], "defaultVersion": true,
                }],
                "requiresConfiguration": false,
                "requiresIamPermissions": false,
            })
        })
        .collect();
    json!({
        "addonName": row.name, "type": row.kind, "addonVersions": versions, "publisher": "eks", "owner": "aws",
        "defaultNamespace": "kube-system",
    })
}

pub fn describe_configuration(_: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let (name, wanted) = (text(input, "addonName"), text(input, "addonVersion"));
    let row = find(name).ok_or_else(|| no_such(name, None))?;
    if !row.versions.contains(&wanted) {
        return Err(
            fault::not_found(format!("Addon version {wanted} of {name} not found")).with("addonName", name)
        );
    }
    let schema = addon_settings::schema(row.settings).to_string();
    Ok(Answer::read(json!({
        "addonName": name, "addonVersion": wanted, "configurationSchema": schema, "podIdentityConfiguration": [],
    })))
}
