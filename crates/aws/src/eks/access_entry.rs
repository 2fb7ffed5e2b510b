//! Access entries: which IAM principal is whom in a cluster, and which access policies it has there.
//! <https://docs.aws.amazon.com/eks/latest/userguide/access-entries.html>

use std::collections::BTreeMap;

use object::{Resource, Snapshot, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cluster::{self, ClusterRecord, read};
use super::request::Request;
use super::subject::arn;
use super::update::text;
use super::{access_policy, fault, tags};
use crate::iam::record::principal_id;
use crate::state::{self, Changes, Kept, Record};
use crate::{Answer, Caller, Context, Fault};

/// Types whose principals have a fixed name and groups: nodes.
const NODE_TYPES: &[&str] = &["EC2_LINUX", "EC2_WINDOWS", "FARGATE_LINUX", "HYBRID_LINUX", "HYPERPOD_LINUX"];
const RESERVED_PREFIXES: &[&str] = &["system:", "eks:", "aws:", "amazon:", "iam:"];

/// An access entry, as `DescribeAccessEntry` shows it, with the policies that are associated with it. It belongs to its cluster and is
/// named by its principal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessEntry {
    pub cluster_name: String,
    pub principal_arn: String,
    /// Of the user or role that had the ARN when the entry was made; empty in entries of old.
    #[serde(default)]
    pub principal_id: String,
    pub kubernetes_groups: Vec<String>,
    pub access_entry_arn: String,
    pub created_at: Time,
    pub modified_at: Time,
    pub tags: BTreeMap<String, String>,
    /// A template: `{{SessionName}}`, `{{EC2PrivateDNSName}}` are filled in at login.
    pub username: String,
    /// `STANDARD`, `EC2_LINUX`, …
    pub r#type: String,
    #[serde(default)]
    pub policies: Vec<AssociatedPolicy>,
    #[serde(default)]
    pub request: Request,
}

impl Record for AccessEntry {
    const RESOURCE: Resource = Resource::new("access-entries.eks");
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssociatedPolicy {
    pub policy_arn: String,
    pub access_scope: Scope,
    pub associated_at: Time,
    pub modified_at: Time,
}

/// Where an access policy holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// `cluster`, `namespace`
    pub r#type: String,
    /// Names, or patterns such as `dev-*`.
    #[serde(default)]
    pub namespaces: Vec<String>,
}

impl AccessEntry {
    /// The entry of a principal. One that was made again under the ARN of another has none, as on EKS.
    /// <https://docs.aws.amazon.com/eks/latest/userguide/creating-access-entries.html>
    pub fn of(state: &Snapshot, cluster: &str, principal: &str, id: &str) -> Option<Self> {
        let entry = state::get::<Self>(state, cluster, principal)?.record;
        entry.is_of(id).then_some(entry)
    }

    /// Whether it is that principal's, and not one's who had its ARN before.
    pub fn is_of(&self, id: &str) -> bool {
        self.principal_id.is_empty() || self.principal_id == id
    }

    fn shown(&self) -> Value {
        let mut shown = json!(self);
        if let Some(members) = shown.as_object_mut() {
            members.remove("policies");
            members.remove("principalId");
            members.remove("request");
        }
        shown
    }

    fn new(context: &mut Context, cluster: &str, principal: &str, kind: &str) -> Self {
        let (sort, name) = principal
            .rsplit_once(':')
            .map_or(("", ""), |(_, resource)| resource.split_once('/').unwrap_or(("root", resource)));
        let path = format!("access-entry/{cluster}/{sort}/{}/{name}/{}", context.account, context.ids.uuid());
        Self {
            cluster_name: cluster.into(),
            principal_arn: principal.into(),
            principal_id: principal_id(context.state, context.account, principal).unwrap_or_default(),
            kubernetes_groups: if NODE_TYPES.contains(&kind) {
                vec!["system:nodes".into()]
            } else {
                Vec::new()
            },
            access_entry_arn: arn(context, &path),
            created_at: context.now,
            modified_at: context.now,
            tags: BTreeMap::new(),
            username: default_username(principal, kind),
            r#type: kind.into(),
            policies: Vec::new(),
            request: Request::default(),
        }
    }
}

/// The principal behind a caller: of a session its role, with the path that the session's own ARN leaves out.
pub fn principal_of(caller: &Caller) -> String {
    let role = caller.session.as_ref().and_then(|session| session.role_arn.clone());
    role.unwrap_or_else(|| caller.arn.clone())
}

