use serde_json::{Value, json};

use super::entity::{Entity, find, new, subject as subject_of, tag_list, text};
use super::record::{InstanceProfile, Role, named};
use super::role::{conflict, whole};
use super::{is_free, listed, tags};
use crate::service::{Further, Subject};
use crate::state::{self, Changes};
use crate::{Answer, Context, Fault};

/// Whoever puts a role into a profile passes it on to every machine that has the profile.
pub fn subject_of_role(context: &Context, input: &Value) -> Subject {
    let mut subject = subject_of::<InstanceProfile>(context, input);
    let role = subject_of::<Role>(context, input).resources.remove(0).arn;
    let keys = vec![("iam:PassedToService".to_owned(), vec!["ec2.amazonaws.com".to_owned()])];
    subject.also.push(Further { action: "iam:PassRole", resource: role, keys });
    subject
}

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(input, "InstanceProfileName");
    if named::<InstanceProfile>(context.state, name).is_some() {
        return Err(Fault::new("EntityAlreadyExists", format!("Instance Profile {name} already exists.")));
    }
    let mut common = new(context, input, InstanceProfile::MEMBER, InstanceProfile::NOUN, "AIPA");
    common.tags = tags::of_new(input)?;
    let profile = InstanceProfile { common, role: None };
    let mut changes = Changes::default();
    changes.create("", &name.to_ascii_lowercase(), &profile);
    Ok(Answer::write(json!({"InstanceProfile": shown(context, &profile)}), changes))
}

pub fn get(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let profile = find::<InstanceProfile>(context.state, input)?;
    Ok(Answer::read(json!({"InstanceProfile": shown(context, &profile.record)})))
}

pub fn list(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let prefix = input["PathPrefix"].as_str().unwrap_or("/");
    listed("InstanceProfiles", items(context, |profile| profile.common.path.starts_with(prefix)))
}

pub fn list_for_role(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let role = find::<Role>(context.state, input)?;
    let name = Some(&role.record.common.name);
    listed("InstanceProfiles", items(context, |profile| profile.role.as_ref() == name))
}

pub fn add_role(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut profile = find::<InstanceProfile>(context.state, input)?;
    let role = find::<Role>(context.state, input)?;
    is_free(&role.record)?;
    if profile.record.role.is_some() {
        return Err(Fault::new(
            "LimitExceeded",
            "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1",
        ));
    }
    profile.record.role = Some(role.record.common.name.clone());
    let mut changes = Changes::default();
    changes.update(&profile);
    // The role is written too, so that one that goes at the same moment is not put in.
    changes.update(&role);
    Ok(Answer::done(changes))
}

pub fn remove_role(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut profile = find::<InstanceProfile>(context.state, input)?;
    let name = text(input, "RoleName");
    if profile.record.role.as_deref() != Some(name) {
        return Err(super::entity::no_such_entity(Role::is_missing(name)));
    }
    profile.record.role = None;
    let mut changes = Changes::default();
    changes.update(&profile);
    Ok(Answer::done(changes))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let profile = find::<InstanceProfile>(context.state, input)?;
    if profile.record.role.is_some() {
        return Err(conflict("must remove roles from instance profile first"));
    }
    let mut changes = Changes::default();
    changes.delete(&profile);
    Ok(Answer::done(changes))
}

fn items(context: &Context, is_wanted: impl Fn(&InstanceProfile) -> bool) -> Vec<Value> {
    let profiles = state::list::<InstanceProfile>(context.state, "").into_iter().map(|kept| kept.record);
    profiles.filter(is_wanted).map(|profile| shown(context, &profile)).collect()
}

fn shown(context: &Context, profile: &InstanceProfile) -> Value {
    let common = &profile.common;
    let role = profile.role.as_ref().and_then(|name| named::<Role>(context.state, name));
    let roles: Vec<Value> = role.iter().map(|kept| whole(&kept.record)).collect();
    let mut shown = json!({
        "Path": common.path, "InstanceProfileName": common.name, "InstanceProfileId": common.id,
        "Arn": common.arn, "CreateDate": common.created, "Roles": roles,
    });
    if !common.tags.is_empty() {
        shown["Tags"] = tag_list(&common.tags);
    }
    shown
}
