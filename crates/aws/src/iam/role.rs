use serde_json::{Value, json};

use super::documents::{check_trust, forget_principal};
use super::entity::{self, boundary, find, new, percent_encoded, tag_list, text};
use super::record::{InstanceProfile, Permissions, Role, named};
use super::{boundaries, is_free, listed, tags};
use crate::state::{self, Changes};
use crate::{Answer, Context, Fault};

/// How long a role's session lives at most, unless told.
const SESSION_SECONDS: i64 = 3_600;
/// The path of the roles that only AWS's services change.
pub(super) const SERVICE_PATH: &str = "/aws-service-role/";

/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateRole.html>
pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(input, "RoleName");
    if named::<Role>(context.state, name).is_some() {
        return Err(Fault::new("EntityAlreadyExists", format!("Role with name {name} already exists.")));
    }
    if entity::path(input).starts_with(SERVICE_PATH) {
        let message =
            format!("Path {SERVICE_PATH} is reserved: create-service-linked-role makes the roles under it");
        return Err(Fault::new("ValidationError", message));
    }
    let trust = text(input, "AssumeRolePolicyDocument");
    check_trust(context, trust, "")?;
    let permissions =
        Permissions { boundary: boundaries::given(context.state, input)?, ..Permissions::default() };
    let mut role = Role {
        common: new(context, input, "RoleName", "role", "AROA"),
        permissions,
        trust: trust.to_owned(),
        description: description(input),
        max_session_seconds: input["MaxSessionDuration"].as_i64().unwrap_or(SESSION_SECONDS),
    };
    role.common.tags = tags::of_new(input)?;
    let mut changes = Changes::default();
    boundaries::hold(context.state, &mut changes, role.permissions.boundary.as_deref());
    changes.create("", &name.to_ascii_lowercase(), &role);
    Ok(Answer::write(json!({"Role": whole(&role)}), changes))
}

pub fn get(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let role = find::<Role>(context.state, input)?;
    let mut shown = whole(&role.record);
    // When it was last used is not kept.
    shown["RoleLastUsed"] = json!({});
    Ok(Answer::read(json!({"Role": shown})))
}

pub fn list(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let prefix = input["PathPrefix"].as_str().unwrap_or("/");
    let roles = state::list::<Role>(context.state, "").into_iter().map(|kept| kept.record);
    let roles = roles.filter(|role| role.common.path.starts_with(prefix));
    listed("Roles", roles.map(|role| brief(&role)))
}

pub fn update(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut role = find::<Role>(context.state, input)?;
    is_free(&role.record)?;
    if input.get("Description").is_some() {
        role.record.description = description(input);
    }
    if let Some(seconds) = input["MaxSessionDuration"].as_i64() {
        role.record.max_session_seconds = seconds;
    }
    let mut changes = Changes::default();
    changes.update(&role);
    Ok(Answer::done(changes))
}

pub fn update_description(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut role = find::<Role>(context.state, input)?;
    is_free(&role.record)?;
    role.record.description = description(input);
    let mut changes = Changes::default();
    changes.update(&role);
    Ok(Answer::write(json!({"Role": whole(&role.record)}), changes))
}

/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_UpdateAssumeRolePolicy.html>
pub fn update_trust(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut role = find::<Role>(context.state, input)?;
    is_free(&role.record)?;
    let trust = text(input, "PolicyDocument");
    check_trust(context, trust, &role.record.trust)?;
    role.record.trust = trust.to_owned();
    let mut changes = Changes::default();
    changes.update(&role);
    Ok(Answer::done(changes))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let role = find::<Role>(context.state, input)?;
    is_free(&role.record)?;
    let profiles = state::list::<InstanceProfile>(context.state, "");
    let name = &role.record.common.name;
    if profiles.iter().any(|profile| profile.record.role.as_ref() == Some(name)) {
        return Err(conflict("must remove roles from instance profile first"));
    }
    is_bare(&role.record.permissions)?;
    let mut changes = Changes::default();
    changes.delete(&role);
    forget_principal(context.state, &mut changes, &role.record.common.arn, &role.record.common.id);
    Ok(Answer::done(changes))
}

/// An entity is deleted only without policies.
pub(super) fn is_bare(permissions: &Permissions) -> Result<(), Fault> {
    if !permissions.attached.is_empty() {
        return Err(conflict("must detach all policies first"));
    }
    if !permissions.inline.is_empty() {
        return Err(conflict("must delete policies first"));
    }
    Ok(())
}

pub(super) fn conflict(first: &str) -> Fault {
    Fault::new("DeleteConflict", format!("Cannot delete entity, {first}."))
}

pub(super) fn is_protected(name: &str) -> Fault {
    let message = format!(
        "Cannot perform the operation on the protected role '{name}' - this role is only modifiable by AWS"
    );
    Fault::new("UnmodifiableEntity", message)
}

fn description(input: &Value) -> Option<String> {
    input["Description"].as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A role as lists show it.
pub(super) fn brief(role: &Role) -> Value {
    let common = &role.common;
    let mut shown = json!({
        "Path": common.path, "RoleName": common.name, "RoleId": common.id, "Arn": common.arn,
        "CreateDate": common.created, "AssumeRolePolicyDocument": percent_encoded(&role.trust),
        "MaxSessionDuration": role.max_session_seconds,
    });
    if let Some(description) = &role.description {
        shown["Description"] = json!(description);
    }
    shown
}

pub(super) fn whole(role: &Role) -> Value {
    let mut shown = brief(role);
    if !role.common.tags.is_empty() {
        shown["Tags"] = tag_list(&role.common.tags);
    }
    if let Some(boundary) = boundary(&role.permissions) {
        shown["PermissionsBoundary"] = boundary;
    }
    shown
}