fn default_username(principal: &str, kind: &str) -> String {
    match kind {
        "EC2_LINUX" | "EC2_WINDOWS" => return "system:node:{{EC2PrivateDNSName}}".into(),
        "FARGATE_LINUX" | "HYBRID_LINUX" | "HYPERPOD_LINUX" => return "system:node:{{SessionName}}".into(),
        _ => {}
    }
    match principal.strip_prefix("arn:aws:iam::").and_then(|rest| rest.split_once(":role/")) {
        Some((account, path)) => {
            let role = path.rsplit('/').next().unwrap_or_default();
            format!("arn:aws:sts::{account}:assumed-role/{role}/{{{{SessionName}}}}")
        }
        None => principal.into(),
    }
}

/// Whoever made a cluster is its administrator.
pub fn create_for_creator(context: &mut Context, changes: &mut Changes, cluster: &ClusterRecord) {
    let mut entry = AccessEntry::new(context, &cluster.shown.name, &cluster.creator_arn, "STANDARD");
    entry.policies.push(AssociatedPolicy {
        policy_arn: access_policy::arn("AmazonEKSClusterAdminPolicy"),
        access_scope: Scope { r#type: "cluster".into(), namespaces: Vec::new() },
        associated_at: context.now,
        modified_at: context.now,
    });
    changes.create(&cluster.shown.name, &entry.principal_arn, &entry);
}

/// Nodes of a role may join: what creating a node group with it does, if the cluster reads entries and has none yet.
pub fn create_for_nodes(context: &mut Context, changes: &mut Changes, cluster: &ClusterRecord, role: &str) {
    create_of(context, changes, cluster, role, "EC2_LINUX");
}

/// The same of the role of a Fargate profile.
pub fn create_for_fargate(context: &mut Context, changes: &mut Changes, cluster: &ClusterRecord, role: &str) {
    create_of(context, changes, cluster, role, "FARGATE_LINUX");
}

fn create_of(context: &mut Context, changes: &mut Changes, cluster: &ClusterRecord, role: &str, kind: &str) {
    let name = &cluster.shown.name;
    let is_known = state::get::<AccessEntry>(context.state, name, role).is_some();
    if is_known || !cluster.shown.access_config.authentication_mode.reads_entries() {
        return;
    }
    let entry = AccessEntry::new(context, name, role, kind);
    changes.create(name, role, &entry);
}

/// A cluster whose entries are read.
fn open(context: &Context, input: &Value) -> Result<Kept<ClusterRecord>, Fault> {
    let name = text(input, "clusterName");
    let found = cluster::find_active(context, name)?;
    if !found.record.shown.access_config.authentication_mode.reads_entries() {
        let why = "The cluster's authentication mode must be set to one of [API, API_AND_CONFIG_MAP] to perform this operation.";
        return Err(fault::invalid_request(why).with("clusterName", name));
    }
    Ok(found)
}

fn find(context: &Context, input: &Value) -> Result<Kept<AccessEntry>, Fault> {
    let cluster = open(context, input)?;
    state::get(context.state, cluster.name(), text(input, "principalArn")).ok_or_else(|| {
        fault::not_found(
            "The specified principalArn could not be found. You can view your available access entries with 'list-access-entries'.",
        )
        .with("clusterName", cluster.name())
    })
}

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let cluster = open(context, input)?;
    let name = cluster.name();
    let about = |fault: Fault| fault.with("clusterName", name);
    let principal = text(input, "principalArn");
    if let Some(known) = state::get::<AccessEntry>(context.state, name, principal) {
        if known.record.request.is_repeated_by(input) {
            return Ok(Answer::read(json!({"accessEntry": known.record.shown()})));
        }
        let why = "The specified access entry resource is already in use on this cluster.";
        return Err(about(fault::in_use(why)));
    }
    if principal_id(context.state, context.account, principal).is_none() {
        return Err(about(fault::invalid("The specified principalArn is invalid: invalid principal.")));
    }
    let kind = input["type"].as_str().unwrap_or("STANDARD");
    match kind {
        "STANDARD" | "EC2_LINUX" | "FARGATE_LINUX" => {}
        _ => return Err(about(fault::unsupported(&format!("An access entry of type {kind}")))),
    }
    let mut entry = AccessEntry::new(context, name, principal, kind);
    apply(&mut entry, input).map_err(about)?;
    entry.tags = input.get("tags").map_or(Ok(BTreeMap::new()), read)?;
    tags::check(&entry.tags).map_err(about)?;
    entry.request = Request::of(input);
    let mut changes = Changes::default();
    changes.create(name, principal, &entry);
    changes.require(&cluster);
    Ok(Answer::write(json!({"accessEntry": entry.shown()}), changes))
}

