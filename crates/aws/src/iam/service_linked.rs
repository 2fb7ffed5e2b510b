//! Roles that belong to a service of AWS: made on its behalf, with the trust and the policy that it says.

use object::Snapshot;
use serde_json::{Value, json};

use super::entity::{find, no_such_entity, text};
use super::record::{Common, Permissions, Role, Tags, named};
use super::role::{SERVICE_PATH, conflict, whole};
use crate::state::Changes;
use crate::{Answer, Context, Fault, Ids, Subject};

/// Service, role, the managed policy it has.
const ROLES: &[(&str, &str, &str)] = &[
    ("autoscaling.amazonaws.com", "AWSServiceRoleForAutoScaling", "AutoScalingServiceRolePolicy"),
    (
        "eks-fargate.amazonaws.com",
        "AWSServiceRoleForAmazonEKSForFargate",
        "AmazonEKSForFargateServiceRolePolicy",
    ),
    (
        "eks-nodegroup.amazonaws.com",
        "AWSServiceRoleForAmazonEKSNodegroup",
        "AWSServiceRoleForAmazonEKSNodegroup",
    ),
    ("eks.amazonaws.com", "AWSServiceRoleForAmazonEKS", "AmazonEKSServiceRolePolicy"),
];

/// The role of a service, to be made by a service that needs it and does not find it.
pub fn make(account: &str, service: &str, now: object::Time, ids: &mut Ids) -> Option<Role> {
    let (_, name, policy) = ROLES.iter().find(|(known, ..)| *known == service)?;
    let path = format!("{SERVICE_PATH}{service}/");
    let trust = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"},
    ]});
    let arn = format!("arn:aws:iam::{account}:role{path}{name}");
    let id = ids.unique("AROA");
    let common = Common { name: (*name).to_owned(), path, id, arn, created: now, tags: Tags::new() };
    let attached = vec![format!("arn:aws:iam::aws:policy{SERVICE_PATH}{policy}")];
    let permissions = Permissions { attached, ..Permissions::default() };
    Some(Role {
        common,
        permissions,
        trust: trust.to_string(),
        description: None,
        max_session_seconds: 3_600,
    })
}

/// The role of a service, if it has been made.
pub fn of(state: &Snapshot, service: &str) -> Option<Role> {
    let (_, name, _) = ROLES.iter().find(|(known, ..)| *known == service)?;
    named::<Role>(state, name).map(|kept| kept.record)
}

pub fn subject(context: &Context, input: &Value) -> Subject {
    let service = text(input, "AWSServiceName");
    let name = ROLES.iter().find(|(known, ..)| *known == service).map_or("*", |(_, name, _)| name);
    let mut subject =
        Subject::of(format!("arn:aws:iam::{}:role{SERVICE_PATH}{service}/{name}", context.account));
    subject.keys.push(("iam:AWSServiceName".into(), vec![service.into()]));
    subject
}

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let service = text(input, "AWSServiceName");
    let made = make(context.account, service, context.now, context.ids);
    let Some(mut role) = made.filter(|_| input.get("CustomSuffix").is_none()) else {
        let message = format!("Service {service} does not support service-linked roles of this kind");
        return Err(Fault::new("InvalidInput", message));
    };
    let name = role.common.name.clone();
    if named::<Role>(context.state, &name).is_some() {
        let message = format!(
            "Service role name {name} has been taken in this account, please try a different suffix."
        );
        return Err(Fault::new("InvalidInput", message));
    }
    role.description = input["Description"].as_str().map(str::to_owned);
    let mut changes = Changes::default();
    changes.create("", &name.to_ascii_lowercase(), &role);
    Ok(Answer::write(json!({"Role": whole(&role)}), changes))
}

/// Deletes it at once; the task that AWS names has succeeded when one asks for it.
pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let role = find::<Role>(context.state, input)?;
    if !role.record.common.path.starts_with(SERVICE_PATH) {
        return Err(conflict("it is not a service-linked role"));
    }
    let task = format!("task{}{}/{}", role.record.common.path, role.record.common.name, context.ids.uuid());
    let mut changes = Changes::default();
    changes.delete(&role);
    Ok(Answer::write(json!({"DeletionTaskId": task}), changes))
}

pub fn deletion_status(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let task = text(input, "DeletionTaskId");
    let name = task.strip_prefix("task/aws-service-role/").and_then(|rest| rest.split('/').nth(1));
    let name = name.ok_or_else(|| no_such_entity(format!("Deletion task {task} cannot be found.")))?;
    let is_gone = named::<Role>(context.state, name).is_none();
    Ok(Answer::read(json!({"Status": if is_gone { "SUCCEEDED" } else { "NOT_STARTED" }})))
}
