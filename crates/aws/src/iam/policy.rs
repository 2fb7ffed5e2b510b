//! Managed policies and their versions.

use std::collections::HashMap;

use object::Snapshot;
use serde_json::{Value, json};

use super::documents::{check, size};
use super::entity::{Holder, arn, look_up, new, no_such_entity, path, percent_encoded, tag_list, text};
use super::managed::{self, Managed};
use super::record::{Group, Policy, PolicyVersion, Role, User, named};
use super::{listed, tags};
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault, Subject};

/// How long a policy may be, spaces aside.
const SIZE: usize = 6144;
const VERSIONS: usize = 5;

pub(super) fn of_arn(state: &Snapshot, arn: &str) -> Option<Kept<Policy>> {
    arn.starts_with("arn:").then(|| look_up::<Policy>(state, arn)).flatten()
}

/// The policy of the account that an input names; AWS's own cannot be changed.
fn own(context: &Context, input: &Value) -> Result<Kept<Policy>, Fault> {
    let arn = text(input, "PolicyArn");
    if managed::find(arn).is_some() {
        let message = format!("Policy {arn} is outside your own account.");
        return Err(Fault::new("AccessDenied", message));
    }
    of_arn(context.state, arn).ok_or_else(|| no_such_entity(format!("Policy {arn} was not found.")))
}

pub fn subject_of_new(context: &Context, input: &Value) -> Subject {
    let arn = arn(context.account, "policy", path(input), text(input, "PolicyName"));
    Subject { resources: vec![arn.into()], keys: super::entity::given_tags(input), ..Subject::default() }
}

/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreatePolicy.html>
pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(input, "PolicyName");
    if named::<Policy>(context.state, name).is_some() {
        let message = format!("A policy called {name} already exists. Duplicate names are not allowed.");
        return Err(Fault::new("EntityAlreadyExists", message));
    }
    let document = sized(text(input, "PolicyDocument"))?;
    let mut common = new(context, input, "PolicyName", "policy", "ANPA");
    common.tags = tags::of_new(input)?;
    let version = PolicyVersion { id: "v1".to_owned(), document, created: context.now };
    let policy = Policy {
        common,
        description: input["Description"].as_str().filter(|text| !text.is_empty()).map(str::to_owned),
        versions: vec![version],
        default_version: "v1".to_owned(),
        next_version: 2,
        updated: context.now,
    };
    let mut changes = Changes::default();
    changes.create("", &name.to_ascii_lowercase(), &policy);
    let mut shown = shown(&policy, &Uses::default());
    if !policy.common.tags.is_empty() {
        shown["Tags"] = tag_list(&policy.common.tags);
    }
    Ok(Answer::write(json!({"Policy": shown}), changes))
}

pub fn get(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let arn = text(input, "PolicyArn");
    let uses = Uses::of(context.state, arn);
    if let Some(managed) = managed::find(arn) {
        return Ok(Answer::read(json!({"Policy": shown_managed(managed, &uses)})));
    }
    let policy = own(context, input)?.record;
    let mut shown = shown(&policy, &uses);
    if !policy.common.tags.is_empty() {
        shown["Tags"] = tag_list(&policy.common.tags);
    }
    if let Some(description) = &policy.description {
        shown["Description"] = json!(description);
    }
    Ok(Answer::read(json!({"Policy": shown})))
}

