//! The access policies of EKS: an authorizer beside RBAC, with AWS's fixed sets of rules for the principals of access entries.
//!
//! They are no objects of the cluster, and `kubectl auth can-i --list` does not tell them. Who is impersonated does not have them.
//! <https://docs.aws.amazon.com/eks/latest/userguide/access-policy-permissions.html>

use std::collections::BTreeMap;
use std::sync::LazyLock;

use plan::{AccessGrant, Attributes, CANONICAL_ARN, Decision, User};

use crate::bootstrap::rules_of;
use crate::rbac::Rule;

/// What the entries of a cluster give, by principal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessPolicies {
    grants: BTreeMap<String, Vec<AccessGrant>>,
}

type Rules = Vec<Rule>;

/// Policy and rules. What is called after a default cluster role has its rules, as upstream made them.
static POLICIES: LazyLock<Vec<(&'static str, Rules)>> = LazyLock::new(|| {
    let of = |roles: &[&str]| roles.iter().flat_map(|role| rules_of(role)).collect::<Rules>();
    let words = |words: &[&str]| words.iter().map(|&word| word.into()).collect();
    let see_all = Rule {
        api_groups: words(&["*"]),
        resources: words(&["*"]),
        verbs: words(&["get", "list", "watch"]),
        ..Rule::default()
    };
    let (admin, edit, view) =
        ("system:aggregate-to-admin", "system:aggregate-to-edit", "system:aggregate-to-view");
    vec![
        ("AmazonEKSAdminPolicy", of(&[admin, edit, view])),
        ("AmazonEKSAdminViewPolicy", vec![see_all]),
        ("AmazonEKSClusterAdminPolicy", of(&["cluster-admin"])),
        ("AmazonEKSEditPolicy", of(&[edit, view])),
        ("AmazonEKSViewPolicy", of(&[view])),
    ]
});

impl AccessPolicies {
    pub fn new(grants: impl IntoIterator<Item = AccessGrant>) -> Self {
        let mut policies = Self::default();
        for grant in grants {
            policies.grants.entry(grant.principal.clone()).or_default().push(grant);
        }
        policies
    }

    /// Allows, or has no opinion: access policies deny nothing.
    pub fn authorize(&self, user: &User, attributes: &Attributes) -> Decision {
        let principal = user.extra.get(CANONICAL_ARN).and_then(|values| values.first());
        let grants = principal.and_then(|principal| self.grants.get(&**principal));
        let Some(grant) = grants.into_iter().flatten().find(|grant| allows(grant, attributes)) else {
            return Decision::default();
        };
        let AccessGrant { principal, policy, .. } = grant;
        // As EKS' audit log tells it.
        let reason = format!(
            "EKS Access Policy: allowed by ClusterRoleBinding \"{principal}+{policy}\" of ClusterRole \"{policy}\" to User \"{}\"",
            user.name
        );
        Decision { allowed: true, reason, ..Decision::default() }
    }
}

fn allows(grant: &AccessGrant, attributes: &Attributes) -> bool {
    let is_in_scope = grant.namespaces.as_ref().is_none_or(|names| {
        !attributes.namespace.is_empty() && names.iter().any(|name| matches(name, attributes.namespace))
    });
    let rules = POLICIES.iter().find(|(name, _)| *name == grant.policy).map(|(_, rules)| rules);
    is_in_scope && rules.into_iter().flatten().any(|rule| rule.allows(attributes))
}

/// `dev-*`: a star stands for any text, wherever it is.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:iam::1:role/dev";

    fn user() -> User {
        let mut user = User::new("arn:aws:sts::1:assumed-role/dev/one", &["system:authenticated"]);
        user.extra.insert(CANONICAL_ARN.into(), vec![ARN.into()]);
        user
    }

    /// `get pods/log default`, `list nodes`, `get /metrics`
    fn asks(policy: &str, namespaces: Option<&[&str]>, request: &str) -> bool {
        let namespaces = namespaces.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        let (principal, policy) = (ARN.to_owned(), policy.to_owned());
        let policies = AccessPolicies::new([AccessGrant { principal, policy, namespaces }]);
        let words: Vec<&str> = request.split(' ').collect();
        let (group, what) = words[1].split_once(':').unwrap_or(("", words[1]));
        let mut attributes = Attributes { verb: words[0], group, ..Attributes::default() };
        if what.starts_with('/') {
            attributes.path = what;
        } else {
            (attributes.resource, attributes.subresource) = what.split_once('/').unwrap_or((what, ""));
        }
        attributes.namespace = words.get(2).copied().unwrap_or_default();
        policies.authorize(&user(), &attributes).allowed
    }

    #[test]
    fn a_policy_allows_what_it_says_where_it_says() {
        let (admin, view_all, cluster) =
            ("AmazonEKSAdminPolicy", "AmazonEKSAdminViewPolicy", "AmazonEKSClusterAdminPolicy");
        let (edit, view) = ("AmazonEKSEditPolicy", "AmazonEKSViewPolicy");
        let dev: Option<&[&str]> = Some(&["dev-*", "shop"]);
        for (policy, namespaces, request, allowed) in [
            (cluster, None, "delete nodes", true),
            (cluster, None, "get /metrics", true),
            (cluster, dev, "delete pods dev-1", true),
            (cluster, dev, "delete pods prod", false),
            (cluster, dev, "delete nodes", false),
            (cluster, dev, "get /metrics", false),
            (admin, None, "create rbac.authorization.k8s.io:rolebindings a", true),
            (admin, None, "create rbac.authorization.k8s.io:clusterroles", false),
            (admin, None, "get nodes", false),
            (admin, dev, "delete apps:deployments shop", true),
            (view_all, None, "get secrets a", true),
            (view_all, None, "list nodes", true),
            (view_all, None, "create pods a", false),
            (view_all, None, "get /metrics", false),
            (edit, None, "create apps:deployments a", true),
            (edit, None, "get secrets a", true),
            (edit, None, "create pods/exec a", true),
            (edit, None, "create rbac.authorization.k8s.io:roles a", false),
            (edit, None, "update endpoints a", false),
            (edit, None, "get endpoints a", true),
            (edit, None, "impersonate serviceaccounts a", true),
            (view, None, "list pods", true),
            (view, None, "list pods a", true),
            (view, None, "get secrets a", false),
            (view, None, "create pods a", false),
            (view, dev, "list pods", false),
            (view, dev, "list pods dev-", true),
            (view, dev, "list pods shop2", false),
            ("AmazonEKSUnknownPolicy", None, "list pods a", false),
        ] {
            assert_eq!(asks(policy, namespaces, request), allowed, "{policy} {namespaces:?} {request}");
        }
    }

    #[test]
    fn who_did_not_log_in_as_the_principal_has_nothing() {
        let grant = AccessGrant {
            principal: ARN.into(),
            policy: "AmazonEKSClusterAdminPolicy".into(),
            namespaces: None,
        };
        let policies = AccessPolicies::new([grant]);
        let get = Attributes { verb: "get", resource: "pods", ..Attributes::default() };
        assert!(policies.authorize(&user(), &get).allowed);
        assert!(!policies.authorize(&User::new(ARN, &[]), &get).allowed);
        let mut other = user();
        other.extra.insert(CANONICAL_ARN.into(), vec!["arn:aws:iam::1:role/other".into()]);
        assert!(!policies.authorize(&other, &get).allowed);
    }

    #[test]
    fn patterns_of_namespaces() {
        for (pattern, name, matching) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "x", true),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, name), matching, "{pattern} {name}");
        }
    }
}
