use std::collections::BTreeMap;
use std::sync::Arc;

use object::{FieldSelector, LabelSelector};

/// Who asks: what authentication found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `system:node:node-1`, `system:serviceaccount:kube-system:deployment-controller`
    pub name: Arc<str>,
    pub uid: Arc<str>,
    pub groups: Vec<Arc<str>>,
    pub extra: BTreeMap<Box<str>, Vec<Box<str>>>,
}

impl User {
    pub fn new(name: impl Into<Arc<str>>, groups: &[&str]) -> Self {
        Self {
            name: name.into(),
            groups: groups.iter().map(|&group| group.into()).collect(),
            ..Self::default()
        }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|held| **held == *group)
    }
}

/// The key among a user's extra values that says which IAM principal logged in: its ARN, a role's without the path.
pub const CANONICAL_ARN: &str = "canonicalArn";

/// What an access entry of EKS gives a principal: one access policy, somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessGrant {
    /// As [`CANONICAL_ARN`] has it.
    pub principal: String,
    /// `AmazonEKSViewPolicy`
    pub policy: String,
    /// Names and patterns (`dev-*`) of namespaces; none means the whole cluster.
    pub namespaces: Option<Vec<String>>,
}

/// What is asked for: `authorization.k8s.io` `ResourceAttributes`, or a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// `get`, `list`, …; for paths the HTTP method in lower case.
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    /// Plural; empty if `path` is asked for.
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    /// What a `list`, `watch` or `deletecollection` is limited to (KEP-4601); none: everything, or a selector that could not be read.
    pub fields: Option<&'a FieldSelector>,
    pub labels: Option<&'a LabelSelector>,
}

/// An authorizer's answer. Not allowed without `denied` means "no opinion": the next one is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub denied: bool,
    /// Upstream's words, for the 403 and for access reviews; may be empty.
    pub reason: String,
    /// What went wrong while it was decided: an authorizer that could not be asked. A request that is not allowed then ends with a 500.
    pub error: String,
}
