//! Pod identity associations: which role the pods of a service account have.

use std::collections::BTreeMap;

use object::{Resource, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cluster::{self, read};
use super::request::Request;
use super::subject::arn;
use super::update::text;
use super::{fault, surroundings, tags};
use crate::state::{self, Changes, Kept, Record};
use crate::{Answer, Context, Fault};

/// Of a cluster.
const MOST: usize = 1_000;

/// As `DescribePodIdentityAssociation` shows it; it belongs to its cluster and is named by its id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodIdentityAssociation {
    pub cluster_name: String,
    pub namespace: String,
    pub service_account: String,
    pub role_arn: String,
    pub association_arn: String,
    pub association_id: String,
    pub tags: BTreeMap<String, String>,
    pub created_at: Time,
    pub modified_at: Time,
    pub disable_session_tags: bool,
    #[serde(default)]
    pub request: Request,
}

impl Record for PodIdentityAssociation {
    const RESOURCE: Resource = Resource::new("pod-identity-associations.eks");
}

impl PodIdentityAssociation {
    fn shown(&self) -> Value {
        let mut shown = json!(self);
        if let Some(members) = shown.as_object_mut() {
            members.remove("request");
        }
        json!({"association": shown})
    }
}

fn find(context: &Context, input: &Value) -> Result<Kept<PodIdentityAssociation>, Fault> {
    let (cluster, id) = (text(input, "clusterName"), text(input, "associationId"));
    cluster::find(context, cluster)?;
    state::get(context.state, cluster, id).ok_or_else(|| {
        fault::not_found(format!("No association found with ID: {id}")).with("clusterName", cluster)
    })
}

/// What a role chain would need beyond the role itself.
fn refuse_unsupported(input: &Value) -> Result<(), Fault> {
    for (member, what) in
        [("targetRoleArn", "A chain of roles (targetRoleArn)"), ("policy", "A session policy (policy)")]
    {
        if !input[member].is_null() {
            return Err(fault::unsupported(what).with("clusterName", text(input, "clusterName")));
        }
    }
    Ok(())
}

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let cluster = text(input, "clusterName");
    let about = |fault: Fault| fault.with("clusterName", cluster);
    let found = cluster::find_active(context, cluster)?;
    refuse_unsupported(input)?;
    let (namespace, account) = (text(input, "namespace"), text(input, "serviceAccount"));
    let all = state::list::<PodIdentityAssociation>(context.state, cluster);
    let known =
        all.iter().find(|kept| kept.record.namespace == namespace && kept.record.service_account == account);
    if let Some(known) = known {
        if known.record.request.is_repeated_by(input) {
            return Ok(Answer::read(known.record.shown()));
        }
        let why = format!("Association already exists: {}", known.record.association_id);
        return Err(about(fault::in_use(why)));
    }
    if all.len() >= MOST {
        return Err(about(fault::limit(format!(
            "Limit exceeded: at most {MOST} pod identity associations per cluster"
        ))));
    }
    let role = text(input, "roleArn");
    surroundings::check_role_of_pods(context, role).map_err(about)?;
    let tags = input.get("tags").map_or(Ok(BTreeMap::new()), read)?;
    tags::check(&tags).map_err(about)?;
    let id = format!("a-{}", context.ids.of(b"abcdefghijklmnopqrstuvwxyz0123456789", 17));
    let record = PodIdentityAssociation {
        cluster_name: cluster.into(),
        namespace: namespace.into(),
        service_account: account.into(),
        role_arn: role.into(),
        association_arn: arn(context, &format!("podidentityassociation/{cluster}/{id}")),
        association_id: id.clone(),
        tags,
        created_at: context.now,
        modified_at: context.now,
        disable_session_tags: input["disableSessionTags"] == true,
        request: Request::of(input),
    };
    let mut changes = Changes::default();
    changes.create(cluster, &id, &record);
    changes.require(&found);
    Ok(Answer::write(record.shown(), changes))
}

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    Ok(Answer::read(find(context, input)?.record.shown()))
}

pub fn update(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = find(context, input)?;
    refuse_unsupported(input)?;
    if let Some(role) = input["roleArn"].as_str() {
        surroundings::check_role_of_pods(context, role)
            .map_err(|fault| fault.with("clusterName", text(input, "clusterName")))?;
        found.record.role_arn = role.into();
    }
    if let Some(disable) = input["disableSessionTags"].as_bool() {
        found.record.disable_session_tags = disable;
    }
    found.record.modified_at = context.now;
    let mut changes = Changes::default();
    changes.update(&found);
    Ok(Answer::write(found.record.shown(), changes))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let found = find(context, input)?;
    let mut changes = Changes::default();
    changes.delete(&found);
    Ok(Answer::write(found.record.shown(), changes))
}

pub fn list(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let cluster = text(input, "clusterName");
    cluster::find(context, cluster)?;
    let is = |member: &str, value: &str| input[member].as_str().is_none_or(|wanted| wanted == value);
    let all =
        state::list::<PodIdentityAssociation>(context.state, cluster).into_iter().map(|kept| kept.record);
    let all = all.filter(|one| is("namespace", &one.namespace) && is("serviceAccount", &one.service_account));
    let summaries: Vec<Value> = all
        .map(|one| {
            json!({
                "clusterName": one.cluster_name, "namespace": one.namespace, "serviceAccount": one.service_account,
                "associationArn": one.association_arn, "associationId": one.association_id,
            })
        })
        .collect();
    Ok(Answer::read(json!({"associations": summaries})))
}
