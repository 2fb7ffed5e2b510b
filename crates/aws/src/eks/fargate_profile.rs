//! Fargate profiles: which pods of a cluster get a machine of their own. They never change: one is made, and deleted.
//! <https://docs.aws.amazon.com/eks/latest/userguide/fargate-profile.html>

use std::collections::BTreeMap;

use object::{Resource, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::access_entry;
use super::cluster::{self, ClusterRecord, Health, read};
use super::request::Request;
use super::subject::arn;
use super::update::text;
use super::{fault, surroundings, tags};
use crate::iam::{self, Trust};
use crate::policy::like;
use crate::state::{self, Changes, Kept, Record};
use crate::{Answer, Context, Fault};

/// Of a cluster; selectors of a profile; labels of a selector.
const MOST: usize = 10;
const MOST_SELECTORS: usize = 5;
const MOST_LABELS: usize = 5;
const NAME_CHARS: usize = 100;
const RESERVED_PREFIX: &str = "eks-";

/// Who starts pods with the role of a profile.
const SERVICE: &str = "eks-fargate-pods.amazonaws.com";

/// A Fargate profile in the account store; it belongs to its cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FargateProfileRecord {
    pub shown: FargateProfile,
    #[serde(default)]
    pub request: Request,
}

impl Record for FargateProfileRecord {
    const RESOURCE: Resource = Resource::new("fargate-profiles.eks");
}

/// As `DescribeFargateProfile` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FargateProfile {
    pub fargate_profile_name: String,
    pub fargate_profile_arn: String,
    pub cluster_name: String,
    pub created_at: Time,
    pub pod_execution_role_arn: String,
    pub subnets: Vec<String>,
    pub selectors: Vec<Selector>,
    /// `CREATING`, `CREATE_FAILED`, `ACTIVE`, `DELETING`
    pub status: String,
    pub tags: BTreeMap<String, String>,
    pub health: Health,
}

/// Pods of a namespace with these labels; `*` and `?` stand for any characters and for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selector {
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
}

impl FargateProfile {
    /// Whether it is for the pods of a namespace that have these labels.
    pub fn matches(&self, namespace: &str, labels: &dyn Fn(&str) -> Option<String>) -> bool {
        let is_meant = |selector: &Selector| {
            // All of them must be there.
            let has =
                |(key, pattern): (&String, &String)| labels(key).is_some_and(|value| like(pattern, &value));
            like(&selector.namespace, namespace) && selector.labels.iter().all(has)
        };
        self.selectors.iter().any(is_meant)
    }
}

/// What `CreateFargateProfile` reads of its input.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    fargate_profile_name: String,
    cluster_name: String,
    pod_execution_role_arn: String,
    #[serde(default)]
    subnets: Vec<String>,
    #[serde(default)]
    selectors: Vec<Selector>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

fn named(fault: Fault, input: &Value) -> Fault {
    let member = |fault: Fault, name: &str| fault.with(name, text(input, name));
    member(member(fault, "clusterName"), "fargateProfileName")
}

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let asked: Create = read(input)?;
    let about = |fault: Fault| named(fault, input);
    let (cluster_name, name) = (&asked.cluster_name, &asked.fargate_profile_name);
    if let Some(known) = state::get::<FargateProfileRecord>(context.state, cluster_name, name) {
        if known.record.request.is_repeated_by(input) {
            return Ok(Answer::read(json!({"fargateProfile": known.record.shown})));
        }
        let why = "A Fargate Profile already exists with this name in this cluster.";
        return Err(about(fault::in_use(why)));
    }
    let cluster = cluster::find_active(context, cluster_name)?;
    refuse_second(context, cluster_name, name, "create").map_err(about)?;
    if state::list::<FargateProfileRecord>(context.state, cluster_name).len() >= MOST {
        let why = format!("Limit exceeded: at most {MOST} Fargate profiles per cluster");
        return Err(about(fault::limit(why)));
    }
    check_name(name).map_err(about)?;
    check_selectors(&asked.selectors).map_err(about)?;
    tags::check(&asked.tags).map_err(about)?;
    check_role(context, &asked.pod_execution_role_arn).map_err(about)?;
    let subnets = subnets(context, &cluster, &asked.subnets).map_err(about)?;
    let path = format!("fargateprofile/{cluster_name}/{name}/{}", context.ids.uuid());
    let record = FargateProfileRecord {
        shown: FargateProfile {
            fargate_profile_arn: arn(context, &path),
            created_at: context.now,
            pod_execution_role_arn: asked.pod_execution_role_arn.clone(),
            subnets,
            selectors: asked.selectors.clone(),
            status: "CREATING".into(),
            tags: asked.tags.clone(),
            health: Health::default(),
            fargate_profile_name: name.clone(),
            cluster_name: cluster_name.clone(),
        },
        request: Request::of(input),
    };
    let mut changes = Changes::default();
    access_entry::create_for_fargate(context, &mut changes, &cluster.record, &asked.pod_execution_role_arn);
    changes.create(cluster_name, name, &record);
    changes.require(&cluster);
    Ok(Answer::write(json!({"fargateProfile": record.shown}), changes))
}