pub fn list(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let state = context.state;
    let scope = input["Scope"].as_str().unwrap_or("All");
    let prefix = input["PathPrefix"].as_str().unwrap_or("/");
    let only_attached = input["OnlyAttached"].as_bool().unwrap_or(false);
    let as_boundary = input["PolicyUsageFilter"].as_str() == Some("PermissionsBoundary");
    let is_wanted = |uses: &Uses| {
        let count = if as_boundary { uses.bounds } else { uses.holders.len() };
        count > 0 || !(only_attached || as_boundary)
    };
    let mut all = Uses::all(state);
    let mut items = Vec::new();
    if scope != "AWS" {
        for kept in state::list::<Policy>(state, "") {
            let uses = all.remove(&kept.record.common.arn).unwrap_or_default();
            if kept.record.common.path.starts_with(prefix) && is_wanted(&uses) {
                items.push((kept.record.common.arn.clone(), shown(&kept.record, &uses)));
            }
        }
    }
    if scope != "Local" {
        for managed in managed::all().filter(|managed| managed.path.starts_with(prefix)) {
            let uses = all.remove(&managed.arn()).unwrap_or_default();
            if is_wanted(&uses) {
                items.push((managed.arn(), shown_managed(managed, &uses)));
            }
        }
    }
    items.sort_by(|a, b| a.0.cmp(&b.0));
    listed("Policies", items.into_iter().map(|(_, item)| item))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let policy = own(context, input)?;
    let uses = Uses::of(context.state, &policy.record.common.arn);
    if !uses.holders.is_empty() || uses.bounds > 0 {
        return Err(Fault::new("DeleteConflict", "Cannot delete a policy attached to entities."));
    }
    if policy.record.versions.len() > 1 {
        return Err(Fault::new(
            "DeleteConflict",
            "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is deleted with the policy.",
        ));
    }
    let mut changes = Changes::default();
    changes.delete(&policy);
    Ok(Answer::done(changes))
}

pub fn create_version(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut kept = own(context, input)?;
    let policy = &mut kept.record;
    if policy.versions.len() >= VERSIONS {
        return Err(Fault::new(
            "LimitExceeded",
            "A managed policy can have up to 5 versions. Before you create a new version, you must delete an existing version.",
        ));
    }
    let document = sized(text(input, "PolicyDocument"))?;
    let version = PolicyVersion { id: format!("v{}", policy.next_version), document, created: context.now };
    policy.next_version += 1;
    policy.updated = context.now;
    if input["SetAsDefault"].as_bool().unwrap_or(false) {
        policy.default_version.clone_from(&version.id);
    }
    let shown = shown_version(policy, &version);
    policy.versions.push(version);
    let mut changes = Changes::default();
    changes.update(&kept);
    Ok(Answer::write(json!({"PolicyVersion": shown}), changes))
}

pub fn get_version(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let (arn, id) = (text(input, "PolicyArn"), text(input, "VersionId"));
    if let Some(managed) = managed::find(arn).filter(|managed| managed.version == id) {
        let mut shown = shown_managed_version(managed);
        shown["Document"] = json!(percent_encoded(managed.document()));
        return Ok(Answer::read(json!({"PolicyVersion": shown})));
    }
    if managed::find(arn).is_some() {
        return Err(no_version(arn, id));
    }
    let policy = own(context, input)?.record;
    let version = policy.versions.iter().find(|version| version.id == id);
    let version = version.ok_or_else(|| no_version(arn, id))?;
    let mut shown = shown_version(&policy, version);
    shown["Document"] = json!(percent_encoded(&version.document));
    Ok(Answer::read(json!({"PolicyVersion": shown})))
}

pub fn list_versions(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    if let Some(managed) = managed::find(text(input, "PolicyArn")) {
        return listed("Versions", [shown_managed_version(managed)]);
    }
    let policy = own(context, input)?.record;
    // Newest first, as AWS lists them.
    listed("Versions", policy.versions.iter().rev().map(|version| shown_version(&policy, version)))
}

pub fn set_default_version(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut policy = own(context, input)?;
    let id = text(input, "VersionId");
    if !policy.record.versions.iter().any(|version| version.id == id) {
        return Err(no_version(text(input, "PolicyArn"), id));
    }
    policy.record.default_version = id.to_owned();
    policy.record.updated = context.now;
    let mut changes = Changes::default();
    changes.update(&policy);
    Ok(Answer::done(changes))
}

pub fn delete_version(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut policy = own(context, input)?;
    let id = text(input, "VersionId");
    if policy.record.default_version == id {
        return Err(Fault::new("DeleteConflict", "Cannot delete the default version of a policy."));
    }
    let before = policy.record.versions.len();
    policy.record.versions.retain(|version| version.id != id);
    if policy.record.versions.len() == before {
        return Err(no_version(text(input, "PolicyArn"), id));
    }
    let mut changes = Changes::default();
    changes.update(&policy);
    Ok(Answer::done(changes))
}

