use serde_json::{Value, json};

use super::entity::{arn, find, new, text};
use super::record::{Group, Permissions, User, named};
use super::role::{conflict, is_bare};
use super::{listed, user};
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault};

/// How many groups a user may be in.
const GROUPS_PER_USER: usize = 10;

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(input, "GroupName");
    if named::<Group>(context.state, name).is_some() {
        return Err(already_exists(name));
    }
    let common = new(context, input, "GroupName", "group", "AGPA");
    let group = Group { common, permissions: Permissions::default() };
    let mut changes = Changes::default();
    changes.create("", &name.to_ascii_lowercase(), &group);
    Ok(Answer::write(json!({"Group": shown(&group)}), changes))
}

/// A group and its users.
pub fn get(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let group = find::<Group>(context.state, input)?;
    let users: Vec<Value> =
        members(context, &group.record).iter().map(|kept| user::brief(&kept.record)).collect();
    let group = shown(&group.record);
    Ok(Answer::read(json!({"Group": group, "Users": users, "IsTruncated": false})))
}

pub fn list(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let prefix = input["PathPrefix"].as_str().unwrap_or("/");
    let groups = state::list::<Group>(context.state, "").into_iter().map(|kept| kept.record);
    let groups = groups.filter(|group| group.common.path.starts_with(prefix));
    listed("Groups", groups.map(|group| shown(&group)))
}

/// Renames and moves a group; its users go with it.
pub fn update(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let old = find::<Group>(context.state, input)?;
    let mut group = old.record.clone();
    let common = &mut group.common;
    if let Some(name) = input["NewGroupName"].as_str() {
        let other = named::<Group>(context.state, name);
        if other.is_some_and(|other| other.record.common.id != common.id) {
            return Err(already_exists(name));
        }
        common.name = name.to_owned();
    }
    if let Some(path) = input["NewPath"].as_str() {
        common.path = path.to_owned();
    }
    common.arn = arn(context.account, "group", &common.path, &common.name);
    let mut changes = Changes::default();
    for mut member in members(context, &old.record) {
        for name in member.record.groups.iter_mut().filter(|name| **name == old.record.common.name) {
            name.clone_from(&group.common.name);
        }
        changes.update(&member);
    }
    let key = group.common.name.to_ascii_lowercase();
    if *old.key.name == *key {
        changes.update(&Kept { record: group, ..old });
    } else {
        changes.delete(&old);
        changes.create("", &key, &group);
    }
    Ok(Answer::done(changes))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let group = find::<Group>(context.state, input)?;
    if !members(context, &group.record).is_empty() {
        return Err(conflict("must remove users from group first"));
    }
    is_bare(&group.record.permissions)?;
    let mut changes = Changes::default();
    changes.delete(&group);
    Ok(Answer::done(changes))
}

pub fn add_user(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let group = find::<Group>(context.state, input)?;
    let mut user = find::<User>(context.state, input)?;
    let name = &group.record.common.name;
    if user.record.groups.contains(name) {
        return Ok(Answer::done(Changes::default()));
    }
    if user.record.groups.len() >= GROUPS_PER_USER {
        let message = format!("Cannot exceed quota for GroupsPerUser: {GROUPS_PER_USER}");
        return Err(Fault::new("LimitExceeded", message));
    }
    user.record.groups.push(name.clone());
    let mut changes = Changes::default();
    changes.update(&user);
    // The group is written too, so that one that goes at the same moment is not joined.
    changes.update(&group);
    Ok(Answer::done(changes))
}

pub fn remove_user(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let group = find::<Group>(context.state, input)?;
    let mut user = find::<User>(context.state, input)?;
    user.record.groups.retain(|name| *name != group.record.common.name);
    let mut changes = Changes::default();
    changes.update(&user);
    Ok(Answer::done(changes))
}

fn members(context: &Context, group: &Group) -> Vec<Kept<User>> {
    let users = state::list::<User>(context.state, "").into_iter();
    users.filter(|user| user.record.groups.contains(&group.common.name)).collect()
}

fn already_exists(name: &str) -> Fault {
    Fault::new("EntityAlreadyExists", format!("Group with name {name} already exists."))
}

pub(super) fn shown(group: &Group) -> Value {
    let common = &group.common;
    json!({
        "Path": common.path, "GroupName": common.name, "GroupId": common.id, "Arn": common.arn,
        "CreateDate": common.created,
    })
}
