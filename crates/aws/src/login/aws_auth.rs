//! The ConfigMap `aws-auth` in kube-system: what mapped principals before there were access entries.
//! <https://docs.aws.amazon.com/eks/latest/userguide/auth-configmap.html>

use std::collections::BTreeMap;

use object::{Resource, Snapshot};
use serde::Deserialize;
use serde::de::DeserializeOwned;

const CONFIG_MAPS: Resource = Resource::new("configmaps");

/// What the ConfigMap says. A part that cannot be read maps nobody; the others hold all the same, as with aws-iam-authenticator.
#[derive(Default)]
pub(super) struct AwsAuth {
    roles: Vec<RoleMapping>,
    users: Vec<UserMapping>,
    accounts: Vec<String>,
}

#[derive(Deserialize)]
struct RoleMapping {
    #[serde(default)]
    rolearn: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    groups: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct UserMapping {
    #[serde(default)]
    userarn: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    groups: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
struct View {
    #[serde(default)]
    data: BTreeMap<String, String>,
}

/// Whom a principal is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// A template.
    pub username: String,
    pub groups: Vec<String>,
}

impl AwsAuth {
    /// Of a cluster. Without the ConfigMap nobody is mapped.
    pub fn of(objects: &Snapshot) -> Self {
        let object = objects.find(CONFIG_MAPS, "kube-system", "aws-auth");
        let view: View = object.and_then(|object| object.decode().ok()).unwrap_or_default();
        Self::read(&view.data)
    }

    fn read(data: &BTreeMap<String, String>) -> Self {
        Self {
            roles: part(data, "mapRoles"),
            users: part(data, "mapUsers"),
            // With quotes or without: read as text, a number keeps its zeros.
            accounts: part(data, "mapAccounts"),
        }
    }

    /// By the principal's canonical ARN; its case does not count.
    pub fn find(&self, canonical: &str, account: &str) -> Option<Mapping> {
        let is_meant = |arn: &str| arn.eq_ignore_ascii_case(canonical);
        if let Some(role) = self.roles.iter().find(|role| is_meant(&role.rolearn)) {
            return Some(mapping(&role.username, role.groups.as_ref()));
        }
        if let Some(user) = self.users.iter().find(|user| is_meant(&user.userarn)) {
            return Some(mapping(&user.username, user.groups.as_ref()));
        }
        let is_mapped = self.accounts.iter().any(|known| known == account);
        is_mapped.then(|| Mapping { username: canonical.to_owned(), groups: Vec::new() })
    }
}

fn mapping(username: &str, groups: Option<&Vec<String>>) -> Mapping {
    Mapping { username: username.to_owned(), groups: groups.cloned().unwrap_or_default() }
}

/// One key of the ConfigMap: a list in YAML.
fn part<T: DeserializeOwned>(data: &BTreeMap<String, String>, key: &str) -> Vec<T> {
    let text = data.get(key).map(String::as_str).unwrap_or_default();
    if text.trim().is_empty() {
        return Vec::new();
    }
    serde_saphyr::from_str(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_mapped_by_its_arn_or_its_account() {
        let data = [
            (
                "mapRoles",
                "- rolearn: arn:aws:iam::1:role/Node\n  username: system:node:{{EC2PrivateDNSName}}\n  groups:\n  - system:bootstrappers\n  - system:nodes\n",
            ),
            (
                "mapUsers",
                "- userarn: arn:aws:iam::1:user/ops/jo\n  username: jo\n  groups: [system:masters]\n",
            ),
            ("mapAccounts", "- \"222233334444\"\n- 012345678901\n"),
        ];
        let data: BTreeMap<String, String> =
            data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        let auth = AwsAuth::read(&data);
        let found = |arn: &str, account: &str| auth.find(arn, account).map(|one| (one.username, one.groups));
        let groups = |groups: &[&str]| groups.iter().map(|&one| one.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            found("arn:aws:iam::1:role/node", "1"),
            Some((
                "system:node:{{EC2PrivateDNSName}}".into(),
                groups(&["system:bootstrappers", "system:nodes"])
            ))
        );
        assert_eq!(
            found("arn:aws:iam::1:user/ops/jo", "1"),
            Some(("jo".into(), groups(&["system:masters"])))
        );
        let other = "arn:aws:iam::222233334444:user/x";
        assert_eq!(found(other, "222233334444"), Some((other.into(), Vec::new())));
        assert!(found("arn:aws:iam::012345678901:user/x", "012345678901").is_some());
        assert_eq!(found("arn:aws:iam::1:user/jo", "1"), None);
    }

    #[test]
    fn what_cannot_be_read_maps_nobody_and_spoils_nothing() {
        let data = [("mapRoles", "- rolearn: ["), ("mapUsers", "- userarn: a\n  username: u\n")];
        let data = data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        let auth = AwsAuth::read(&data);
        assert!(auth.roles.is_empty());
        assert_eq!(auth.find("a", "1").map(|one| one.username), Some("u".into()));
    }
}
