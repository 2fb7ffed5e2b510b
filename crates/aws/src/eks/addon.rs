//! Add-ons of a cluster. What they do is built in, so that they are active at once, and removing one takes away its record only.

use std::collections::BTreeMap;

use object::{Resource, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::addon_catalog::{self, Row};
use super::addon_settings;
use super::cluster::{self, Health, read};
use super::request::Request;
use super::subject::arn;
use super::update::{self, Of, text};
use super::{fault, tags};
use crate::state::{self, Changes, Kept, Record};
use crate::{Answer, Context, Fault};

/// As `DescribeAddon` shows it; it belongs to its cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addon {
    pub addon_name: String,
    pub cluster_name: String,
    pub status: String,
    pub addon_version: String,
    pub health: Health,
    pub addon_arn: String,
    pub created_at: Time,
    pub modified_at: Time,
    pub tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_values: Option<String>,
    #[serde(default)]
    pub request: Request,
}

impl Record for Addon {
    const RESOURCE: Resource = Resource::new("addons.eks");
}

impl Addon {
    fn shown(&self) -> Value {
        let mut shown = json!(self);
        if let Some(members) = shown.as_object_mut() {
            members.remove("request");
        }
        shown["publisher"] = "eks".into();
        shown["owner"] = "aws".into();
        shown["namespaceConfig"] = json!({"namespace": "kube-system"});
        shown
    }
}

fn find(context: &Context, input: &Value) -> Result<Kept<Addon>, Fault> {
    let (cluster, name) = (text(input, "clusterName"), text(input, "addonName"));
    cluster::find(context, cluster)?;
    state::get(context.state, cluster, name).ok_or_else(|| {
        named(fault::not_found(format!("No addon: {name} found in cluster: {cluster}")), input)
    })
}

fn named(fault: Fault, input: &Value) -> Fault {
    fault.with("clusterName", text(input, "clusterName")).with("addonName", text(input, "addonName"))
}

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let (cluster_name, name) = (text(input, "clusterName"), text(input, "addonName"));
    let about = |fault: Fault| named(fault, input);
    if let Some(known) = state::get::<Addon>(context.state, cluster_name, name) {
        if known.record.request.is_repeated_by(input) {
            return Ok(Answer::read(json!({"addon": known.record.shown()})));
        }
        return Err(about(fault::in_use("Addon already exists.")));
    }
    let cluster = cluster::find_active(context, cluster_name)?;
    let cluster_version = &cluster.record.shown.version;
    let row = addon_catalog::find(name).ok_or_else(|| {
        about(fault::invalid(format!(
            "Addon {name} specified is not supported in {cluster_version} kubernetes version"
        )))
    })?;
    let addon_version = version(row, cluster_version, input["addonVersion"].as_str()).map_err(about)?;
    let configuration_values = configuration(row, input).map_err(about)?;
    let configuration_values = configuration_values.filter(|values| !values.trim().is_empty());
    let tags = input.get("tags").map_or(Ok(BTreeMap::new()), read)?;
    tags::check(&tags).map_err(about)?;
    let uuid = context.ids.uuid();
    let record = Addon {
        addon_name: name.into(),
        cluster_name: cluster_name.into(),
        status: "ACTIVE".into(),
        addon_version: addon_version.into(),
        health: Health::default(),
        addon_arn: arn(context, &format!("addon/{cluster_name}/{name}/{uuid}")),
        created_at: context.now,
        modified_at: context.now,
        tags,
        configuration_values,
        request: Request::of(input),
    };
    let mut changes = Changes::default();
    changes.create(cluster_name, name, &record);
    changes.require(&cluster);
    // Clients expect to see it on its way; the next look finds it active.
    let mut shown = record.shown();
    shown["status"] = "CREATING".into();
    Ok(Answer::write(json!({"addon": shown}), changes))
}

fn version(row: &Row, cluster_version: &str, asked: Option<&str>) -> Result<&'static str, Fault> {
    let ours = row.version_for(cluster_version);
    match (ours, asked) {
        (Some(ours), None) => Ok(ours),
        (Some(ours), Some(asked)) if ours == asked => Ok(ours),
        _ => Err(fault::invalid("Addon version specified is not supported")),
    }
}

/// Values that nothing here follows are refused, as are roles for pods that are not there.
fn configuration(row: &Row, input: &Value) -> Result<Option<String>, Fault> {
    for member in ["serviceAccountRoleArn", "podIdentityAssociations"] {
        if !input[member].is_null() && input[member] != json!([]) {
            return Err(fault::unsupported(&format!(
                "A role of an add-on, which has no pods of its own here ({member}),"
            )));
        }
    }
    if input["namespaceConfig"]["namespace"].as_str().is_some_and(|namespace| namespace != "kube-system") {
        return Err(fault::unsupported("Another namespace of an add-on (namespaceConfig)"));
    }
    let values = input["configurationValues"].as_str();
    if let Some(values) = values {
        addon_settings::check(row, values)?;
    }
    Ok(values.map(str::to_owned))
}

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    Ok(Answer::read(json!({"addon": find(context, input)?.record.shown()})))
}

pub fn list(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let cluster = text(input, "clusterName");
    cluster::find(context, cluster)?;
    let all = state::list::<Addon>(context.state, cluster).into_iter().map(|kept| kept.record);
    let names: Vec<String> = all.map(|addon| addon.addon_name).collect();
    Ok(Answer::read(json!({"addons": names})))
}

pub fn update(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = find(context, input)?;
    let about = |fault: Fault| named(fault, input);
    let cluster = cluster::find(context, text(input, "clusterName"))?;
    let row = addon_catalog::find(&found.record.addon_name)
        .ok_or_else(|| about(fault::invalid("Addon version specified is not supported")))?;
    let mut params = Vec::new();
    if let Some(asked) = input["addonVersion"].as_str() {
        let version = version(row, &cluster.record.shown.version, Some(asked)).map_err(about)?;
        found.record.addon_version = version.into();
        params.push(("AddonVersion", version.to_owned()));
    }
    if let Some(values) = configuration(row, input).map_err(about)? {
        params.push(("ConfigurationValues", values.clone()));
        // An empty text takes back what was set.
        found.record.configuration_values = Some(values).filter(|values| !values.trim().is_empty());
    }
    if let Some(resolve) = input["resolveConflicts"].as_str() {
        params.push(("ResolveConflicts", resolve.to_owned()));
    }
    found.record.modified_at = context.now;
    let mut changes = Changes::default();
    let name = &found.record.addon_name;
    let record = update::done(context, &mut changes, cluster.name(), Of::Addon(name), "AddonUpdate", params);
    changes.update(&found);
    Ok(update::answer(&record, changes))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let found = find(context, input)?;
    let mut changes = Changes::default();
    changes.delete(&found);
    let mut shown = found.record.shown();
    shown["status"] = "DELETING".into();
    Ok(Answer::write(json!({"addon": shown}), changes))
}
