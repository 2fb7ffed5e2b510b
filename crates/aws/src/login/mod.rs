//! IAM principals log in to clusters of EKS: from a token to a user of Kubernetes, or to why not.
//!
//! ```text
//! token ─► sigv4::cluster_token ─► Caller ─► still there? ─► access entry of its principal ─► User
//!                                                          └► aws-auth ConfigMap (mapRoles, mapUsers, mapAccounts) ─► User
//! ```
//!
//! Which of the two are asked is the cluster's authentication mode. Names, groups and what else is told of a user are those of
//! aws-iam-authenticator. <https://docs.aws.amazon.com/eks/latest/userguide/grant-k8s-access.html>

pub(crate) mod aws_auth;
pub mod node;
mod template;

use std::collections::BTreeMap;

use object::{Snapshot, Time};
use plan::{AccessGrant, CANONICAL_ARN, User};

use crate::eks::{AccessEntry, ClusterRecord};
use crate::iam::caller::Holdings;
use crate::iam::record::principal_id;
use crate::sigv4::{TokenError, cluster_token};
use crate::{Caller, state};
use aws_auth::AwsAuth;

/// Where somebody logs in: a cluster, and the account it is in.
pub struct Door<'a> {
    /// Twelve digits.
    pub account: &'a str,
    /// `us-east-1`
    pub region: &'a str,
    pub now: Time,
    /// The account's store.
    pub state: &'a Snapshot,
    pub cluster: &'a ClusterRecord,
    /// The cluster's own store, for its aws-auth ConfigMap.
    pub objects: &'a Snapshot,
    /// The private DNS name of an instance by its id: what nodes are called.
    pub dns_name_of: &'a dyn Fn(&str) -> Option<String>,
}

/// The one group of whoever made a cluster that reads no entries.
const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
const CREATOR: &str = "kubernetes-admin";
/// Presigned URLs are signed for the region's endpoint or for the one that all regions share.
const GLOBAL_REGION: &str = "us-east-1";

impl Door<'_> {
    /// Whose token it is, to this cluster. A token that names another is refused: the name is part of what was signed.
    pub fn login(&self, token: &str) -> Result<User, TokenError> {
        let regions = [self.region, GLOBAL_REGION];
        let name = &self.cluster.shown.name;
        let caller = cluster_token(self.state, self.now, &regions, name, token)?;
        self.user(&caller).map_err(TokenError::Refused)
    }

    fn user(&self, caller: &Caller) -> Result<User, String> {
        // A key may outlive its user by a moment, and a session its role.
        if Holdings::of(self.state, self.account, caller).is_err() {
            return Err(format!("{} is no principal of the account any more", caller.arn));
        }
        let visitor = Visitor::of(self.account, caller);
        let (name, groups) = self.mapped(&visitor)?;
        let mut user = visitor.user(&name, groups);
        user.groups.push(AUTHENTICATED.into());
        Ok(user)
    }

    /// The name and the groups that the cluster gives a visitor. An entry wins over the ConfigMap.
    fn mapped(&self, visitor: &Visitor) -> Result<(String, Vec<String>), String> {
        let mode = self.cluster.shown.access_config.authentication_mode;
        if mode.reads_entries()
            && let Some(entry) = AccessEntry::of(
                self.state,
                &self.cluster.shown.name,
                &visitor.principal,
                visitor.principal_id,
            )
        {
            let name = self.fill(&entry.username, visitor)?;
            return Ok((name, entry.kubernetes_groups));
        }
        if !mode.reads_entries() && visitor.principal == self.cluster.creator_arn {
            return Ok((CREATOR.to_owned(), vec![MASTERS.to_owned()]));
        }
        if mode.reads_config_map()
            && let Some(found) = AwsAuth::of(self.objects).find(&visitor.canonical, visitor.account)
        {
            let name = self.fill(&found.username, visitor)?;
            return Ok((name, found.groups));
        }
        Err(format!("ARN is not mapped: {}", visitor.canonical))
    }

    fn fill(&self, template: &str, visitor: &Visitor) -> Result<String, String> {
        let values = template::Values {
            account: visitor.account,
            access_key_id: visitor.access_key_id,
            session_name: visitor.session_name,
            dns_name_of: self.dns_name_of,
        };
        template::fill(template, &values)
    }
}

