//! What users, groups, roles, policies, instance profiles and identity providers have in common: finding, naming, describing them.

use object::Snapshot;
use serde_json::{Value, json};

use super::record::{
    Common, Group, InstanceProfile, OidcProvider, Permissions, Policy, Role, Tags, User, last_segment, named,
};
use crate::state::{Kept, Record};
use crate::sts::jwt::key_of;
use crate::{Context, Fault, Subject};

/// A kind of entity.
pub(super) trait Entity: Record {
    /// The member of an input that names one: `RoleName`, `PolicyArn`.
    const MEMBER: &'static str;
    /// `role`: in ARNs and in quotas.
    const NOUN: &'static str;

    fn common(&self) -> &Common;
    fn common_mut(&mut self) -> &mut Common;
    /// The message of the `NoSuchEntity` for one that is not there.
    fn is_missing(name: &str) -> String;
}

/// Users, groups and roles: those that have permissions.
pub(super) trait Holder: Entity {
    /// `Role`, as in `PoliciesPerRole`.
    const TITLE: &'static str;
    /// How much text all its inline policies may have together, spaces aside.
    const INLINE_LIMIT: usize;

    fn permissions(&self) -> &Permissions;
    fn permissions_mut(&mut self) -> &mut Permissions;
}

macro_rules! entities {
    ($($kind:ident $member:literal $noun:literal $missing:literal;)*) => {$(
        impl Entity for $kind {
            const MEMBER: &'static str = $member;
            const NOUN: &'static str = $noun;

            fn common(&self) -> &Common {
                &self.common
            }
            fn common_mut(&mut self) -> &mut Common {
                &mut self.common
            }
            fn is_missing(name: &str) -> String {
                format!($missing, name)
            }
        }
    )*};
}

macro_rules! holders {
    ($($kind:ident $title:literal $limit:literal;)*) => {$(
        impl Holder for $kind {
            const TITLE: &'static str = $title;
            const INLINE_LIMIT: usize = $limit;

            fn permissions(&self) -> &Permissions {
                &self.permissions
            }
            fn permissions_mut(&mut self) -> &mut Permissions {
                &mut self.permissions
            }
        }
    )*};
}

entities! {
    Group "GroupName" "group" "The group with name {} cannot be found.";
    InstanceProfile "InstanceProfileName" "instance-profile" "Instance Profile {} cannot be found.";
    OidcProvider "OpenIDConnectProviderArn" "oidc-provider" "OpenIDConnect Provider not found for arn {}";
    Policy "PolicyArn" "policy" "Policy {} was not found.";
    Role "RoleName" "role" "The role with name {} cannot be found.";
    User "UserName" "user" "The user with name {} cannot be found.";
}

// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>
holders! {
    Group "Group" 5120;
    Role "Role" 10240;
    User "User" 2048;
}

/// The entity that an input names, by a name or an ARN.
pub(super) fn find<T: Entity>(state: &Snapshot, input: &Value) -> Result<Kept<T>, Fault> {
    let name = text(input, T::MEMBER);
    look_up(state, name).ok_or_else(|| no_such_entity(T::is_missing(name)))
}

/// The entity of a name, or of an ARN. Its case is that of the entity.
pub(super) fn look_up<T: Entity>(state: &Snapshot, name: &str) -> Option<Kept<T>> {
    if T::RESOURCE == OidcProvider::RESOURCE {
        // The ARN has no port; who made it of the URL may have left the port in.
        let (account, url) = name.split_once(":oidc-provider/")?;
        return named::<T>(state, &key_of(url)).filter(|kept| {
            let known = kept.record.common();
            known.arn == name || (known.name == url && known.arn.starts_with(account))
        });
    }
    let kept = named::<T>(state, last_segment(name))?;
    let known = kept.record.common();
    (if name.starts_with("arn:") { known.arn == name } else { known.name == name }).then_some(kept)
}

