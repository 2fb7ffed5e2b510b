//! What IAM keeps. Names are unique without regard to case, so a record's key is its name in lower case; all have an empty owner.

use std::collections::BTreeMap;

use object::{Resource, Snapshot, Time};
use serde::{Deserialize, Serialize};

use crate::state::{self, Kept, Record};

pub type Tags = BTreeMap<String, String>;

/// What every entity has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Common {
    pub name: String,
    /// Begins and ends with a slash.
    pub path: String,
    /// `AIDA…`, `AROA…`, `AGPA…`, `ANPA…`, `AIPA…`; empty for an identity provider.
    pub id: String,
    pub arn: String,
    pub created: Time,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: Tags,
}

/// What a user, a group or a role may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permissions {
    /// Name and document.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inline: BTreeMap<String, String>,
    /// ARNs of managed policies, in the order in which they were attached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attached: Vec<String>,
    /// The ARN of the managed policy that bounds them; groups have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boundary: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub common: Common,
    #[serde(default)]
    pub permissions: Permissions,
    /// Names of groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub common: Common,
    #[serde(default)]
    pub permissions: Permissions,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    pub common: Common,
    #[serde(default)]
    pub permissions: Permissions,
    /// Who may assume it: a policy's text, as it was given.
    pub trust: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub max_session_seconds: i64,
}

/// A managed policy of the account; AWS's own are rows of [`super::managed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    pub common: Common,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// In the order of their making; five at most.
    pub versions: Vec<PolicyVersion>,
    /// `v1`
    pub default_version: String,
    /// The number of the next version: none is used twice.
    pub next_version: u32,
    pub updated: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVersion {
    /// `v1`
    pub id: String,
    pub document: String,
    pub created: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceProfile {
    pub common: Common,
    /// The name of its one role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// An OpenID Connect provider. Its name is the URL without the scheme, its key that without the port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OidcProvider {
    pub common: Common,
    /// The audiences that it may issue tokens for.
    pub client_ids: Vec<String>,
    pub thumbprints: Vec<String>,
}

/// Names of the account besides its number. The record's name is the alias; there is one at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    pub created: Time,
}

impl Record for User {
    const RESOURCE: Resource = Resource::new("users.iam");
}
impl Record for Group {
    const RESOURCE: Resource = Resource::new("groups.iam");
}
impl Record for Role {
    const RESOURCE: Resource = Resource::new("roles.iam");
}
impl Record for Policy {
    const RESOURCE: Resource = Resource::new("policies.iam");
}
impl Record for InstanceProfile {
    const RESOURCE: Resource = Resource::new("instanceprofiles.iam");
}
impl Record for OidcProvider {
    const RESOURCE: Resource = Resource::new("oidcproviders.iam");
}
impl Record for Alias {
    const RESOURCE: Resource = Resource::new("aliases.iam");
}

impl Policy {
    /// The version that is in force.
    pub fn document(&self) -> &str {
        let version = self.versions.iter().find(|version| version.id == self.default_version);
        version.map_or("", |version| &version.document)
    }
}

/// The user, role or group of a name.
pub fn named<T: Record>(state: &Snapshot, name: &str) -> Option<Kept<T>> {
    state::get(state, "", &name.to_ascii_lowercase())
}

/// The role of an ARN, if there is one with this very ARN, path included.
pub fn role_of_arn(state: &Snapshot, arn: &str) -> Option<Kept<Role>> {
    let role = named::<Role>(state, last_segment(arn))?;
    (role.record.common.arn == arn).then_some(role)
}

/// The user of an ARN.
pub fn user_of_arn(state: &Snapshot, arn: &str) -> Option<Kept<User>> {
    let user = named::<User>(state, last_segment(arn))?;
    (user.record.common.arn == arn).then_some(user)
}

/// What is a principal's own besides its ARN, which another may have after it: `AIDA…`, `AROA…`, the account's number for its root.
pub fn principal_id(state: &Snapshot, account: &str, arn: &str) -> Option<String> {
    if arn == format!("arn:aws:iam::{account}:root") {
        return Some(account.to_owned());
    }
    let user = || user_of_arn(state, arn).map(|kept| kept.record.common.id);
    role_of_arn(state, arn).map(|kept| kept.record.common.id).or_else(user)
}

/// The instance profile of an ARN, or of a name.
pub fn instance_profile(state: &Snapshot, name_or_arn: &str) -> Option<Kept<InstanceProfile>> {
    let profile = named::<InstanceProfile>(state, last_segment(name_or_arn))?;
    let is_meant = !name_or_arn.starts_with("arn:") || profile.record.common.arn == name_or_arn;
    is_meant.then_some(profile)
}

/// `node` of `arn:aws:iam::…:role/path/node`, and of `node`.
pub(super) fn last_segment(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}