/// What a caller is to aws-iam-authenticator.
struct Visitor<'a> {
    account: &'a str,
    access_key_id: &'a str,
    arn: &'a str,
    /// The user, or the session's role with its path: what an access entry names.
    principal: String,
    /// The same, a role without its path: what a session's ARN tells.
    canonical: String,
    /// `AIDA…`, `AROA…`
    principal_id: &'a str,
    /// Empty for users.
    session_name: &'a str,
}

impl<'a> Visitor<'a> {
    fn of(account: &'a str, caller: &'a Caller) -> Self {
        let role = caller.session.as_ref().and_then(|session| session.role_arn.as_deref());
        let principal = role.unwrap_or(&caller.arn).to_owned();
        let (principal_id, session_name) = match role {
            Some(_) => caller.user_id.split_once(':').unwrap_or((&caller.user_id, "")),
            None => (&*caller.user_id, ""),
        };
        Self {
            account,
            access_key_id: &caller.access_key_id,
            arn: &caller.arn,
            canonical: canonical(&principal),
            principal,
            principal_id,
            session_name,
        }
    }

    fn user(&self, name: &str, groups: Vec<String>) -> User {
        let extra: BTreeMap<Box<str>, Vec<Box<str>>> = [
            ("accessKeyId", self.access_key_id),
            ("arn", self.arn),
            (CANONICAL_ARN, &*self.canonical),
            ("principalId", self.principal_id),
            ("sessionName", self.session_name),
            ("sigs.k8s.io/aws-iam-authenticator/principalId", self.principal_id),
        ]
        .map(|(key, value)| (key.into(), vec![value.into()]))
        .into();
        User {
            name: name.into(),
            uid: format!("aws-iam-authenticator:{}:{}", self.account, self.principal_id).into(),
            groups: groups.into_iter().map(Into::into).collect(),
            extra,
        }
    }
}

/// A principal's ARN as it can be told from a session: a role's without its path. Names of roles are unique without it.
pub(crate) fn canonical(principal: &str) -> String {
    match principal.split_once(":role/") {
        Some((account, path)) => {
            format!("{account}:role/{}", path.rsplit('/').next().unwrap_or(path))
        }
        None => principal.to_owned(),
    }
}

/// What the access entries of a cluster give, for its authorizer. It depends on the cluster, its entries, and the users and roles that
/// there are: who has the ARN of one that is gone has nothing of its entry.
pub fn grants(account: &Snapshot, cluster: &ClusterRecord) -> Vec<AccessGrant> {
    if !cluster.shown.access_config.authentication_mode.reads_entries() {
        return Vec::new();
    }
    let entries =
        state::list::<AccessEntry>(account, &cluster.shown.name).into_iter().map(|kept| kept.record);
    let entries = entries.filter(|entry| {
        let number = entry.principal_arn.split(':').nth(4).unwrap_or_default();
        principal_id(account, number, &entry.principal_arn).is_some_and(|id| entry.is_of(&id))
    });
    let grants_of = |entry: AccessEntry| {
        let principal = canonical(&entry.principal_arn);
        entry.policies.into_iter().map(move |policy| AccessGrant {
            principal: principal.clone(),
            policy: policy.policy_arn.rsplit('/').next().unwrap_or_default().to_owned(),
            namespaces: (policy.access_scope.r#type != "cluster").then_some(policy.access_scope.namespaces),
        })
    };
    entries.flat_map(grants_of).collect()
}

#[cfg(test)]
mod tests;
