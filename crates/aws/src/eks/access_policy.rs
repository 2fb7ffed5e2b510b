//! The access policies that AWS keeps. What each allows is decided where a request to a cluster is: see the `access` crate.
//! <https://docs.aws.amazon.com/eks/latest/userguide/access-policy-permissions.html>

use serde_json::{Value, json};

use crate::{Answer, Context, Fault};

/// Their names; those for people and their programs. AWS's own for Auto Mode and other services have nothing here to be used by.
pub const POLICIES: &[&str] = &[
    "AmazonEKSAdminPolicy",
    "AmazonEKSAdminViewPolicy",
    "AmazonEKSClusterAdminPolicy",
    "AmazonEKSEditPolicy",
    "AmazonEKSViewPolicy",
];

/// `arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy`
pub fn arn(name: &str) -> String {
    format!("arn:aws:eks::aws:cluster-access-policy/{name}")
}

/// The name in an ARN of a policy that there is.
pub fn name_in(arn: &str) -> Option<&'static str> {
    let name = arn.strip_prefix("arn:aws:eks::aws:cluster-access-policy/")?;
    POLICIES.iter().copied().find(|known| *known == name)
}

pub fn list(_: &mut Context, _: &Value) -> Result<Answer, Fault> {
    let shown: Vec<Value> = POLICIES.iter().map(|name| json!({"name": name, "arn": arn(name)})).collect();
    Ok(Answer::read(json!({"accessPolicies": shown})))
}