/// What a call about one entity is about. One that is not there has the ARN that it would have without a path.
pub(super) fn subject<T: Entity>(context: &Context, input: &Value) -> Subject {
    let name = text(input, T::MEMBER);
    match look_up::<T>(context.state, name) {
        Some(kept) => {
            let common = kept.record.common();
            let mut subject = Subject::of(&*common.arn);
            subject.keys = resource_tags(&common.tags);
            subject.keys.extend(given_tags(input));
            subject
        }
        None if name.starts_with("arn:") => Subject::of(name),
        None => Subject::of(format!("arn:aws:iam::{}:{}/{name}", context.account, T::NOUN)),
    }
}

/// What a call that makes an entity is about: its name and its path are in the input.
pub(super) fn subject_of_new<T: Entity>(member: &str, context: &Context, input: &Value) -> Subject {
    let arn = arn(context.account, T::NOUN, path(input), text(input, member));
    let mut subject = Subject { resources: vec![arn.into()], keys: given_tags(input), ..Subject::default() };
    if let Some(boundary) = input["PermissionsBoundary"].as_str() {
        subject.keys.push(("iam:PermissionsBoundary".into(), vec![boundary.into()]));
    }
    subject
}

/// `aws:ResourceTag/…` and `iam:ResourceTag/…`
pub(super) fn resource_tags(tags: &Tags) -> Vec<(String, Vec<String>)> {
    let both = |(key, value): (&String, &String)| {
        ["aws", "iam"].map(|prefix| (format!("{prefix}:ResourceTag/{key}"), vec![value.clone()]))
    };
    tags.iter().flat_map(both).collect()
}

/// `aws:RequestTag/…` and `aws:TagKeys`
pub(crate) fn given_tags(input: &Value) -> Vec<(String, Vec<String>)> {
    let mut keys = Vec::new();
    let mut names: Vec<String> = strings(input, "TagKeys").map(str::to_owned).collect();
    for tag in input["Tags"].as_array().into_iter().flatten() {
        let (key, value) = (text(tag, "Key"), text(tag, "Value"));
        keys.push((format!("aws:RequestTag/{key}"), vec![value.to_owned()]));
        names.push(key.to_owned());
    }
    if !names.is_empty() {
        keys.push(("aws:TagKeys".to_owned(), names));
    }
    keys
}

pub(super) fn no_such_entity(message: impl Into<String>) -> Fault {
    Fault::new("NoSuchEntity", message)
}

/// A member of an input that is text; empty if it is not there.
pub(super) fn text<'a>(input: &'a Value, member: &str) -> &'a str {
    input[member].as_str().unwrap_or_default()
}

/// A member that is a list of texts.
pub(super) fn strings<'a>(input: &'a Value, member: &str) -> impl Iterator<Item = &'a str> {
    input[member].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The name at the end of an ARN.
pub(super) fn last_name(arn: &str) -> &str {
    last_segment(arn)
}

/// The path that a new entity is to have.
pub(super) fn path(input: &Value) -> &str {
    input["Path"].as_str().unwrap_or("/")
}

/// `arn:aws:iam::111122223333:role/path/name`
pub(super) fn arn(account: &str, noun: &str, path: &str, name: &str) -> String {
    format!("arn:aws:iam::{account}:{noun}{path}{name}")
}

/// The common part of a new entity. `prefix` is that of its id.
pub(super) fn new(context: &mut Context, input: &Value, member: &str, noun: &str, prefix: &str) -> Common {
    let (name, path) = (text(input, member).to_owned(), path(input).to_owned());
    let arn = arn(context.account, noun, &path, &name);
    Common { name, path, id: context.ids.unique(prefix), arn, created: context.now, tags: Tags::new() }
}

/// The list `Tags` as AWS shows it, in the order of the keys.
pub(super) fn tag_list(tags: &Tags) -> Value {
    tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
}

/// A boundary as AWS shows it.
pub(super) fn boundary(permissions: &Permissions) -> Option<Value> {
    let arn = permissions.boundary.as_ref()?;
    Some(json!({"PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": arn}))
}

/// RFC 3986: how IAM gives documents back.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