/// The name and the groups that are asked for, where the type leaves a choice.
fn apply(entry: &mut AccessEntry, input: &Value) -> Result<(), Fault> {
    let groups = input["kubernetesGroups"].as_array();
    let username = input["username"].as_str();
    if NODE_TYPES.contains(&entry.r#type.as_str())
        && (groups.is_some_and(|all| !all.is_empty()) || username.is_some())
    {
        let why = format!(
            "The kubernetesGroups and username of an access entry of type {} cannot be set",
            entry.r#type
        );
        return Err(fault::invalid_request(why));
    }
    if let Some(groups) = groups {
        entry.kubernetes_groups =
            groups.iter().filter_map(|group| group.as_str().map(str::to_owned)).collect();
        if let Some(wrong) = entry.kubernetes_groups.iter().find(|group| is_reserved(group)) {
            return Err(fault::invalid(format!(
                "The kubernetes group name {wrong} is invalid, it cannot start with {}",
                prefixes()
            )));
        }
    }
    if let Some(username) = username {
        if is_reserved(username) {
            return Err(fault::invalid(format!(
                "The username {username} is invalid, it cannot start with {}",
                prefixes()
            )));
        }
        entry.username = username.into();
    }
    Ok(())
}

fn is_reserved(name: &str) -> bool {
    RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn prefixes() -> String {
    RESERVED_PREFIXES.join(", ")
}

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    Ok(Answer::read(json!({"accessEntry": find(context, input)?.record.shown()})))
}

pub fn update(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = find(context, input)?;
    apply(&mut found.record, input).map_err(|fault| fault.with("clusterName", text(input, "clusterName")))?;
    found.record.modified_at = context.now;
    let mut changes = Changes::default();
    changes.update(&found);
    Ok(Answer::write(json!({"accessEntry": found.record.shown()}), changes))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut changes = Changes::default();
    changes.delete(&find(context, input)?);
    Ok(Answer::done(changes))
}

pub fn list(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let cluster = open(context, input)?;
    let policy = input["associatedPolicyArn"].as_str();
    let all = state::list::<AccessEntry>(context.state, cluster.name()).into_iter().map(|kept| kept.record);
    let all =
        all.filter(|entry| policy.is_none_or(|arn| entry.policies.iter().any(|one| one.policy_arn == arn)));
    let names: Vec<String> = all.map(|entry| entry.principal_arn).collect();
    Ok(Answer::read(json!({"accessEntries": names})))
}

pub fn associate_policy(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = find(context, input)?;
    let about = |fault: Fault| fault.with("clusterName", text(input, "clusterName"));
    let policy = text(input, "policyArn");
    if access_policy::name_in(policy).is_none() {
        return Err(about(fault::invalid("The policyArn parameter format is not valid")));
    }
    if found.record.r#type != "STANDARD" {
        let why = format!(
            "Access policies cannot be associated with an access entry of type {}",
            found.record.r#type
        );
        return Err(about(fault::invalid_request(why)));
    }
    let scope: Scope = read(&input["accessScope"])?;
    match (scope.r#type.as_str(), scope.namespaces.is_empty()) {
        ("cluster", true) | ("namespace", false) => {}
        ("cluster", false) => {
            return Err(about(fault::invalid("The namespaces cannot be set if the access scope is cluster")));
        }
        _ => {
            return Err(about(fault::invalid("The namespaces must be set if the access scope is namespace")));
        }
    }
    let known = found.record.policies.iter_mut().find(|one| one.policy_arn == policy);
    let associated = match known {
        Some(known) => {
            known.access_scope = scope;
            known.modified_at = context.now;
            known.clone()
        }
        None => {
            let new = AssociatedPolicy {
                policy_arn: policy.into(),
                access_scope: scope,
                associated_at: context.now,
                modified_at: context.now,
            };
            found.record.policies.push(new.clone());
            new
        }
    };
    let mut changes = Changes::default();
    changes.update(&found);
    let output = json!({
        "clusterName": found.record.cluster_name, "principalArn": found.record.principal_arn,
        "associatedAccessPolicy": associated,
    });
    Ok(Answer::write(output, changes))
}

pub fn disassociate_policy(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = find(context, input)?;
    let policy = text(input, "policyArn");
    let before = found.record.policies.len();
    found.record.policies.retain(|one| one.policy_arn != policy);
    if found.record.policies.len() == before {
        let why = "The specified policyArn could not be found. You can view your associated access policies with 'list-associated-access-policies'.";
        return Err(fault::not_found(why).with("clusterName", text(input, "clusterName")));
    }
    let mut changes = Changes::default();
    changes.update(&found);
    Ok(Answer::done(changes))
}

pub fn list_policies(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let found = find(context, input)?.record;
    let mut policies = found.policies;
    policies.sort_by(|a, b| a.policy_arn.cmp(&b.policy_arn));
    let mut output = json!({"associatedAccessPolicies": policies});
    output["clusterName"] = found.cluster_name.into();
    output["principalArn"] = found.principal_arn.into();
    Ok(Answer::read(output))
}
