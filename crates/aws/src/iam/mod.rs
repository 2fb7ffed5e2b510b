//! Who there is in the account, and what they may do.
//!
//! [`record`] is what the account's store keeps of it; each other file is a noun or a capability that several nouns share.
//! What of it decides a call is in [`caller`].

mod access_key;
mod account;
mod attached;
mod boundaries;
pub mod caller;
mod documents;
mod entity;
mod explain;
pub mod genesis;
mod group;
mod inline;
mod instance_profile;
pub mod managed;
mod oidc;
mod policy;
pub mod record;
mod role;
pub mod service_linked;
mod tags;
mod trust;
mod user;

use serde_json::{Value, json};

pub(crate) use entity::given_tags;
pub use explain::{Explanation, Question, explain};
pub use trust::{Trust, names_service, trust};

use entity::{Entity, subject, subject_of_new};
use record::{Group, InstanceProfile, OidcProvider, Policy, Role, User};

use crate::service::{Operation, Service, Subject};
use crate::{Answer, Context, Fault};

/// The roles of AWS's services are theirs; everything else may be changed.
fn is_free<T: Entity>(entity: &T) -> Result<(), Fault> {
    let common = entity.common();
    if T::NOUN != Role::NOUN || !common.path.starts_with(role::SERVICE_PATH) {
        return Ok(());
    }
    Err(role::is_protected(&common.name))
}

/// Answers with a whole list. The pages of it are cut where the answer is written; what has none is never truncated.
fn listed(member: &str, items: impl IntoIterator<Item = Value>) -> Result<Answer, Fault> {
    let items: Value = items.into_iter().collect();
    Ok(Answer::read(json!({"IsTruncated": false, (member): items})))
}

/// What a list is about: everything of its kind under the path that is asked for.
fn subject_of_list<T: Entity>(context: &Context, input: &Value) -> Subject {
    let prefix = input["PathPrefix"].as_str().unwrap_or("/");
    Subject::of(format!("arn:aws:iam::{}:{}{prefix}", context.account, T::NOUN))
}

macro_rules! operations {
    ($($name:literal, $subject:expr, $run:expr;)*) => {
        &[$(Operation { name: $name, subject: $subject, run: $run }),*]
    };
}

