//! Updates: what was asked of a cluster, a node group or an add-on, and what became of it.

use object::{Resource, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{cluster, fault};
use crate::state::{self, Changes, Record};
use crate::{Answer, Context, Fault};

/// How many updates of a cluster are remembered.
const REMEMBERED: usize = 100;

/// An update in the account store; it belongs to its cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateRecord {
    pub shown: Update,
    /// What of the cluster it changes; both empty: the cluster itself.
    #[serde(default)]
    pub nodegroup_name: String,
    #[serde(default)]
    pub addon_name: String,
}

impl Record for UpdateRecord {
    const RESOURCE: Resource = Resource::new("updates.eks");
}

/// As `DescribeUpdate` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    pub id: String,
    /// `InProgress`, `Failed`, `Cancelled`, `Successful`
    pub status: String,
    /// `VersionUpdate`, `ConfigUpdate`, …
    pub r#type: String,
    pub params: Vec<Param>,
    pub created_at: Time,
    pub errors: Vec<UpdateError>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Param {
    pub r#type: String,
    pub value: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateError {
    /// `PodEvictionFailure`, `NodeCreationFailure`, …
    pub error_code: String,
    pub error_message: String,
    pub resource_ids: Vec<String>,
}

/// What an update is of.
#[derive(Clone, Copy)]
pub enum Of<'a> {
    Cluster,
    NodeGroup(&'a str),
    Addon(&'a str),
}

/// A new update, in progress. `params` are pairs of a type and a value.
pub fn begin(
    context: &mut Context,
    changes: &mut Changes,
    cluster: &str,
    of: Of,
    kind: &str,
    params: Vec<(&str, String)>,
) -> UpdateRecord {
    record(context, changes, cluster, of, kind, params, "InProgress")
}

/// The same, of something that is true as soon as it is written.
pub fn done(
    context: &mut Context,
    changes: &mut Changes,
    cluster: &str,
    of: Of,
    kind: &str,
    params: Vec<(&str, String)>,
) -> UpdateRecord {
    record(context, changes, cluster, of, kind, params, "Successful")
}

fn record(
    context: &mut Context,
    changes: &mut Changes,
    cluster: &str,
    of: Of,
    kind: &str,
    params: Vec<(&str, String)>,
    status: &str,
) -> UpdateRecord {
    forget_oldest(context, changes, cluster);
    let params = params.into_iter().map(|(kind, value)| Param { r#type: kind.into(), value });
    let record = UpdateRecord {
        shown: Update {
            id: context.ids.uuid(),
            status: status.into(),
            r#type: kind.into(),
            params: params.collect(),
            created_at: context.now,
            errors: Vec::new(),
        },
        nodegroup_name: if let Of::NodeGroup(name) = of { name.into() } else { String::new() },
        addon_name: if let Of::Addon(name) = of { name.into() } else { String::new() },
    };
    changes.create(cluster, &record.shown.id, &record);
    record
}

fn forget_oldest(context: &Context, changes: &mut Changes, cluster: &str) {
    let all = state::list::<UpdateRecord>(context.state, cluster);
    if all.len() < REMEMBERED {
        return;
    }
    let ended = all.iter().filter(|kept| kept.record.shown.status != "InProgress");
    if let Some(oldest) = ended.min_by_key(|kept| kept.record.shown.created_at) {
        changes.delete(oldest);
    }
}

/// Refuses a second update of a cluster while one is in progress.
pub fn refuse_second(context: &Context, cluster: &str, kind: &str) -> Result<(), Fault> {
    let all = state::list::<UpdateRecord>(context.state, cluster);
    let busy = all.iter().find(|kept| {
        let record = &kept.record;
        record.shown.status == "InProgress"
            && record.nodegroup_name.is_empty()
            && record.addon_name.is_empty()
    });
    match busy {
        Some(busy) => {
            let id = &busy.record.shown.id;
            let why =
                format!("Cannot {kind} because cluster {cluster} currently has update {id} in progress");
            Err(fault::in_use(why).with("clusterName", cluster))
        }
        None => Ok(()),
    }
}

pub fn answer(record: &UpdateRecord, changes: Changes) -> Answer {
    Answer::write(json!({"update": record.shown}), changes)
}

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let (name, id) = (text(input, "name"), text(input, "updateId"));
    cluster::find(context, name)?;
    let found = state::get::<UpdateRecord>(context.state, name, id).filter(|kept| is_of(&kept.record, input));
    let found = found
        .ok_or_else(|| fault::not_found(format!("No update found for ID: {id}")).with("clusterName", name))?;
    Ok(Answer::read(json!({"update": found.record.shown})))
}

pub fn list(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(input, "name");
    cluster::find(context, name)?;
    let all = state::list::<UpdateRecord>(context.state, name).into_iter().map(|kept| kept.record);
    let ids: Vec<String> = all.filter(|one| is_of(one, input)).map(|one| one.shown.id).collect();
    Ok(Answer::read(json!({"updateIds": ids})))
}

/// Whether an update is of the node group or add-on that the input names, or of the cluster if it names none.
fn is_of(record: &UpdateRecord, input: &Value) -> bool {
    record.nodegroup_name == text(input, "nodegroupName") && record.addon_name == text(input, "addonName")
}

/// A member of the input, empty if it is not there.
pub fn text<'a>(input: &'a Value, member: &str) -> &'a str {
    input[member].as_str().unwrap_or_default()
}