/// Only one profile of a cluster comes or goes at a time.
fn refuse_second(context: &Context, cluster: &str, name: &str, verb: &str) -> Result<(), Fault> {
    let all = state::list::<FargateProfileRecord>(context.state, cluster);
    let comes_or_goes = |one: &&FargateProfile| matches!(one.status.as_str(), "CREATING" | "DELETING");
    let busy = all.iter().map(|kept| &kept.record.shown).find(comes_or_goes);
    match busy {
        Some(other) => Err(fault::in_use(format!(
            "Cannot {verb} Fargate Profile {name} because cluster {cluster} currently has Fargate profile {} in status {}",
            other.fargate_profile_name, other.status
        ))),
        None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), Fault> {
    if name.starts_with(RESERVED_PREFIX) {
        let why = format!("The fargate profile name starts with the reserved prefix: '{RESERVED_PREFIX}'.");
        return Err(fault::invalid(why));
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let starts_well = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    if name.len() > NAME_CHARS || !starts_well || !name.bytes().all(fits) {
        return Err(fault::invalid(format!(
            "The fargate profile name {name} must be letters, digits, '-' and '_', start with a letter or digit, and have at most {NAME_CHARS} characters"
        )));
    }
    Ok(())
}

fn check_selectors(selectors: &[Selector]) -> Result<(), Fault> {
    if selectors.is_empty() || selectors.iter().any(|selector| selector.namespace.is_empty()) {
        let why = "Fargate Profile must have at least one selector with at least one namespace value.";
        return Err(fault::invalid(why));
    }
    if selectors.len() > MOST_SELECTORS {
        return Err(fault::invalid(format!("Request contains more than {MOST_SELECTORS} Selectors")));
    }
    for selector in selectors {
        if selector.labels.len() > MOST_LABELS {
            let why = format!("Request contains Selector with more than {MOST_LABELS} Label pairs");
            return Err(fault::invalid(why));
        }
        let (keys, values) = (selector.labels.keys(), selector.labels.values());
        let wrong = keys.chain(values).chain([&selector.namespace]).find(|text| !may_match(text));
        if let Some(wrong) = wrong {
            return Err(fault::invalid(format!("Request contains Selector with an invalid value: {wrong}")));
        }
    }
    Ok(())
}

/// Whether a name, a label's key or its value could match the text: of their characters, and wildcards.
fn may_match(text: &str) -> bool {
    text.len() <= 253 + 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._/*?".contains(&byte))
}

fn check_role(context: &Context, arn: &str) -> Result<(), Fault> {
    match iam::trust(context, arn, SERVICE) {
        Trust::Given => Ok(()),
        Trust::Missing => {
            let why = format!("The pod execution role {arn} does not exist in this account");
            Err(fault::invalid(why))
        }
        Trust::Refused => Err(fault::invalid(format!(
            "Misconfigured PodExecutionRole Trust Policy; Please add the {SERVICE} Service Principal"
        ))),
    }
}

/// Those that are asked for, or the private ones of the cluster. Pods on Fargate have no public addresses.
fn subnets(context: &Context, cluster: &Kept<ClusterRecord>, asked: &[String]) -> Result<Vec<String>, Fault> {
    let network = &cluster.record.shown.resources_vpc_config;
    if asked.is_empty() {
        let private = network.subnet_ids.iter().filter(|id| surroundings::is_private(context.state, id));
        let private: Vec<String> = private.cloned().collect();
        if private.is_empty() {
            return Err(fault::invalid(
                "Fargate Profile must have at least one subnet, and the cluster has no private ones: name them in subnets",
            ));
        }
        return Ok(private);
    }
    for id in asked {
        if surroundings::subnet(context.state, id)?.record.vpc_id != network.vpc_id {
            return Err(fault::invalid(format!("Subnet {id} does not belong to the VPC of the cluster")));
        }
        if !surroundings::is_private(context.state, id) {
            let why = format!("Subnet {id} provided in Fargate Profile is not a private subnet");
            return Err(fault::invalid(why));
        }
    }
    Ok(asked.to_vec())
}

fn find(context: &Context, input: &Value) -> Result<Kept<FargateProfileRecord>, Fault> {
    let (cluster, name) = (text(input, "clusterName"), text(input, "fargateProfileName"));
    cluster::find(context, cluster)?;
    state::get(context.state, cluster, name)
        .ok_or_else(|| named(fault::not_found(format!("No Fargate Profile found with name: {name}.")), input))
}

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    Ok(Answer::read(json!({"fargateProfile": find(context, input)?.record.shown})))
}

pub fn list(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let cluster = text(input, "clusterName");
    cluster::find(context, cluster)?;
    let all = state::list::<FargateProfileRecord>(context.state, cluster).into_iter();
    let names: Vec<String> = all.map(|kept| kept.record.shown.fargate_profile_name).collect();
    Ok(Answer::read(json!({"fargateProfileNames": names})))
}

/// The pods of the profile are deleted, and then it is gone.
pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = find(context, input)?;
    let (cluster, name) = (text(input, "clusterName"), text(input, "fargateProfileName"));
    refuse_second(context, cluster, name, "delete").map_err(|fault| named(fault, input))?;
    found.record.shown.status = "DELETING".into();
    let mut changes = Changes::default();
    changes.update(&found);
    Ok(Answer::write(json!({"fargateProfile": found.record.shown}), changes))
}
