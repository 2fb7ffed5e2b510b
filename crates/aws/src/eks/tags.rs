//! Tags of clusters and of what belongs to them, by their ARNs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::cluster::ClusterRecord;
use super::fargate_profile::FargateProfileRecord;
use super::node_group::NodeGroupRecord;
use super::update::text;
use super::{AccessEntry, Addon, IdentityProvider, PodIdentityAssociation, fault};
use crate::state::{self, Changes, Kept, Record};
use crate::{Answer, Context, Fault};

const MOST: usize = 50;

pub type Tags = BTreeMap<String, String>;

/// Refuses what AWS takes no tags of: too many, its own prefix, too long.
pub fn check(tags: &Tags) -> Result<(), Fault> {
    if tags.len() > MOST {
        return Err(fault::invalid(format!("A resource can have at most {MOST} tags")));
    }
    for (key, value) in tags {
        if key.starts_with("aws:") {
            return Err(fault::invalid("Caller is an end user and not allowed to mutate system tags"));
        }
        if key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256 {
            return Err(fault::invalid(format!(
                "The tag {key} must have a key of 1 to 128 and a value of at most 256 characters"
            )));
        }
    }
    Ok(())
}

/// A record that has tags.
enum Tagged {
    Cluster(Kept<ClusterRecord>),
    FargateProfile(Kept<FargateProfileRecord>),
    NodeGroup(Kept<NodeGroupRecord>),
    Addon(Kept<Addon>),
    AccessEntry(Kept<AccessEntry>),
    IdentityProvider(Kept<IdentityProvider>),
    PodIdentity(Kept<PodIdentityAssociation>),
}

impl Tagged {
    fn find(context: &Context, arn: &str) -> Result<Self, Fault> {
        let prefix = format!("arn:aws:eks:{}:{}:", context.region, context.account);
        let wrong = || Fault::new("BadRequestException", format!("Invalid resource ARN: {arn}"));
        let resource = arn.strip_prefix(&prefix).ok_or_else(wrong)?;
        let parts: Vec<&str> = resource.split('/').collect();
        let (kind, cluster) = (parts[0], parts.get(1).copied().unwrap_or_default());
        let state = context.state;
        let found = match kind {
            "cluster" => state::get(state, "", cluster)
                .filter(|kept: &Kept<ClusterRecord>| kept.record.shown.arn == arn)
                .map(Self::Cluster),
            "fargateprofile" => {
                of(context, cluster, |one: &FargateProfileRecord| one.shown.fargate_profile_arn == arn)
                    .map(Self::FargateProfile)
            }
            "nodegroup" => of(context, cluster, |one: &NodeGroupRecord| one.shown.nodegroup_arn == arn)
                .map(Self::NodeGroup),
            "addon" => of(context, cluster, |one: &Addon| one.addon_arn == arn).map(Self::Addon),
            "access-entry" => {
                of(context, cluster, |one: &AccessEntry| one.access_entry_arn == arn).map(Self::AccessEntry)
            }
            "podidentityassociation" => {
                of(context, cluster, |one: &PodIdentityAssociation| one.association_arn == arn)
                    .map(Self::PodIdentity)
            }
            "identityproviderconfig" => {
                of(context, cluster, |one: &IdentityProvider| one.identity_provider_config_arn == arn)
                    .map(Self::IdentityProvider)
            }
            _ => return Err(wrong()),
        };
        found.ok_or_else(|| {
            Fault::new("NotFoundException", format!("The specified resource could not be found: {arn}"))
        })
    }

    fn tags(&mut self) -> &mut Tags {
        match self {
            Self::Cluster(kept) => &mut kept.record.shown.tags,
            Self::FargateProfile(kept) => &mut kept.record.shown.tags,
            Self::NodeGroup(kept) => &mut kept.record.shown.tags,
            Self::Addon(kept) => &mut kept.record.tags,
            Self::AccessEntry(kept) => &mut kept.record.tags,
            Self::IdentityProvider(kept) => &mut kept.record.tags,
            Self::PodIdentity(kept) => &mut kept.record.tags,
        }
    }

    fn save(&self) -> Changes {
        let mut changes = Changes::default();
        match self {
            Self::Cluster(kept) => changes.update(kept),
            Self::FargateProfile(kept) => changes.update(kept),
            Self::NodeGroup(kept) => changes.update(kept),
            Self::Addon(kept) => changes.update(kept),
            Self::AccessEntry(kept) => changes.update(kept),
            Self::IdentityProvider(kept) => changes.update(kept),
            Self::PodIdentity(kept) => changes.update(kept),
        }
        changes
    }
}

/// The tags of what an ARN names; none if there is nothing.
pub fn of_arn(context: &Context, arn: &str) -> Tags {
    Tagged::find(context, arn).map(|mut found| std::mem::take(found.tags())).unwrap_or_default()
}

fn of<T: Record>(context: &Context, cluster: &str, is: impl Fn(&T) -> bool) -> Option<Kept<T>> {
    state::list::<T>(context.state, cluster).into_iter().find(|kept| is(&kept.record))
}

pub fn list(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = Tagged::find(context, text(input, "resourceArn"))?;
    Ok(Answer::read(json!({"tags": found.tags()})))
}

pub fn tag(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = Tagged::find(context, text(input, "resourceArn"))?;
    let new: Tags = super::cluster::read(&input["tags"])?;
    found.tags().extend(new);
    check(found.tags()).map_err(|fault| Fault::new("BadRequestException", fault.message))?;
    Ok(Answer::done(found.save()))
}

pub fn untag(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut found = Tagged::find(context, text(input, "resourceArn"))?;
    let keys: Vec<String> = super::cluster::read(&input["tagKeys"])?;
    found.tags().retain(|key, _| !keys.contains(key));
    Ok(Answer::done(found.save()))
}
