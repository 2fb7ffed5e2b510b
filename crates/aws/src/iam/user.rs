use serde_json::{Value, json};

use super::documents::forget_principal;
use super::entity::{arn, boundary, find, new, no_such_entity, tag_list, text};
use super::record::{Group, Permissions, User, named, user_of_arn};
use super::role::{conflict, is_bare};
use super::{boundaries, group, listed, tags};
use crate::credentials::AccessKey;
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault, Subject};

/// The user that an input names, or else the caller.
pub(super) fn named_or_caller(context: &Context, input: &Value) -> Result<Kept<User>, Fault> {
    if input.get("UserName").is_some() {
        return find::<User>(context.state, input);
    }
    user_of_arn(context.state, &context.caller.arn).ok_or_else(|| {
        Fault::new("ValidationError", "Must specify userName when calling with non-User credentials")
    })
}

/// What a call is about whose `UserName` may be left out.
pub(super) fn subject(context: &Context, input: &Value) -> Subject {
    if input.get("UserName").is_some() {
        return super::entity::subject::<User>(context, input);
    }
    Subject::of(&*context.caller.arn)
}

/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateUser.html>
pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(input, "UserName");
    if named::<User>(context.state, name).is_some() {
        return Err(already_exists(name));
    }
    let permissions =
        Permissions { boundary: boundaries::given(context.state, input)?, ..Permissions::default() };
    let common = new(context, input, "UserName", "user", "AIDA");
    let mut user = User { common, permissions, groups: Vec::new() };
    user.common.tags = tags::of_new(input)?;
    let mut changes = Changes::default();
    boundaries::hold(context.state, &mut changes, user.permissions.boundary.as_deref());
    changes.create("", &name.to_ascii_lowercase(), &user);
    Ok(Answer::write(json!({"User": whole(&user)}), changes))
}

pub fn get(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let account = context.account;
    if input.get("UserName").is_none() && context.caller.user_id == account {
        let root = json!({
            "Path": "/", "UserId": account, "Arn": format!("arn:aws:iam::{account}:root"),
            "UserName": "root", "CreateDate": object::Time::default(),
        });
        return Ok(Answer::read(json!({"User": root})));
    }
    Ok(Answer::read(json!({"User": whole(&named_or_caller(context, input)?.record)})))
}

pub fn list(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let prefix = input["PathPrefix"].as_str().unwrap_or("/");
    let users = state::list::<User>(context.state, "").into_iter().map(|kept| kept.record);
    let users = users.filter(|user| user.common.path.starts_with(prefix));
    listed("Users", users.map(|user| brief(&user)))
}

/// Renames and moves a user, whose keys learn of it. Policies that named the user name its id from then on, as with AWS they name nobody.
pub fn update(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let old = find::<User>(context.state, input)?;
    let mut user = old.record.clone();
    let common = &mut user.common;
    if let Some(name) = input["NewUserName"].as_str() {
        let other = named::<User>(context.state, name);
        if other.is_some_and(|other| other.record.common.id != common.id) {
            return Err(already_exists(name));
        }
        common.name = name.to_owned();
    }
    if let Some(path) = input["NewPath"].as_str() {
        common.path = path.to_owned();
    }
    common.arn = arn(context.account, "user", &common.path, &common.name);
    let mut changes = Changes::default();
    let key = common.name.to_ascii_lowercase();
    if *old.key.name == *key {
        changes.update(&Kept { record: user.clone(), ..old.clone() });
    } else {
        changes.delete(&old);
        changes.create("", &key, &user);
    }
    for mut key in keys(context, &old.record.common.name) {
        key.record.user_name.clone_from(&user.common.name);
        key.record.arn.clone_from(&user.common.arn);
        changes.update(&key);
    }
    if old.record.common.arn != user.common.arn {
        forget_principal(context.state, &mut changes, &old.record.common.arn, &user.common.id);
    }
    Ok(Answer::done(changes))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let user = find::<User>(context.state, input)?;
    let record = &user.record;
    if !record.groups.is_empty() {
        return Err(conflict("must remove users from group first"));
    }
    if !keys(context, &record.common.name).is_empty() {
        return Err(conflict("must delete access keys first"));
    }
    is_bare(&record.permissions)?;
    let mut changes = Changes::default();
    changes.delete(&user);
    forget_principal(context.state, &mut changes, &record.common.arn, &record.common.id);
    Ok(Answer::done(changes))
}

pub fn groups(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let user = find::<User>(context.state, input)?;
    let groups = user.record.groups.iter().filter_map(|name| named::<Group>(context.state, name));
    listed("Groups", groups.map(|kept| group::shown(&kept.record)))
}

/// Nobody has a password here, so there is nothing to find and nothing to delete.
pub fn no_login_profile(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let user = named_or_caller(context, input)?;
    Err(no_such_entity(format!("Login Profile for User {} cannot be found.", user.record.common.name)))
}

/// Lists that are empty for every user, since nothing here makes what they would hold.
pub fn no_certificates(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    none(context, input, "Certificates")
}

pub fn no_mfa_devices(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    none(context, input, "MFADevices")
}

pub fn no_ssh_keys(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    none(context, input, "SSHPublicKeys")
}

pub fn no_service_credentials(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    named_or_caller(context, input)?;
    Ok(Answer::read(json!({"ServiceSpecificCredentials": []})))
}

fn none(context: &Context, input: &Value, member: &str) -> Result<Answer, Fault> {
    named_or_caller(context, input)?;
    listed(member, [])
}

/// The keys of a user.
pub(super) fn keys(context: &Context, user: &str) -> Vec<Kept<AccessKey>> {
    let keys = state::list::<AccessKey>(context.state, "").into_iter();
    keys.filter(|key| key.record.user_name == user).collect()
}

fn already_exists(name: &str) -> Fault {
    Fault::new("EntityAlreadyExists", format!("User with name {name} already exists."))
}

pub(super) fn brief(user: &User) -> Value {
    let common = &user.common;
    json!({
        "Path": common.path, "UserName": common.name, "UserId": common.id, "Arn": common.arn,
        "CreateDate": common.created,
    })
}

fn whole(user: &User) -> Value {
    let mut shown = brief(user);
    if !user.common.tags.is_empty() {
        shown["Tags"] = tag_list(&user.common.tags);
    }
    if let Some(boundary) = boundary(&user.permissions) {
        shown["PermissionsBoundary"] = boundary;
    }
    shown
}