/// Who has a policy: users, groups, roles.
pub fn entities(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let arn = text(input, "PolicyArn");
    if managed::find(arn).is_none() {
        own(context, input)?;
    }
    let kind = input["EntityFilter"].as_str().filter(|kind| ["User", "Group", "Role"].contains(kind));
    let prefix = input["PathPrefix"].as_str().unwrap_or("/");
    let uses = Uses::of(context.state, arn);
    let is_wanted =
        |holder: &&Held| kind.is_none_or(|kind| kind == holder.title) && holder.path.starts_with(prefix);
    let holders: Vec<&Held> = uses.holders.iter().filter(is_wanted).collect();
    let mut output = json!({"IsTruncated": false});
    for title in ["Group", "Role", "User"] {
        let (name, id) = (format!("{title}Name"), format!("{title}Id"));
        let of_kind = holders.iter().filter(|holder| holder.title == title);
        output[format!("Policy{title}s")] =
            of_kind.map(|holder| json!({(&*name): holder.name, (&*id): holder.id})).collect();
    }
    Ok(Answer::read(output))
}

/// Where a policy is used.
#[derive(Default)]
struct Uses {
    holders: Vec<Held>,
    /// How many it bounds.
    bounds: usize,
}

struct Held {
    title: &'static str,
    name: String,
    path: String,
    id: String,
}

impl Uses {
    fn of(state: &Snapshot, arn: &str) -> Self {
        Self::all(state).remove(arn).unwrap_or_default()
    }

    /// By the policy's ARN.
    fn all(state: &Snapshot) -> HashMap<String, Self> {
        let mut all = HashMap::new();
        count::<Group>(state, &mut all);
        count::<Role>(state, &mut all);
        count::<User>(state, &mut all);
        all
    }
}

fn count<T: Holder>(state: &Snapshot, all: &mut HashMap<String, Uses>) {
    for kept in state::list::<T>(state, "") {
        let (permissions, common) = (kept.record.permissions(), kept.record.common());
        if let Some(boundary) = &permissions.boundary {
            all.entry(boundary.clone()).or_default().bounds += 1;
        }
        for arn in &permissions.attached {
            let (name, path, id) = (common.name.clone(), common.path.clone(), common.id.clone());
            all.entry(arn.clone()).or_default().holders.push(Held { title: T::TITLE, name, path, id });
        }
    }
}

fn sized(document: &str) -> Result<String, Fault> {
    check(document)?;
    if size(document) > SIZE {
        return Err(Fault::new("LimitExceeded", format!("Cannot exceed quota for PolicySize: {SIZE}")));
    }
    Ok(document.to_owned())
}

fn no_version(arn: &str, id: &str) -> Fault {
    no_such_entity(format!("Policy {arn} version {id} does not exist or is not attachable."))
}

fn shown(policy: &Policy, uses: &Uses) -> Value {
    let common = &policy.common;
    json!({
        "PolicyName": common.name, "PolicyId": common.id, "Arn": common.arn, "Path": common.path,
        "DefaultVersionId": policy.default_version, "AttachmentCount": uses.holders.len(),
        "PermissionsBoundaryUsageCount": uses.bounds, "IsAttachable": true,
        "CreateDate": common.created, "UpdateDate": policy.updated,
    })
}

fn shown_managed(managed: &Managed, uses: &Uses) -> Value {
    json!({
        "PolicyName": managed.name, "PolicyId": managed.id(), "Arn": managed.arn(), "Path": managed.path,
        "DefaultVersionId": managed.version, "AttachmentCount": uses.holders.len(),
        "PermissionsBoundaryUsageCount": uses.bounds, "IsAttachable": true,
        "CreateDate": managed.created, "UpdateDate": managed.updated,
    })
}

fn shown_version(policy: &Policy, version: &PolicyVersion) -> Value {
    let is_default = policy.default_version == version.id;
    json!({"VersionId": version.id, "IsDefaultVersion": is_default, "CreateDate": version.created})
}

fn shown_managed_version(managed: &Managed) -> Value {
    json!({"VersionId": managed.version, "IsDefaultVersion": true, "CreateDate": managed.updated})
}
