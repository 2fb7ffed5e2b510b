use serde_json::{Value, json};

use super::entity::{no_such_entity, text};
use super::listed;
use super::record::{Alias, Group, InstanceProfile, OidcProvider, Policy, Role, User};
use crate::state::{self, Changes, Record};
use crate::{Answer, Context, Fault};

/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetAccountSummary.html>
pub fn summary(context: &mut Context, _: &Value) -> Result<Answer, Fault> {
    let state = context.state;
    let count = |resource| state.table(resource).map_or(0, object::Table::len);
    let versions =
        state::list::<Policy>(state, "").iter().map(|kept| kept.record.versions.len()).sum::<usize>();
    Ok(Answer::read(json!({"SummaryMap": {
        "Users": count(User::RESOURCE), "UsersQuota": 5000,
        "Groups": count(Group::RESOURCE), "GroupsQuota": 300,
        "Roles": count(Role::RESOURCE), "RolesQuota": 1000,
        "Policies": count(Policy::RESOURCE), "PoliciesQuota": 1500,
        "PolicyVersionsInUse": versions, "PolicyVersionsInUseQuota": 10000,
        "InstanceProfiles": count(InstanceProfile::RESOURCE), "InstanceProfilesQuota": 1000,
        "Providers": count(OidcProvider::RESOURCE),
        "AccessKeysPerUserQuota": 2, "GroupsPerUserQuota": 10, "VersionsPerPolicyQuota": 5,
        "AttachedPoliciesPerUserQuota": 10, "AttachedPoliciesPerGroupQuota": 10,
        "AttachedPoliciesPerRoleQuota": 10, "PolicySizeQuota": 6144, "UserPolicySizeQuota": 2048,
        "GroupPolicySizeQuota": 5120, "RolePolicySizeQuota": 10240, "AssumeRolePolicySizeQuota": 2048,
        "AccountMFAEnabled": 0, "AccountAccessKeysPresent": 0, "AccountPasswordPresent": 0,
        "AccountSigningCertificatesPresent": 0, "MFADevices": 0, "MFADevicesInUse": 0,
        "ServerCertificates": 0, "ServerCertificatesQuota": 20, "SigningCertificatesPerUserQuota": 2,
        "GlobalEndpointTokenVersion": 2,
    }})))
}

pub fn aliases(context: &mut Context, _: &Value) -> Result<Answer, Fault> {
    let aliases = state::list::<Alias>(context.state, "").into_iter();
    listed("AccountAliases", aliases.map(|kept| json!(&*kept.key.name)))
}

/// An account has one alias: a new one takes the place of the old.
pub fn create_alias(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(input, "AccountAlias");
    let aliases = state::list::<Alias>(context.state, "");
    if aliases.iter().any(|alias| *alias.key.name == *name) {
        let message = format!("The account alias {name} already exists.");
        return Err(Fault::new("EntityAlreadyExists", message));
    }
    let mut changes = Changes::default();
    aliases.iter().for_each(|alias| changes.delete(alias));
    changes.create("", name, &Alias { created: context.now });
    Ok(Answer::done(changes))
}

pub fn delete_alias(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(input, "AccountAlias");
    let alias = state::get::<Alias>(context.state, "", name)
        .ok_or_else(|| no_such_entity(format!("The account alias with name {name} cannot be found.")))?;
    let mut changes = Changes::default();
    changes.delete(&alias);
    Ok(Answer::done(changes))
}