pub const SERVICE: Service = Service {
    signing_name: "iam",
    action_prefix: "iam",
    operations: operations! {
        "AddClientIDToOpenIDConnectProvider", subject::<OidcProvider>, oidc::add_client_id;
        "AddRoleToInstanceProfile", instance_profile::subject_of_role, instance_profile::add_role;
        "AddUserToGroup", subject::<Group>, group::add_user;
        "AttachGroupPolicy", attached::subject::<Group>, attached::attach::<Group>;
        "AttachRolePolicy", attached::subject::<Role>, attached::attach::<Role>;
        "AttachUserPolicy", attached::subject::<User>, attached::attach::<User>;
        "CreateAccessKey", user::subject, access_key::create;
        "CreateAccountAlias", |_, _| Subject::any(), account::create_alias;
        "CreateGroup", |c, i| subject_of_new::<Group>("GroupName", c, i), group::create;
        "CreateInstanceProfile", |c, i| subject_of_new::<InstanceProfile>("InstanceProfileName", c, i), instance_profile::create;
        "CreateOpenIDConnectProvider", oidc::subject_of_new, oidc::create;
        "CreatePolicy", policy::subject_of_new, policy::create;
        "CreatePolicyVersion", subject::<Policy>, policy::create_version;
        "CreateRole", |c, i| subject_of_new::<Role>("RoleName", c, i), role::create;
        "CreateServiceLinkedRole", service_linked::subject, service_linked::create;
        "CreateUser", |c, i| subject_of_new::<User>("UserName", c, i), user::create;
        "DeleteAccessKey", user::subject, access_key::delete;
        "DeleteAccountAlias", |_, _| Subject::any(), account::delete_alias;
        "DeleteGroup", subject::<Group>, group::delete;
        "DeleteGroupPolicy", subject::<Group>, inline::delete::<Group>;
        "DeleteInstanceProfile", subject::<InstanceProfile>, instance_profile::delete;
        "DeleteLoginProfile", user::subject, user::no_login_profile;
        "DeleteOpenIDConnectProvider", subject::<OidcProvider>, oidc::delete;
        "DeletePolicy", subject::<Policy>, policy::delete;
        "DeletePolicyVersion", subject::<Policy>, policy::delete_version;
        "DeleteRole", subject::<Role>, role::delete;
        "DeleteRolePermissionsBoundary", subject::<Role>, boundaries::delete::<Role>;
        "DeleteRolePolicy", subject::<Role>, inline::delete::<Role>;
        "DeleteServiceLinkedRole", subject::<Role>, service_linked::delete;
        "DeleteUser", subject::<User>, user::delete;
        "DeleteUserPermissionsBoundary", subject::<User>, boundaries::delete::<User>;
        "DeleteUserPolicy", subject::<User>, inline::delete::<User>;
        "DetachGroupPolicy", attached::subject::<Group>, attached::detach::<Group>;
        "DetachRolePolicy", attached::subject::<Role>, attached::detach::<Role>;
        "DetachUserPolicy", attached::subject::<User>, attached::detach::<User>;
        "GetAccessKeyLastUsed", access_key::subject_of_use, access_key::last_used;
        "GetAccountSummary", |_, _| Subject::any(), account::summary;
        "GetGroup", subject::<Group>, group::get;
        "GetGroupPolicy", subject::<Group>, inline::get::<Group>;
        "GetInstanceProfile", subject::<InstanceProfile>, instance_profile::get;
        "GetLoginProfile", user::subject, user::no_login_profile;
        "GetOpenIDConnectProvider", subject::<OidcProvider>, oidc::get;
        "GetPolicy", subject::<Policy>, policy::get;
        "GetPolicyVersion", subject::<Policy>, policy::get_version;
        "GetRole", subject::<Role>, role::get;
        "GetRolePolicy", subject::<Role>, inline::get::<Role>;
        "GetServiceLinkedRoleDeletionStatus", |_, _| Subject::any(), service_linked::deletion_status;
        "GetUser", user::subject, user::get;
        "GetUserPolicy", subject::<User>, inline::get::<User>;
        "ListAccessKeys", user::subject, access_key::list;
        "ListAccountAliases", |_, _| Subject::any(), account::aliases;
        "ListAttachedGroupPolicies", subject::<Group>, attached::list::<Group>;
        "ListAttachedRolePolicies", subject::<Role>, attached::list::<Role>;
        "ListAttachedUserPolicies", subject::<User>, attached::list::<User>;
        "ListEntitiesForPolicy", subject::<Policy>, policy::entities;
        "ListGroupPolicies", subject::<Group>, inline::list::<Group>;
        "ListGroups", subject_of_list::<Group>, group::list;
        "ListGroupsForUser", subject::<User>, user::groups;
        "ListInstanceProfileTags", subject::<InstanceProfile>, tags::list::<InstanceProfile>;
        "ListInstanceProfiles", subject_of_list::<InstanceProfile>, instance_profile::list;
        "ListInstanceProfilesForRole", subject::<Role>, instance_profile::list_for_role;
        "ListMFADevices", user::subject, user::no_mfa_devices;
        "ListOpenIDConnectProviderTags", subject::<OidcProvider>, tags::list::<OidcProvider>;
        "ListOpenIDConnectProviders", |_, _| Subject::any(), oidc::list;
        "ListPolicies", |_, _| Subject::any(), policy::list;
        "ListPolicyTags", subject::<Policy>, tags::list::<Policy>;
        "ListPolicyVersions", subject::<Policy>, policy::list_versions;
        "ListRolePolicies", subject::<Role>, inline::list::<Role>;
        "ListRoleTags", subject::<Role>, tags::list::<Role>;
        "ListRoles", subject_of_list::<Role>, role::list;
        "ListSSHPublicKeys", user::subject, user::no_ssh_keys;
        "ListServiceSpecificCredentials", user::subject, user::no_service_credentials;
        "ListSigningCertificates", user::subject, user::no_certificates;
        "ListUserPolicies", subject::<User>, inline::list::<User>;
        "ListUserTags", subject::<User>, tags::list::<User>;
        "ListUsers", subject_of_list::<User>, user::list;
        "PutGroupPolicy", subject::<Group>, inline::put::<Group>;
        "PutRolePermissionsBoundary", boundaries::subject::<Role>, boundaries::put::<Role>;
        "PutRolePolicy", subject::<Role>, inline::put::<Role>;
        "PutUserPermissionsBoundary", boundaries::subject::<User>, boundaries::put::<User>;
        "PutUserPolicy", subject::<User>, inline::put::<User>;
        "RemoveClientIDFromOpenIDConnectProvider", subject::<OidcProvider>, oidc::remove_client_id;
        "RemoveRoleFromInstanceProfile", subject::<InstanceProfile>, instance_profile::remove_role;
        "RemoveUserFromGroup", subject::<Group>, group::remove_user;
        "SetDefaultPolicyVersion", subject::<Policy>, policy::set_default_version;
        "TagInstanceProfile", subject::<InstanceProfile>, tags::tag::<InstanceProfile>;
        "TagOpenIDConnectProvider", subject::<OidcProvider>, tags::tag::<OidcProvider>;
        "TagPolicy", subject::<Policy>, tags::tag::<Policy>;
        "TagRole", subject::<Role>, tags::tag::<Role>;
        "TagUser", subject::<User>, tags::tag::<User>;
        "UntagInstanceProfile", subject::<InstanceProfile>, tags::untag::<InstanceProfile>;
        "UntagOpenIDConnectProvider", subject::<OidcProvider>, tags::untag::<OidcProvider>;
        "UntagPolicy", subject::<Policy>, tags::untag::<Policy>;
        "UntagRole", subject::<Role>, tags::untag::<Role>;
        "UntagUser", subject::<User>, tags::untag::<User>;
        "UpdateAccessKey", user::subject, access_key::update;
        "UpdateAssumeRolePolicy", subject::<Role>, role::update_trust;
        "UpdateGroup", subject::<Group>, group::update;
        "UpdateOpenIDConnectProviderThumbprint", subject::<OidcProvider>, oidc::update_thumbprints;
        "UpdateRole", subject::<Role>, role::update;
        "UpdateRoleDescription", subject::<Role>, role::update_description;
        "UpdateUser", subject::<User>, user::update;
    },
};
