//! What changes a node group: its configuration, which its nodes take as they are, and its version, which new nodes bring.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::cluster::{self, read};
use super::node_group::{
    self, Before, NodeGroupRecord, ScalingRequest, Taint, TemplateRequest, UpdateConfig,
};
use super::node_repair::NodeRepair;
use super::update::{self, Of, text};
use super::{fault, node_template, version};
use crate::state::{Changes, Kept};
use crate::{Answer, Context, Fault};

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    labels: LabelChange,
    taints: TaintChange,
    scaling_config: Option<ScalingRequest>,
    update_config: Option<UpdateConfig>,
    node_repair_config: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LabelChange {
    add_or_update_labels: BTreeMap<String, String>,
    remove_labels: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct TaintChange {
    add_or_update_taints: Vec<Taint>,
    remove_taints: Vec<Taint>,
}

type Params = Vec<(&'static str, String)>;

pub fn config(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = ready(context, input)?;
    let about = |fault: Fault| named(fault, input);
    let asked: Config = read(input)?;
    if node_group::asks_for_warm_pool(input) {
        return Err(about(fault::unsupported("A warm pool (warmPoolConfig)")));
    }
    let (mut params, mut changes) = (Params::new(), Changes::default());
    labels(&mut found, &asked.labels, &mut params).map_err(about)?;
    taints(&mut found, &asked.taints, &mut params).map_err(about)?;
    if !params.is_empty() {
        // The nodes there are get them as they are; those to come by their template.
        let cluster = cluster::find(context, text(input, "clusterName"))?;
        found.record.template =
            node_template::renew(context, &mut changes, &cluster.record, &found.record).map_err(about)?;
    }
    let shown = &mut found.record.shown;
    if let Some(sizes) = &asked.scaling_config {
        let wanted = node_group::scaled(sizes, shown.scaling_config);
        if wanted.min_size > wanted.desired_size {
            let why = format!(
                "Minimum capacity {} can't be greater than desired size {}",
                wanted.min_size, wanted.desired_size
            );
            return Err(about(fault::invalid(why)));
        }
        if wanted.desired_size > wanted.max_size {
            let why = format!(
                "desired capacity {} can't be greater than max size {}",
                wanted.desired_size, wanted.max_size
            );
            return Err(about(fault::invalid(why)));
        }
        node_group::check_size(wanted.max_size).map_err(about)?;
        shown.scaling_config = wanted;
        params.push(("MinSize", wanted.min_size.to_string()));
        params.push(("MaxSize", wanted.max_size.to_string()));
        params.push(("DesiredSize", wanted.desired_size.to_string()));
    }
    if let Some(config) = asked.update_config {
        node_group::check_update_config(&config).map_err(about)?;
        shown.update_config = node_group::with_default(config);
        if let Some(most) = shown.update_config.max_unavailable {
            params.push(("MaxUnavailable", most.to_string()));
        }
        if let Some(percent) = shown.update_config.max_unavailable_percentage {
            params.push(("MaxUnavailablePercentage", percent.to_string()));
        }
        if let Some(strategy) = &shown.update_config.update_strategy {
            params.push(("UpdateStrategy", strategy.clone()));
        }
    }
    if let Some(repair) = asked.node_repair_config {
        shown.node_repair_config = NodeRepair::asked(&repair).map_err(about)?;
        params.push(("NodeRepairEnabled", shown.node_repair_config.enabled.to_string()));
    }
    if params.is_empty() {
        return Err(about(fault::invalid("No changes needed for the nodegroup config provided")));
    }
    begin(context, found, "ConfigUpdate", params, changes)
}

fn labels(found: &mut Kept<NodeGroupRecord>, asked: &LabelChange, params: &mut Params) -> Result<(), Fault> {
    node_group::check_labels(asked.add_or_update_labels.iter())?;
    let nothing = String::new();
    node_group::check_labels(asked.remove_labels.iter().map(|key| (key, &nothing)))?;
    let labels = &mut found.record.shown.labels;
    for key in &asked.remove_labels {
        labels.remove(key);
    }
    labels.extend(asked.add_or_update_labels.clone());
    if !asked.add_or_update_labels.is_empty() {
        params.push(("LabelsToAdd", json!(asked.add_or_update_labels).to_string()));
    }
    if !asked.remove_labels.is_empty() {
        params.push(("LabelsToRemove", json!(asked.remove_labels).to_string()));
    }
    Ok(())
}

/// A taint is known by its key and effect.
fn taints(found: &mut Kept<NodeGroupRecord>, asked: &TaintChange, params: &mut Params) -> Result<(), Fault> {
    let taints = &mut found.record.shown.taints;
    let gone = asked.remove_taints.iter().chain(&asked.add_or_update_taints);
    for other in gone {
        taints.retain(|taint| (&taint.key, &taint.effect) != (&other.key, &other.effect));
    }
    taints.extend(asked.add_or_update_taints.iter().cloned());
    node_group::check_taints(taints)?;
    if !asked.add_or_update_taints.is_empty() {
        params.push(("TaintsToAdd", json!(asked.add_or_update_taints).to_string()));
    }
    if !asked.remove_taints.is_empty() {
        params.push(("TaintsToRemove", json!(asked.remove_taints).to_string()));
    }
    Ok(())
}

pub fn version(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = ready(context, input)?;
    let about = |fault: Fault| named(fault, input);
    let cluster = cluster::find(context, text(input, "clusterName"))?;
    let current = found.record.shown.version.clone();
    let wanted = input["version"].as_str().unwrap_or(&cluster.record.shown.version).to_owned();
    let rows =
        (version::find(&current), version::find(&wanted), version::find(&cluster.record.shown.version));
    let (Some(from), Some(to), Some(plane)) = rows else {
        return Err(about(fault::invalid("unsupported Kubernetes version")));
    };
    if to.minor < from.minor || to.minor > from.minor + 1 || to.minor > plane.minor {
        let why = format!(
            "Requested Nodegroup Kubernetes version {wanted} is not valid for cluster version {} and nodegroup version {current}",
            plane.name
        );
        return Err(about(fault::invalid(why)));
    }
    let release = node_group::release_of(&wanted, input["releaseVersion"].as_str()).map_err(about)?;
    let mut params: Params = vec![("Version", wanted.clone()), ("ReleaseVersion", release.clone())];
    found.record.before = Some(Box::new(Before {
        version: current,
        release_version: found.record.shown.release_version.clone(),
        launch_template: found.record.shown.launch_template.clone(),
        template: found.record.template.clone(),
    }));
    if let Some(asked) = input.get("launchTemplate").filter(|asked| !asked.is_null()) {
        let asked: TemplateRequest = read(asked)?;
        let template = node_template::of_user(context, &asked).map_err(about)?;
        let known = found.record.shown.launch_template.as_ref();
        if known.is_none_or(|known| known.id != template.id) {
            let why = "Changing the launch template of a nodegroup is not allowed: only another version of it can be specified";
            return Err(about(fault::invalid(why)));
        }
        params.push(("LaunchTemplateName", template.name.clone()));
        params.push(("LaunchTemplateVersion", template.version.clone()));
        found.record.shown.launch_template = Some(template);
    }
    let mut changes = Changes::default();
    found.record.shown.version = wanted;
    found.record.shown.release_version = release;
    found.record.force = input["force"] == true;
    found.record.template =
        node_template::renew(context, &mut changes, &cluster.record, &found.record).map_err(about)?;
    begin(context, found, "VersionUpdate", params, changes)
}

/// A node group that is not being worked on.
fn ready(context: &Context, input: &Value) -> Result<Kept<NodeGroupRecord>, Fault> {
    let found = node_group::find(context, input)?;
    match found.record.shown.status.as_str() {
        "ACTIVE" | "DEGRADED" if found.record.update_id.is_empty() => Ok(found),
        status => {
            let what = if found.record.update_id.is_empty() {
                format!("it has status {status}")
            } else {
                format!("update {} is in progress", found.record.update_id)
            };
            Err(named(fault::in_use(format!("Nodegroup cannot be updated as {what}")), input))
        }
    }
}

fn named(fault: Fault, input: &Value) -> Fault {
    fault.with("clusterName", text(input, "clusterName")).with("nodegroupName", text(input, "nodegroupName"))
}

fn begin(
    context: &mut Context,
    mut found: Kept<NodeGroupRecord>,
    kind: &str,
    params: Params,
    mut changes: Changes,
) -> Result<Answer, Fault> {
    let of = Of::NodeGroup(&found.record.shown.nodegroup_name);
    let record = update::begin(context, &mut changes, &found.record.shown.cluster_name, of, kind, params);
    found.record.shown.status = "UPDATING".into();
    found.record.shown.modified_at = context.now;
    found.record.update_id.clone_from(&record.shown.id);
    changes.update(&found);
    Ok(update::answer(&record, changes))
}
